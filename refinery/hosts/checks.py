"""Whether a rig's host can be asked, and what its credential lacks: for `rig add`, `rig config` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.urls import reverse

from beads import config as configs
from beads.limits import Provider
from beads.models import Rig
from beads.values import format_duration
from refinery.core import hosting
from refinery.hosts.base import HostUnknown
from refinery.hosts.opening import host_of


@dataclass(frozen=True, slots=True)
class Found:
    """`says`: where changes are reviewed (empty: here, nothing is to be said); `wrong`: what is to be mended."""

    says: str = ""
    wrong: tuple[str, ...] = ()


def look(rig: Rig) -> Found:
    """Ask the rig's host what we may do there. A host that does not say is told of, too."""
    config = configs.usable(rig.town.config, rig.config)[0]
    says = hosting.told(config, rig.remote_url)
    if hosting.provider(config, rig.remote_url) != Provider.GITHUB:
        return Found(says)
    if wrong := hosting.problem(config, rig.remote_url):
        return Found(says, (wrong,))
    try:
        lacking = [f"its credential {config.pr.credential}: {line}" for line in host_of(rig).lacking()]
    except HostUnknown as error:
        lacking = [error.message]
    if not config.pr.webhook_secret:
        every = format_duration(config.pr.poll_interval)
        lacking.append(f"without [pr] webhook_secret, for hooks to {hook(rig)}, it is looked every {every}")
    return Found(says, tuple(lacking))


def hook(rig: Rig) -> str:
    """Where its host is to send its hooks."""
    return f"{settings.GASTOWN_URL}{reverse('hook', args=['github', rig.slug])}"
