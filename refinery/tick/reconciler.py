"""The reconcile tick: lock the town, take in facts, look, plan, carry out. One short transaction.

Level-triggered: a tick derives everything from what is stored, so a lost or doubled wake-up, fact or tick changes
nothing but the moment. `settle` repeats the tick while it finds something to do; `explain` only looks.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from beads import inbox, ledger
from beads.models import Fact, Town
from refinery import facts
from refinery.core.rules import Decision, plan
from refinery.tick import invariants, metrics, snapshot
from refinery.tick.apply import apply_plan

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
    pending: int = 0
    violations: int = 0
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
            "pending": self.pending,
            "violations": self.violations,
            "milliseconds": round(self.milliseconds, 1),
        }


class _DryRun(Exception):
    """Rolls a dry run back."""


def tick(
    town: Town,
    now: dt.datetime | None = None,
    *,
    wait: bool = True,
    dry_run: bool = False,
    heard: dt.datetime | None = None,
) -> TickReport:
    """Run one tick of `town`.

    `wait=False` returns at once (`busy`) when another tick holds the town. `dry_run` rolls everything back. `heard`:
    when the news came that this tick is for; another one that began later has seen them, and nothing is done.
    """
    report = TickReport(town.slug)
    began = time.perf_counter()
    try:
        with bound_contextvars(town=town.slug), transaction.atomic():
            locked = Town.objects.select_for_update(skip_locked=not wait).filter(pk=town.pk).first()
            if locked is None:
                report.busy = True
                return report
            if heard is not None and locked.looked_at is not None and locked.looked_at > heard:
                return report
            moment = now or timezone.now()
            _tick_locked(locked, moment, report, began)
            if heard is not None or report.changed:
                ledger.note_look(town, moment)
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    report.milliseconds = (time.perf_counter() - began) * 1000
    if report.changed and not dry_run:
        log.info("tick", **report.as_dict())
    return report


def _tick_locked(town: Town, now: dt.datetime, report: TickReport, began: float) -> None:
    touched: set[str] = set()

    def _take(fact: Fact) -> None:
        touched.add(fact.subject)
        with bound_contextvars(fact=fact.pk, kind=fact.kind, subject=fact.subject):
            facts.take(fact, now)

    report.facts = inbox.drain(town, now, _take)
    report.decisions = plan(snapshot.load(town, now))
    applied = apply_plan(town, report.decisions, now)
    report.actions, report.lost_races, report.failed = applied.actions, applied.lost, applied.failed
    if not report.changed:
        return
    inbox.changed(town.slug)
    for decision in report.decisions:
        if decision.actions:
            touched.update(_named(decision))
    report.violations = _violations(town, now, touched)
    report.pending = inbox.pending_count(town)
    measured = {
        "facts": report.facts,
        "pending": report.pending,
        "lost_races": report.lost_races,
        "failed": report.failed,
        "violations": report.violations,
        "milliseconds": round((time.perf_counter() - began) * 1000, 2),
    }
    metrics.note(town, now, measured, report.actions)


def _violations(town: Town, now: dt.datetime, touched: set[str]) -> int:
    """How many promises are broken by what was touched. A check that itself fails stops no work."""
    try:
        with transaction.atomic():
            return len(invariants.check(town, now, touched))
    except Exception:
        log.exception("invariants.failed", town=town.slug)
        return 0


def replay(town: Town, since: dt.datetime, until: dt.datetime | None = None) -> list[dict[str, Any]]:
    """Take in the town's facts of a time range again, one by one, with a tick after each; all of it rolled back.

    Facts are observations: taking them in again should change nothing. What it does change, and what it refuses,
    is what this shows, one row per fact.
    """
    rows = []
    with transaction.atomic():
        Town.objects.select_for_update().get(pk=town.pk)
        facts = Fact.objects.filter(town=town, recorded_at__gte=since).order_by("id")
        if until is not None:
            facts = facts.filter(recorded_at__lte=until)
        for fact in facts:
            inbox.again(fact)
            report = tick(town, timezone.now())
            fact.refresh_from_db()
            rows.append(
                {
                    "fact": fact.pk,
                    "kind": fact.kind,
                    "subject": fact.subject,
                    "at": fact.recorded_at.isoformat(),
                    "error": fact.error,
                    "actions": dict(report.actions),
                }
            )
        transaction.set_rollback(True)
    return rows


def _named(decision: Decision) -> Iterator[str]:
    """The ids that a decision and its actions name."""
    yield decision.subject.rpartition(" ")[2]
    for action in decision.actions:
        for field_ in fields(action):
            value = getattr(action, field_.name)
            if isinstance(value, str) and value.startswith(("gt-", "run-")):
                yield value


def settle(
    town: Town, *, wait: bool = True, heard: dt.datetime | None = None, pulse: Callable[[], None] = lambda: None
) -> list[TickReport]:
    """Tick until there is nothing to do (at most `MAX_ROUNDS`, then it is logged: rules must not fight). `pulse` is
    called after each tick."""
    reports: list[TickReport] = []
    for _ in range(MAX_ROUNDS):
        reports.append(tick(town, wait=wait, heard=heard))
        pulse()
        if not reports[-1].changed:
            return reports
        heard = timezone.now()  # a tick of somebody else that begins from here on sees what this one did
    log.error("tick.unsettled", town=town.slug, actions=dict(reports[-1].actions))
    return reports


def settle_all(pulse: Callable[[], None] = lambda: None) -> int:
    """Settle every town; returns how many ticks were run. A town that fails does not stop the others."""
    count = 0
    for town in Town.objects.order_by("pk"):
        try:
            count += len(settle(town, wait=False, pulse=pulse))
        except Exception:
            log.exception("tick.failed", town=town.slug)
    return count


def explain(town: Town, now: dt.datetime | None = None) -> list[Decision]:
    """What the next tick would decide on the present rows, changing nothing. Facts are not drained."""
    return plan(snapshot.load(town, now or timezone.now()))
