"""Questions of agents to people: an escalation that waits for an answer, and is closed by it.

The same question about the same work is asked once: who asks again hears how it stands. Writes nothing: `beads.ledger`
does. Its answer is the bead's event `answered`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import QuerySet

from beads.models import Bead, BeadEvent, Escalation

PREFIX = "ask:"
ANSWERED = "answered"  # the kind of the event
SHOWN = 300  # characters of a question that stand for it


@dataclass(frozen=True, slots=True)
class Question:
    """How a question stands: `state` is open, answered, or closed without an answer."""

    id: str
    state: str
    answer: str = ""
    by: str = ""


def key_of(about: Bead, text: str) -> str:
    """The escalation's key: the work, and the words."""
    return f"{PREFIX}{about.pk}:{hashlib.sha256(' '.join(text.split()).encode()).hexdigest()[:16]}"


def title_of(text: str) -> str:
    """What stands for a question in lists: its first line."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "")
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def is_question(escalation: Escalation) -> bool:
    """True for one that waits for an answer."""
    return escalation.key.startswith(PREFIX)


def about(bead: Bead) -> QuerySet[Escalation]:
    """All questions about this work."""
    return asked_about([bead.pk])


def asked_about(beads: Iterable[str]) -> QuerySet[Escalation]:
    """All questions about any of these beads."""
    return Escalation.objects.select_related("bead", "town").filter(about_id__in=list(beads), key__startswith=PREFIX)


def unanswered(beads: Iterable[str]) -> QuerySet[Escalation]:
    """The open questions about these beads, oldest first."""
    return asked_about(beads).filter(closed_at=None).order_by("bead__created_at")


def standing(escalation: Escalation) -> Question:
    """How a question stands now."""
    said = BeadEvent.objects.filter(bead=escalation.pk, kind=ANSWERED).order_by("pk").last()
    if said is not None:
        return Question(escalation.pk, "answered", said.reason, said.actor)
    return Question(escalation.pk, "open" if escalation.closed_at is None else "closed")
