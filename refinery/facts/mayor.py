"""What the mayor and the people who ask say to one another: each word is an event of the request's bead."""

from __future__ import annotations

from beads import ledger
from beads.errors import Conflict
from beads.models import Bead
from refinery.facts import subjects
from refinery.facts.payloads import Payload, Words
from refinery.facts.registry import Taken, at_the_door, fact
from refinery.store import notices
from refinery.store.requests import ANSWERED, ASKED, REPLIED, open_question

at_the_door("mayor.request", says=Payload)


def _key(request: Bead) -> str:
    """The key of the need that a question is."""
    return f"mayor:{request.pk}"


@fact("mayor.asked", "mayor.replied", says=Words, replayable=True)
def said(it: Taken[Words]) -> None:
    """The mayor asks, or answers in words. A question is a need, until it is answered."""
    run = subjects.run(it)
    kind = ASKED if it.kind == "mayor.asked" else REPLIED
    request = run.bead
    if request.events.filter(kind=kind, data__run=run.pk).exists():
        return
    ledger.note(request, kind, it.actor, it.said.text, run=run.pk)
    if kind == REPLIED:
        return
    title = f"The mayor asks: {request.title}"[:300]
    problem = ledger.Problem(_key(request), title, body=it.said.text, about=request)
    made = ledger.escalate(it.town, problem, actor=it.actor)
    if made is not None:
        notices.tell(it.town, notices.Notice("needs_you", request, title, it.said.text, made.pk), it.now)


@fact("mayor.answer", says=Words)
def answer(it: Taken[Words]) -> None:
    """A person answers. Conflict when nothing is asked (any more)."""
    request = subjects.bead(it)
    if open_question(request) is None:
        raise Conflict(f"the mayor asks nothing about {request.pk}")
    ledger.note(request, ANSWERED, it.actor, it.said.text)
    ledger.settle_key(it.town, _key(request), it.actor, it.now, "answered")
