"""Heartbeats of the installation's parts: who is alive, as `readyz`, `doctor` and `up` see it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence

from django.db.models import QuerySet
from django.utils import timezone

from beads import prune
from beads.models import Heartbeat


def beat(name: str, detail: str = "") -> None:
    """Say that part `name` is alive now."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": timezone.now(), "detail": detail[:300]})


class Pulse:
    """For a loop that says at each step that it goes on: written at most every few seconds."""

    def __init__(self, name: str, every: float = 2.0) -> None:
        self.name, self.every = name, every
        self._due = 0.0

    def __call__(self) -> None:
        """A step is done."""
        if time.monotonic() >= self._due:
            beat(self.name)
            self._due = time.monotonic() + self.every


def heartbeats() -> dict[str, dt.datetime]:
    """When each part was last seen alive."""
    return {h.name: h.at for h in Heartbeat.objects.all()}


def past(before: dt.datetime) -> QuerySet[Heartbeat]:
    """Parts that were last seen before then: they are no more."""
    return Heartbeat.objects.filter(at__lt=before)


def forget(keys: Sequence[str]) -> int:
    """Remove these parts' heartbeats: they have been archived."""
    return prune.some(Heartbeat.objects.all(), keys)
