"""What operators decide about the machine itself: runs, escalations, facts, effects."""

from __future__ import annotations

from typing import Annotated

from django.db import transaction
from django.utils import timezone

from agents.lifecycle import RunState
from agents.models import Run
from beads import inbox, outbox, questions
from beads.actors import Actor
from beads.errors import Conflict, NotFound
from beads.lifecycle import EffectState
from beads.models import Effect, Escalation, Fact
from refinery import facts
from refinery.decisions.verbs import Hint, Offer, Page, Shell, verb


@verb(
    Run,
    "stop",
    offer=Offer(
        "Stop",
        "It is asked to end and publishes what it has committed.",
        lambda run: run.state != RunState.ENDED,
    ),
    shell=Shell("ask a live run to stop", "run {id} is being stopped"),
)
def stop_run(run: Run, *, by: Actor, reason: str = "") -> None:
    """Ask a live run to stop."""
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.stop", run.pk, {"reason": reason or f"stopped by {by}"}, actor=by)


@verb(
    Run,
    "fence",
    offer=Offer(
        "Fence: take its token away",
        "For a run that does not answer. Nothing it says counts any more, and its work is given to another "
        "run at once; its process stops at its next heartbeat. Stop it instead where you can wait.",
        lambda run: run.state != RunState.ENDED,
    ),
)
def fence_run(run: Run, *, by: Actor, reason: str = "") -> None:
    """Take a live run's token away: nothing it says counts any more, and its work is given to another run.

    Its process learns so at its next heartbeat and stops; until then two may be at work, on branches of their own.
    Prefer `stop_run`, or wait for the lease.
    """
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.fence", run.pk, {"reason": reason}, actor=by)


@verb(
    Escalation,
    "ack",
    offer=Offer(
        "Acknowledge", when=lambda one: one.closed_at is None and one.acknowledged_at is None, name="acknowledge"
    ),
    shell=Shell("you have seen it", "{id} is acknowledged"),
    page=Page(),
)
def acknowledge(escalation: Escalation, *, by: Actor, reason: str = "") -> None:
    """A person has seen it."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.ack", escalation.pk, {"reason": reason}, actor=by)


@verb(
    Escalation,
    "close",
    offer=Offer("Close", when=lambda one: one.closed_at is None),
    shell=Shell("it needs nobody any more", "{id} is closed"),
    page=Page(),
)
def close_escalation(escalation: Escalation, *, by: Actor, reason: str = "") -> None:
    """It needs nobody any more."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.close", escalation.pk, {"reason": reason}, actor=by)


_ANSWER = Hint("what the agent is told", metavar="TEXT", label="Your answer", lines=3, positional=True)


@verb(
    Escalation,
    "answer",
    offer=Offer("Answer", when=lambda one: one.closed_at is None and questions.is_question(one), console=False),
    shell=Shell("answer an agent's question", "{id} is answered"),
    page=Page("Your answer is on its way to the agent."),
)
def answer(escalation: Escalation, *, by: Actor, text: Annotated[str, _ANSWER]) -> None:
    """Answer an agent's question. Whoever works on it is told, now or next."""
    if not questions.is_question(escalation):
        raise Conflict(f"{escalation.pk} asks nothing: acknowledge or close it")
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "question.answered", escalation.pk, {"text": text}, actor=by)


@verb(Run, "answer", shell=Shell("answer the question that a run has asked", "the question of run {id} is answered"))
def answer_run(run: Run, *, by: Actor, text: Annotated[str, _ANSWER]) -> None:
    """Answer the one open question about a run's work. Raises NotFound without one, Conflict for several."""
    asked = list(questions.unanswered([run.bead_id]))
    if not asked:
        raise NotFound(f"run {run.pk} has asked nothing that is open")
    if len(asked) > 1:
        names = ", ".join(one.pk for one in asked)
        raise Conflict(f"run {run.pk} has asked {len(asked)} questions: answer one of {names} (escalations answer)")
    answer(asked[0], by=by, text=text)


@verb(
    Fact,
    "release",
    offer=Offer(
        "Release from quarantine",
        "The next tick tries it again. Mend the cause first: its error stands below.",
        lambda fact: fact.quarantined_at is not None,
    ),
)
def release_fact(fact: Fact, *, by: Actor, reason: str = "") -> None:
    """Let the next tick try a quarantined fact again."""
    if fact.quarantined_at is None:
        raise Conflict(f"fact {fact.pk} is not in quarantine")
    with transaction.atomic():
        inbox.release(fact)
        inbox.record(fact.town, "fact.release", str(fact.pk), {"reason": reason}, actor=by)


def _replayable(fact: Fact) -> bool:
    known = facts.KINDS.get(fact.kind)
    return known is not None and known.replayable


@verb(
    Fact,
    "replay",
    offer=Offer(
        "Replay",
        "The same observation is recorded once more, in your name.",
        lambda fact: fact.processed_at is not None and _replayable(fact),
    ),
)
def replay_fact(fact: Fact, *, by: Actor, reason: str = "") -> None:
    """Record an observation again. A person's decision is not replayed: whoever wants it again decides again."""
    if fact.processed_at is None:
        raise Conflict(f"fact {fact.pk} was not drained yet: release it if it is in quarantine")
    if not _replayable(fact):
        raise Conflict(f"fact {fact.pk} is a {fact.kind}, a decision: take the decision again instead")
    inbox.replay(fact, by, reason)


@verb(
    Effect,
    "run-again",
    offer=Offer(
        "Run a failed effect again", when=lambda effect: effect.state == EffectState.FAILED, name="run_effect_again"
    ),
)
def run_effect_again(effect: Effect, *, by: Actor, reason: str = "") -> None:
    """Run an effect once more that was given up."""
    if effect.state != EffectState.FAILED:
        raise Conflict(f"effect {effect.pk} is {effect.state}: only a failed one is run again")
    with transaction.atomic():
        outbox.again(effect, timezone.now())
        inbox.record(effect.town, "effect.again", str(effect.pk), {"reason": reason}, actor=by)
