"""What people decide about a change in review: approval, wishes for changes, remarks on lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from agents.runtime.gitcmd import GitFailed
from beads import inbox, ledger
from beads.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from refinery.core.approvals import is_own
from refinery.decisions.guards import must_be_active, must_be_head, must_not_have_moved
from refinery.git import ranges
from refinery.models import ReviewComment, ReviewEntry
from refinery.store import comments


def approve(entry: ReviewEntry, who: str, *, head: str | None = None, merge_now: bool = True, mail: str = "") -> bool:
    """A person's approval, of exactly the head they saw. False, recording nothing, when they have given it already.

    Raises Conflict when the head moved (here, or on the remote as far as it can be asked) and Forbidden when `who`
    wrote the change: as its author by name, or with `mail` as the author of one of its commits.
    """
    given = entry.verdicts.filter(by=who, head_sha=entry.head_sha).last()
    again = given is not None and given.decision == "approve" and (given.merge_now or not merge_now)
    if again and entry.state == "merged":
        return False
    must_be_active(entry)
    must_be_head(entry, head)
    if is_own(entry.author, who) or (mail and mail.lower() in _author_mails(entry)):
        raise Forbidden(f"{entry.pk} is your own change: somebody else has to approve it")
    if again and not entry.held:
        return False
    must_not_have_moved(entry)
    return _record_verdict(entry, who, {"decision": "approve", "merge_now": merge_now})


def request_changes(
    entry: ReviewEntry, who: str, feedback: str, *, items: Sequence[Mapping[str, Any]] = (), head: str | None = None
) -> bool:
    """A person sends the change back, with `items` and the head's unresolved remarks. False when said before."""
    if entry.state == "failed":
        raise Conflict(f"{entry.pk} is failed: to bring it back with your words, mq retry {entry.pk} --reason TEXT")
    must_be_active(entry)
    if entry.landings.filter(state="pushing").exists():
        raise Conflict(f"{entry.pk} is being pushed right now: it is too late to change it")
    must_be_head(entry, head)
    told = [*(dict(i) for i in items), *comments.items(entry)]
    feedback = ledger.check_text("body", feedback, 64 * 1024, required=not told)
    feedback = feedback or f"{len(told)} {'remark' if len(told) == 1 else 'remarks'} on lines"
    last = entry.verdicts.filter(by=who, head_sha=entry.head_sha).last()
    said = last is not None and (last.decision, last.feedback, last.items) == ("request_changes", feedback, told)
    if said and not entry.held:
        return False
    return _record_verdict(entry, who, {"decision": "request_changes", "feedback": feedback, "items": told})


def _author_mails(entry: ReviewEntry) -> set[str]:
    """The authors of the change's commits. Raises Unavailable when git cannot tell: unknown is nobody's approval."""
    try:
        return {commit.mail.lower() for commit in ranges.commits(entry, limit=10_000)}
    except GitFailed as error:
        raise Unavailable(f"who wrote this change cannot be read, so it cannot be approved: {error.message}") from error


def _record_verdict(entry: ReviewEntry, who: str, told: dict[str, Any]) -> bool:
    """Record it once: the same decision by the same person, before anything came of the first, is a double click."""
    count = entry.verdicts.filter(by=who).count()
    said = json.dumps([entry.pk, entry.head_sha, who, count, told], sort_keys=True)
    key = f"verdict:{hashlib.sha256(said.encode()).hexdigest()}"
    told = {"head": entry.head_sha, **told}
    return inbox.record(entry.rig.town, "entry.verdict", entry.pk, told, actor=who, dedupe_key=key)


def comment(
    entry: ReviewEntry, who: str, *, head: str, file: str, side: str, line: int, body: str
) -> tuple[ReviewComment, bool]:
    """A remark on a line of the diff that a person saw; the same one twice is one. Raises Invalid naming the field."""
    must_be_active(entry)
    must_be_head(entry, head)
    body = ledger.check_text("body", body, comments.MAX_BODY, required=True)
    if entry.comments.filter(head_sha=entry.head_sha).count() >= comments.MAX_COMMENTS:
        raise Invalid(f"this head has {comments.MAX_COMMENTS} comments already", field="body")
    quote = ranges.line_text(entry, file, side, line)
    return comments.post(entry, head=entry.head_sha, file=file, side=side, line=line, quote=quote, body=body, by=who)


def resolve_comment(entry: ReviewEntry, key: int, who: str, *, resolved: bool) -> bool:
    """Say that a remark is dealt with, or open it again; False when it stood so already."""
    found = entry.comments.select_related("entry__bead", "entry__rig__town").filter(pk=key).first()
    if found is None:
        raise NotFound(f"{entry.pk} has no comment {key}")
    return comments.set_resolved(found, who, resolved)
