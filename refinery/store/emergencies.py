"""The emergency lane: what a person's *land now* does. At the door, under the town's lock, so that no tick can come
between the answer and what it says.

The race that this ends: *goes to the front without its gates* was answered while the wish was still a fact in the
inbox; the tick that took in the gate's failure first sent the change back or closed it, and the answer was wrong.
"""

from __future__ import annotations

import datetime as dt

from beads import ledger
from beads.errors import Conflict
from beads.lifecycle import BeadStatus, Purpose, is_final
from beads.models import Bead, Fact
from refinery.core.states import EntryState
from refinery.models import ReviewEntry
from refinery.store import entries, verdicts


def carry_out(entry: ReviewEntry, who: str, reason: str, now: dt.datetime, *, head: str, skip_gates: bool) -> None:
    """To the front of the train; with `skip_gates` without gates, which holds for exactly `head`.

    The caller holds the town's lock. Raises Conflict when the entry has left the queue, or waits for something that
    no waiver lifts.
    """
    if entry.state != EntryState.ACTIVE:
        raise Conflict(f"{entry.pk} is {entry.state} already ({entry.reason_text or entry.reason})")
    if skip_gates:
        _lift_rework(entry, who, reason, now)
        verdicts.waive_gates(entry, head, who, reason)
    entries.land_now(entry, now)
    ledger.settle_escalations([entry.pk], who, now, "sent to the front")
    ledger.note(entry.bead, "land_now", who, reason, head=head, skip_gates=skip_gates)


def check_head(entry: ReviewEntry) -> None:
    """Raise Conflict when a newer head has been seen that no tick has taken in: a waiver would be of the old one."""
    seen = {entry.observed_head}
    facts = Fact.objects.filter(town_id=entry.bead.town_id, kind="entry.head_seen", subject=entry.pk)
    told = facts.filter(processed_at=None, quarantined_at=None).values_list("payload", flat=True)
    seen |= {str(payload.get("head", "")) for payload in told}
    newer = sorted(seen - {"", entry.head_sha})
    if newer:
        raise Conflict(
            f"the head moved: {entry.branch} is at {newer[0][:12]}, not {entry.head_sha[:12]}; look at it and say it "
            "again",
            details={"head": newer[0]},
        )


def _lift_rework(entry: ReviewEntry, who: str, reason: str, now: dt.datetime) -> None:
    """Rework that was opened only because this head's gates failed is needed no more; anything else stays in the way,
    and is said."""
    waiting = Bead.objects.filter(blocks__bead=entry.bead_id, type="issue").exclude(status=BeadStatus.CLOSED)
    lifted = []
    for task in waiting:
        if task.purpose == Purpose.WORK or task.parent_id != entry.bead_id:
            continue  # the order between people's beads is another matter: the page says it
        if task.purpose != Purpose.REWORK or "gate_results" not in task.context:
            what = "the wished changes are made"
            if task.purpose == Purpose.CONFLICT:
                what = "conflicts are resolved"
            raise Conflict(
                f"{entry.pk} waits until its {what} by {task.pk} ({task.status}): cancel that bead first, or wait",
                details={"blocked_by": task.pk},
            )
        lifted.append(task)
    for task in lifted:
        ledger.unblock(entry.bead, task, who, f"its gates are skipped: {reason}")
        if not is_final(task.status):
            ledger.request_cancel(task, now)
            ledger.note(task, "cancel_requested", who, f"the gates of {entry.pk} are skipped: {reason}")
