"""Carry out a plan: each action through its table's single writer (`refinery.tick.acts`).

Every decision runs in a savepoint of its own: a `LostRace` undoes just that decision, is counted, and is left to the
next tick. Must run inside the tick's transaction, under the town's lock.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from django.db import transaction

from agents.runtime.crashpoints import crashpoint
from beads import ledger
from beads.errors import GastownError
from beads.models import Bead, Town
from refinery.core.actions import Action, Decision, OfEntries, OfRuns, OfTrains
from refinery.core.reasons import Held
from refinery.store import lost
from refinery.tick.acts import entries, runs, trains
from refinery.tick.acts import ledger as ledger_acts
from refinery.tick.endings import ACTOR, hold_entry

log = structlog.get_logger(__name__)


@dataclass
class Applied:
    """What a plan did: actions by name, decisions that lost a race, and decisions that failed."""

    actions: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    failed: int = 0


def apply_plan(town: Town, decisions: Iterable[Decision], now: dt.datetime) -> Applied:
    """Apply all decisions that have actions."""
    done = Applied()
    failed: dict[str, tuple[str, str]] = {}
    for decision in decisions:
        if not decision.actions:
            continue
        try:
            with transaction.atomic():
                for action in decision.actions:
                    _apply(town, action, now)
        except GastownError as error:
            done.lost += 1
            failed[decision.subject] = (decision.rule, error.message)
            log.info("decision.lost", subject=decision.subject, rule=decision.rule, error=error.message)
        except Exception as error:
            done.failed += 1
            failed[decision.subject] = (decision.rule, f"{type(error).__name__}: {error}")
            log.exception("decision.failed", subject=decision.subject, rule=decision.rule)
        else:
            done.actions.update(type(a).__name__ for a in decision.actions)
    _tell_of_lost(town, failed, now)
    crashpoint("tick.applied")
    transaction.on_commit(lambda: crashpoint("tick.committed"))
    return done


def _tell_of_lost(town: Town, failed: dict[str, tuple[str, str]], now: dt.datetime) -> None:
    """A decision that is lost again and again is not tried for ever in silence."""
    stuck, over = lost.note(town, failed, now)
    for row in stuck:
        why = f"the decision {row.rule!r} could not be carried out {row.times} times: {row.error}"
        what, _, name = row.subject.partition(" ")
        try:
            with transaction.atomic():
                if what == "entry":
                    hold_entry(town, name, Held.STUCK, why, now)
                else:
                    about = Bead.objects.filter(pk=name, town=town).first() if what in ("bead", "convoy") else None
                    title, key = f"Does not go on: {row.subject}"[:300], f"lost:{row.subject}"
                    text = f"{why}\n\nWhat to do: gastown tick --town {town.slug} --explain shows it; see the log, too."
                    problem = ledger.Problem(key, title, body=text, severity="high", about=about)
                    ledger.escalate(town, problem, actor=ACTOR)
        except GastownError as error:
            log.info("lost.untold", subject=row.subject, error=error.message)
    for row in over:
        ledger.settle_key(town, f"lost:{row.subject}", ACTOR, now, "it goes on")


def _apply(town: Town, action: Action, now: dt.datetime) -> None:
    """Carry out one action; each of the four groups is one exhaustive `match`."""
    if isinstance(action, OfRuns):
        runs.apply(town, action, now)
    elif isinstance(action, OfEntries):
        entries.apply(town, action, now)
    elif isinstance(action, OfTrains):
        trains.apply(town, action, now)
    else:
        ledger_acts.apply(town, action, now)
