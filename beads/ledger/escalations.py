"""The only writer of escalations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Q

from beads import prune
from beads.errors import LostRace
from beads.ledger.beads import Draft, Transition, create_bead, move, note
from beads.ledger.texts import MAX_BODY, MAX_TITLE
from beads.lifecycle import BeadStatus, BeadType, Resolution
from beads.models import Bead, Escalation, Town


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should see. `key`: the same problem has the same one, so that it is told once."""

    key: str
    title: str
    body: str = ""
    severity: str = "medium"
    about: Bead | None = None


def escalate(town: Town, problem: Problem, *, actor: str) -> Bead | None:
    """Tell the people once; None when an escalation with this key is open already."""
    if Escalation.objects.filter(town=town, key=problem.key, closed_at=None).exists():
        return None
    about = problem.about
    rig = None
    if about is not None:
        rig = about.rig
    draft = Draft(problem.title[:MAX_TITLE], problem.body[:MAX_BODY], type=BeadType.ESCALATION, priority=1)
    bead = create_bead(town, rig, draft, actor=actor)
    Escalation.objects.create(bead=bead, town=town, key=problem.key[:200], severity=problem.severity, about=about)
    return bead


def acknowledge(escalation: Escalation, who: str, now: dt.datetime, reason: str = "") -> None:
    """A person has seen it."""
    if Escalation.objects.filter(pk=escalation.pk, acknowledged_at=None, closed_at=None).update(
        acknowledged_at=now, acknowledged_by=who[:100]
    ):
        note(escalation.bead, "acknowledged", who, reason)


def settle_escalations(about: Iterable[str], who: str, now: dt.datetime, reason: str) -> None:
    """What was escalated about these beads needs nobody any more."""
    _settle(Q(about_id__in=list(about)), who, now, reason)


def settle_key(town: Town, key: str, who: str, now: dt.datetime, reason: str) -> None:
    """What was escalated under `key` needs nobody any more."""
    _settle(Q(town=town, key=key), who, now, reason)


def settle_keys(town: Town, prefix: str, who: str, now: dt.datetime, reason: str) -> None:
    """As `settle_key`, for all keys that begin so."""
    _settle(Q(town=town, key__startswith=prefix), who, now, reason)


def _settle(which: Q, who: str, now: dt.datetime, reason: str) -> None:
    for escalation in Escalation.objects.filter(which, closed_at=None):
        close_escalation(escalation, who, now, reason)


def close_escalation(escalation: Escalation, who: str, now: dt.datetime, reason: str = "") -> None:
    """It needs nobody any more. LostRace when it was closed before."""
    if Escalation.objects.filter(pk=escalation.pk, closed_at=None).update(closed_at=now) != 1:
        raise LostRace(f"escalation {escalation.pk} was closed before")
    bead = Bead.objects.get(pk=escalation.pk)
    closed = Transition(BeadStatus.CLOSED, reason=reason or "closed", resolution=Resolution.DONE)
    move(bead, bead.status, closed, actor=who, now=now)


def remove_escalations(keys: Sequence[str]) -> None:
    """Remove the escalation side of these beads."""
    prune.delete(Escalation.objects.filter(bead__any=keys))
