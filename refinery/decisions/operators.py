"""What operators decide about the machine itself: runs, escalations, facts, effects."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from agents.models import Run, RunState
from beads import inbox, outbox
from beads.errors import Conflict
from beads.models import Effect, Escalation, Fact


def stop_run(run: Run, reason: str, who: str) -> None:
    """Ask a live run to stop."""
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.stop", run.pk, {"reason": reason or f"stopped by {who}"}, actor=who)


def fence_run(run: Run, who: str, reason: str = "") -> None:
    """Take a live run's token away: nothing it says counts any more, and its work is given to another run.

    Its process learns so at its next heartbeat and stops; until then two may be at work, on branches of their own.
    Prefer `stop_run`, or wait for the lease.
    """
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.fence", run.pk, {"reason": reason}, actor=who)


def acknowledge(escalation: Escalation, who: str, reason: str = "") -> None:
    """A person has seen it."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.ack", escalation.pk, {"reason": reason}, actor=who)


def close_escalation(escalation: Escalation, who: str, reason: str = "") -> None:
    """It needs nobody any more."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.close", escalation.pk, {"reason": reason}, actor=who)


REPLAYABLE = frozenset(
    {
        "run.exited", "run.published", "run.done", "run.request_changes", "escalation.raised", "candidate.built",
        "landing.concluded", "branch.seen", "lane.foreseen", "effect.failed", "effect.struggling",
    }
)  # fmt: skip


def replay_fact(fact: Fact, who: str, reason: str = "") -> None:
    """Record an observation again. A person's decision is not replayed: whoever wants it again decides again."""
    if fact.processed_at is None:
        raise Conflict(f"fact {fact.pk} was not drained yet: release it if it is in quarantine")
    if fact.kind not in REPLAYABLE:
        raise Conflict(f"fact {fact.pk} is a {fact.kind}, a decision: take the decision again instead")
    inbox.replay(fact, who, reason)


def release_fact(fact: Fact, who: str, reason: str = "") -> None:
    """Let the next tick try a quarantined fact again."""
    if fact.quarantined_at is None:
        raise Conflict(f"fact {fact.pk} is not in quarantine")
    with transaction.atomic():
        inbox.release(fact)
        inbox.record(fact.town, "fact.release", str(fact.pk), {"reason": reason}, actor=who)


def run_effect_again(effect: Effect, who: str, reason: str = "") -> None:
    """Run an effect once more that was given up."""
    if effect.state != "failed":
        raise Conflict(f"effect {effect.pk} is {effect.state}: only a failed one is run again")
    with transaction.atomic():
        outbox.again(effect, timezone.now())
        inbox.record(effect.town, "effect.again", str(effect.pk), {"reason": reason}, actor=who)
