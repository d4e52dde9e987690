"""What people decide about convoys."""

from __future__ import annotations

from beads import ledger
from beads.errors import Conflict, LostRace
from beads.lifecycle import BeadStatus
from refinery.facts import subjects
from refinery.facts.beads import retried, retry_bead
from refinery.facts.payloads import Reason
from refinery.facts.registry import Taken, fact
from refinery.store import entries


@fact("convoy.start", says=Reason)
def start(it: Taken[Reason]) -> None:
    """A person, or a mayor, starts a staged convoy."""
    convoy = subjects.convoy(it)
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    try:
        ledger.start_convoy(convoy, it.now, actor=it.actor)
    except LostRace:
        return
    if it.said.reason:
        ledger.note(convoy.bead, "started", it.actor, it.said.reason)


@fact("convoy.close", says=Reason)
def close(it: Taken[Reason]) -> None:
    """A person ends it before its time."""
    convoy = subjects.convoy(it)
    ledger.request_close_convoy(convoy, it.now)
    ledger.note(convoy.bead, "close_requested", it.actor, it.said.reason)


@fact("convoy.retry", says=Reason)
def retry(it: Taken[Reason]) -> None:
    """Retry a convoy's failed beads and, when it failed itself, its landing."""
    convoy, said = subjects.convoy(it), it.said
    for bead in convoy.beads.filter(status=BeadStatus.FAILED):
        retry_bead(bead, it.now, it.actor, said.reason)
    if convoy.bead.status == BeadStatus.FAILED:
        why = retried(said.reason)
        ledger.move(
            convoy.bead, BeadStatus.FAILED, ledger.Transition(BeadStatus.OPEN, reason=why), actor=it.actor, now=it.now
        )
        ledger.clear_close_request(convoy)
        ledger.settle_escalations([convoy.pk], it.actor, it.now, "retried")
        for branch in convoy.branches.all():
            ledger.forget_branch(branch)
        entries.forget_landings(convoy)
