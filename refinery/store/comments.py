"""The only writer of ReviewComment: people's remarks on lines, never changed, only resolved or opened again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from beads import inbox, ledger, prune
from beads.models import Bead
from refinery.models import ReviewComment, ReviewEntry

MAX_BODY = 16 * 1024
MAX_COMMENTS = 1000


@dataclass(frozen=True)
class Remark:
    """What somebody says of one line of a diff. `side`: `old` or `new`, whose line numbers they are; `quote`: the
    line."""

    file: str
    side: str
    line: int
    quote: str
    body: str


def post(entry: ReviewEntry, remark: Remark, *, head: str, by: str) -> tuple[ReviewComment, bool]:
    """Write a remark on a line of `head`; returns it and whether it is new: the same remark again is the same row."""
    parts = (entry.pk, head, remark.file, remark.side, str(remark.line), by, remark.body)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    with transaction.atomic():
        comment, new = ReviewComment.objects.get_or_create(
            digest=digest,
            defaults={
                "entry": entry,
                "head_sha": head,
                "file": remark.file,
                "side": remark.side,
                "line": remark.line,
                "quote": remark.quote[:300],
                "body": remark.body,
                "by": by[:150],
            },
        )
        if new:
            text = f"{remark.file}:{remark.line}: {remark.body}"
            ledger.note(entry.bead, "commented", by, text[:2000], head=head)
            inbox.wake(entry.rig.town)
    return comment, new


def set_resolved(comment: ReviewComment, by: str, resolved: bool) -> bool:
    """Say that a remark is dealt with, or that it is not; False when that was said before."""
    if resolved:
        kind, to = "comment_resolved", {"resolved_at": timezone.now(), "resolved_by": by[:150]}
    else:
        kind, to = "comment_reopened", {"resolved_at": None, "resolved_by": ""}
    with transaction.atomic():
        if not ReviewComment.objects.filter(pk=comment.pk, resolved_at__isnull=resolved).update(**to):
            return False
        ledger.note(comment.entry.bead, kind, by, f"{comment.file}:{comment.line}", comment=comment.pk)
        inbox.wake(comment.entry.rig.town)
    return True


def items(entry: ReviewEntry) -> list[dict[str, Any]]:
    """The head's unresolved remarks as items of a request for changes: what the rework mail and its bead name."""
    rows = ReviewComment.objects.filter(entry=entry, head_sha=entry.head_sha, resolved_at=None)
    return [item(row) for row in rows[:MAX_COMMENTS]]


def pass_on(remarks: Sequence[int], task: Bead) -> None:
    """Observation: the agent that works on `task` is given these."""
    ReviewComment.objects.filter(pk__in=remarks).update(task=task)


def item(row: ReviewComment) -> dict[str, Any]:
    """One remark as an item of a request for changes."""
    told = {"file": row.file, "line": row.line, "problem": row.body, "by": row.by}
    if row.side == "old":
        told["problem"] = f"on the removed line `{row.quote}`: {row.body}"
    if row.quote:
        told["quote"] = row.quote
    return told


def forget(entries: Sequence[str]) -> int:
    """Remove the remarks on these entries: they have been archived."""
    return prune.delete(ReviewComment.objects.filter(entry__any=entries))
