"""Housekeeping and backups keep out of each other's way: what a backup's snapshot names is not removed meanwhile.

One advisory lock of the database: housekeeping takes it alone, or is simply done another time; backups share it. A
killed process loses it with its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from beads.errors import Unavailable

_KEY = 0x6A57002  # 0x6A57000: who migrates; …01: the reconciler that ticks; …03: beads.installations


@contextmanager
def alone() -> Iterator[bool]:
    """For housekeeping: True when nobody backs up, or keeps house, and nobody will while the block lasts."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_lock(%s)", [_KEY])
        row = cursor.fetchone()
    if not (row and row[0]):
        yield False
        return
    try:
        yield True
    finally:
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(%s)", [_KEY])


@contextmanager
def undisturbed() -> Iterator[None]:
    """For backups: waits until housekeeping is done, and keeps it off while the block lasts.

    Raises Unavailable at the end when the lock was lost on the way: something may have been removed.
    """
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_lock_shared(%s)", [_KEY])
    held = False
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock_shared(%s)", [_KEY])
            row = cursor.fetchone()
        held = bool(row and row[0])
    if not held:
        raise Unavailable("the connection to the database was lost meanwhile: take the backup again")
