"""The only writer of Verdict and Waiver: what reviewers and people have said about a head of an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beads import ledger, prune
from beads.models import Bead
from refinery.core.states import Judgement
from refinery.models import ReviewEntry, Verdict, Waiver
from refinery.store import entries


@dataclass(frozen=True)
class Review:
    """A review of `head`. `run`: the reviewer's run, None for a person; `merge_now`: the approval also lands it."""

    head: str
    decision: str
    by: str
    run: str | None = None
    merge_now: bool = False
    feedback: str = ""
    items: Sequence[Mapping[str, Any]] = ()


def record(entry: ReviewEntry, review: Review) -> bool:
    """Observation: a review; False when its run has given one before. A person's verdict also lifts a hold: an
    approval only while the entry has the reviewed head, a request for changes whichever head it has now."""
    if review.run is not None and Verdict.objects.filter(run_id=review.run).exists():
        return False
    Verdict.objects.create(
        entry=entry,
        head_sha=review.head,
        decision=review.decision,
        by=review.by[:150],
        run_id=review.run,
        merge_now=review.merge_now,
        feedback=review.feedback,
        items=[dict(i) for i in review.items],
    )
    if review.run is None and review.decision != Judgement.WITHDRAW:
        entries.let_go(entry.pk, review.head if review.decision == Judgement.APPROVE else None)
    ledger.note(entry.bead, f"verdict_{review.decision}", review.by, review.feedback[:2000], head=review.head)
    return True


def pass_on(verdicts: Sequence[int], task: Bead) -> None:
    """Observation: the agent that works on `task` is given what people asked for."""
    Verdict.objects.filter(pk__in=verdicts).update(task=task)


def waive_gates(entry: ReviewEntry, head: str, who: str, reason: str) -> None:
    """A person's decision that exactly this head lands without its gates."""
    Waiver.objects.get_or_create(entry=entry, head_sha=head, defaults={"by": who[:150], "reason": reason})


def forget(keys: Sequence[str]) -> int:
    """Remove what was said about these entries: they have been archived."""
    return sum(prune.delete(rows.filter(entry__any=keys)) for rows in (Verdict.objects, Waiver.objects))
