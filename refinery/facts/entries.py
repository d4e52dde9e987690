"""What people decide about review entries, and what is seen of their branches."""

from __future__ import annotations

from beads import ledger
from refinery.core.states import Judgement
from refinery.facts import hearsay, subjects
from refinery.facts.payloads import HeadSeen, LandNow, Payload, Promoted, Reason, Verdict
from refinery.facts.registry import Taken, fact
from refinery.store import emergencies, entries, verdicts


@fact("entry.verdict", says=Verdict)
def verdict(it: Taken[Verdict]) -> None:
    """A person's verdict counts for the head they saw, whatever the head is now; who is changing it hears of it."""
    entry, said = subjects.entry(it), it.said
    review = verdicts.Review(
        head=said.head,
        decision=said.decision,
        by=it.actor,
        merge_now=said.merge_now,
        feedback=said.feedback,
        items=said.items,
    )
    verdicts.record(entry, review)
    if said.decision == Judgement.REQUEST_CHANGES:
        hearsay.tell_at_work(entry, it.actor, said.feedback, said.items, it.now)


@fact("entry.head_seen", says=HeadSeen)
def head_seen(it: Taken[HeadSeen]) -> None:
    """Its branch is at another commit."""
    entries.head_seen(subjects.entry(it).pk, it.said.head)


@fact("entry.reject", says=Reason)
def reject(it: Taken[Reason]) -> None:
    """A person does not want it."""
    entry = subjects.entry(it)
    entries.request_reject(entry, it.said.reason)
    hearsay.say(entry.bead, it.actor, "rejected", it.said.reason)


@fact("entry.retry", says=Reason)
def retry(it: Taken[Reason]) -> None:
    """A person wants it tried again."""
    entry = subjects.entry(it)
    entries.reopen(entry, it.now, it.actor)
    ledger.settle_escalations([it.subject], it.actor, it.now, "retried")
    ledger.note(entry.bead, "retried", it.actor, it.said.reason)
    hearsay.say(entry.bead, it.actor, "retried", it.said.reason)


@fact("entry.note", says=Reason)
def note(it: Taken[Reason]) -> None:
    """A person says something about it to whoever works on it next."""
    entry = subjects.entry(it)
    ledger.note(entry.bead, "noted", it.actor, it.said.reason)
    hearsay.say(entry.bead, it.actor, "noted", it.said.reason)


@fact("entry.requeue", says=Reason)
def requeue(it: Taken[Reason]) -> None:
    """A person takes it out of its train: it queues up again."""
    entry = subjects.entry(it)
    entries.requeue(entry, it.now)
    ledger.note(entry.bead, "requeued", it.actor, it.said.reason)


@fact("entry.promote", says=Promoted)
def promote(it: Taken[Promoted]) -> None:
    """A person gives it another priority."""
    entry = subjects.entry(it)
    entries.promote(entry, it.said.priority)
    ledger.note(entry.bead, "promoted", it.actor, it.said.reason, priority=it.said.priority)


@fact("entry.land_now", says=LandNow)
def land_now(it: Taken[LandNow]) -> None:
    """A person sends it to the front. It was carried out at the door, but for facts of before that was so."""
    said = it.said
    if not said.carried_out:
        entry = subjects.entry(it)
        emergencies.carry_out(entry, it.actor, said.reason, it.now, head=said.head, skip_gates=said.skip_gates)


@fact("gates.again", says=Payload)
def gates_again(it: Taken[Payload]) -> None:
    """A person does not believe its gates' results."""
    entries.gates_again(subjects.entry(it), it.now)
