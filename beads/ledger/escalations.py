"""The only writer of escalations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Q

from beads import prune, questions
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
    """Open an escalation for people to see; None when one with this key is open already."""
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
    """Note that a person has seen it; the first one counts."""
    if Escalation.objects.filter(pk=escalation.pk, acknowledged_at=None, closed_at=None).update(
        acknowledged_at=now, acknowledged_by=who[:100]
    ):
        note(escalation.bead, "acknowledged", who, reason)


def answer_question(escalation: Escalation, who: str, now: dt.datetime, text: str) -> None:
    """Keep a person's answer to an agent's question, and close it. LostRace when it was closed before."""
    note(escalation.bead, questions.ANSWERED, who, text)
    close_escalation(escalation, who, now, "answered")


def settle_escalations(about: Iterable[str], who: str, now: dt.datetime, reason: str) -> None:
    """Close all open escalations about these beads."""
    _settle(Q(about_id__in=list(about)), who, now, reason)


def settle_key(town: Town, key: str, who: str, now: dt.datetime, reason: str) -> None:
    """Close the open escalation with this key, if there is one."""
    _settle(Q(town=town, key=key), who, now, reason)


def settle_keys(town: Town, prefix: str, who: str, now: dt.datetime, reason: str) -> None:
    """As `settle_key`, for all keys that begin so."""
    _settle(Q(town=town, key__startswith=prefix), who, now, reason)


def _settle(which: Q, who: str, now: dt.datetime, reason: str) -> None:
    for escalation in Escalation.objects.filter(which, closed_at=None):
        close_escalation(escalation, who, now, reason)


def close_escalation(escalation: Escalation, who: str, now: dt.datetime, reason: str = "") -> None:
    """Close it, and its bead as done. LostRace when it was closed before."""
    if Escalation.objects.filter(pk=escalation.pk, closed_at=None).update(closed_at=now) != 1:
        raise LostRace(f"escalation {escalation.pk} was closed before")
    bead = Bead.objects.get(pk=escalation.pk)
    closed = Transition(BeadStatus.CLOSED, reason=reason or "closed", resolution=Resolution.DONE)
    move(bead, bead.status, closed, actor=who, now=now)


def remove_escalations(keys: Sequence[str]) -> None:
    """Remove the escalation side of these beads."""
    prune.delete(Escalation.objects.filter(bead__any=keys))
