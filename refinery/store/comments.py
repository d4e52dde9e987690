"""The only writer of ReviewComment: people's remarks on lines, never changed, only resolved or opened again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from beads import inbox, ledger, prune
from beads.models import Bead
from refinery.models import ReviewComment, ReviewEntry

MAX_BODY = 16 * 1024
MAX_COMMENTS = 1000


def post(
    entry: ReviewEntry, *, head: str, file: str, side: str, line: int, quote: str, body: str, by: str
) -> tuple[ReviewComment, bool]:
    """Write a remark on a line of `head`; returns it and whether it is new: the same remark again is the same row."""
    parts = (entry.pk, head, file, side, str(line), by, body)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    with transaction.atomic():
        comment, new = ReviewComment.objects.get_or_create(
            digest=digest,
            defaults={
                "entry": entry,
                "head_sha": head,
                "file": file,
                "side": side,
                "line": line,
                "quote": quote[:300],
                "body": body,
                "by": by[:150],
            },
        )
        if new:
            ledger.note(entry.bead, "commented", by, f"{file}:{line}: {body}"[:2000], head=head)
            inbox.wake(entry.rig.town)
    return comment, new


def set_resolved(comment: ReviewComment, by: str, resolved: bool) -> bool:
    """Say that a remark is dealt with, or that it is not; False when that was said before."""
    now = timezone.now() if resolved else None
    with transaction.atomic():
        rows = ReviewComment.objects.filter(pk=comment.pk, resolved_at__isnull=resolved)
        if not rows.update(resolved_at=now, resolved_by=by[:150] if resolved else ""):
            return False
        kind = "comment_resolved" if resolved else "comment_reopened"
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
    where = f"on the removed line `{row.quote}`: " if row.side == "old" else ""
    told = {"file": row.file, "line": row.line, "problem": f"{where}{row.body}", "by": row.by}
    return told | ({"quote": row.quote} if row.quote else {})


def forget(entries: Sequence[str]) -> int:
    """Remove the remarks on these entries: they have been archived."""
    return prune.delete(ReviewComment.objects.filter(entry__any=entries))
