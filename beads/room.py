"""Whether there is room on the disks: what writes pauses while there is not, says so, and goes on by itself."""

from __future__ import annotations

import os

from django.conf import settings

LEAST = 256 << 20  # bytes
SMALL = 20  # of a small disk: a twentieth


def lacking() -> str:
    """What is missing, in a sentence; empty where there is room. A disk that cannot be asked has room: whoever writes
    there will see. The disk is that of GASTOWN_HOME."""
    place = settings.GASTOWN_HOME
    try:
        found = os.statvfs(place)
    except OSError:
        return ""
    free, least = found.f_bavail * found.f_frsize, min(LEAST, found.f_blocks * found.f_frsize // SMALL)
    if os.geteuid() == 0:
        free = found.f_bfree * found.f_frsize
    if free >= least:
        return ""
    return (
        f"the disk of {place} is full ({free >> 20} MB free, {least >> 20} MB are needed): "
        "what writes waits, and goes on by itself once there is room"
    )
