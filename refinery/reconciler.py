"""The reconcile tick: lock the town, take in facts, look, plan, carry out. One short transaction.

Level-triggered: a tick derives everything from what is stored, so a lost or doubled wake-up, fact or tick changes
nothing but the moment. `settle` repeats the tick while it finds something to do; `explain` only looks.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone

from beads import inbox
from beads.models import Town
from refinery import intake, snapshot
from refinery.apply import carry_out
from refinery.rules import Decision, plan

log = structlog.get_logger(__name__)
MAX_ROUNDS = 50


@dataclass
class TickReport:
    """What one tick did. `busy`: another process held the town's lock."""

    town: str
    busy: bool = False
    facts: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    lost_races: int = 0
    failed: int = 0
    milliseconds: float = 0.0
    decisions: list[Decision] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True when the tick did anything, so that another look is worth while."""
        return bool(self.facts or self.actions)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the decisions."""
        return {
            "town": self.town,
            "busy": self.busy,
            "facts": self.facts,
            "actions": dict(self.actions),
            "lost_races": self.lost_races,
            "failed": self.failed,
            "milliseconds": round(self.milliseconds, 1),
        }


class _DryRun(Exception):
    """Rolls a dry run back."""


def tick(town: Town, now: dt.datetime | None = None, *, wait: bool = True, dry_run: bool = False) -> TickReport:
    """Run one tick of `town`.

    `wait=False` returns at once (`busy`) when another tick holds the town. `dry_run` rolls everything back.
    """
    report = TickReport(town.slug)
    began = time.perf_counter()
    try:
        with transaction.atomic():
            locked = Town.objects.select_for_update(skip_locked=not wait).filter(pk=town.pk).first()
            if locked is None:
                report.busy = True
                return report
            _tick_locked(locked, now or timezone.now(), report)
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    report.milliseconds = (time.perf_counter() - began) * 1000
    if report.changed and not dry_run:
        log.info("tick", **report.as_dict())
    return report


def _tick_locked(town: Town, now: dt.datetime, report: TickReport) -> None:
    report.facts = inbox.drain(town, now, lambda fact: intake.take(fact, now))
    report.decisions = plan(snapshot.load(town, now))
    applied = carry_out(town, report.decisions, now)
    report.actions, report.lost_races, report.failed = applied.actions, applied.lost, applied.failed
    if report.changed:
        inbox.changed(town.slug)


def settle(town: Town, *, wait: bool = True) -> list[TickReport]:
    """Tick until there is nothing to do (at most `MAX_ROUNDS`, then it is logged: rules must not fight)."""
    reports = []
    for _ in range(MAX_ROUNDS):
        reports.append(tick(town, wait=wait))
        if not reports[-1].changed:
            return reports
    log.error("tick.unsettled", town=town.slug, actions=dict(reports[-1].actions))
    return reports


def settle_all() -> int:
    """Settle every town; returns how many ticks were run. A town that fails does not stop the others."""
    count = 0
    for town in Town.objects.order_by("pk"):
        try:
            count += len(settle(town, wait=False))
        except Exception:
            log.exception("tick.failed", town=town.slug)
    return count


def explain(town: Town, now: dt.datetime | None = None) -> list[Decision]:
    """What the next tick would decide on the present rows, changing nothing. Facts are not drained."""
    return plan(snapshot.load(town, now or timezone.now()))
