"""What people decide about a change in review: approval, wishes for changes, remarks on lines."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any

from django.db import transaction

from agents.runtime.gitcmd import GitFailed
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from beads.models import TownRole
from refinery.core.approvals import is_own
from refinery.core.states import EntryKind, EntryState, Judgement
from refinery.decisions.forms import Items
from refinery.decisions.guards import must_be_active, must_be_head, must_not_have_moved
from refinery.decisions.verbs import Hint, Offer, Page, Shell, verb
from refinery.git import ranges
from refinery.models import ReviewComment, ReviewEntry
from refinery.store import comments

Head = Annotated[str | None, Hint(metavar="SHA")]  # that the person saw: 7 or more hex digits
_REVIEWER = TownRole.REVIEWER
_APPROVED = Page(again="You have approved this head already.")


@dataclass(frozen=True, slots=True)
class Spot:
    """A line of a diff: of the file as it is (`new`), or as it was (`old`)."""

    file: Annotated[str, Hint(exact=True)]
    line: int
    side: str = "new"


@verb(ReviewEntry, "approve", role=_REVIEWER, page=_APPROVED)
def approve_only(entry: ReviewEntry, *, by: Actor, head: Head = None) -> bool:
    """A person's approval that leaves it to others when it is merged; see `approve`."""
    return approve(entry, by=by, head=head, merge_now=False)


@verb(
    ReviewEntry,
    "merge",
    role=_REVIEWER,
    shell=Shell("a person's approval of exactly this head", "{id} is approved", word="approve"),
    page=_APPROVED,
)
def approve_and_merge(entry: ReviewEntry, *, by: Actor, head: Head = None) -> bool:
    """A person's approval, by which it is merged as soon as it may be; see `approve`."""
    return approve(entry, by=by, head=head)


def approve(entry: ReviewEntry, *, by: Actor, head: str | None = None, merge_now: bool = True) -> bool:
    """A person's approval, of exactly the head they saw. False, recording nothing, when they have given it already.

    Raises Conflict when the head moved (here, or on the remote as far as it can be asked) and Forbidden when `by`
    wrote the change: as its author by name, or with their mail address as the author of one of its commits.
    """
    given = entry.verdicts.filter(by=str(by), head_sha=entry.head_sha).last()
    again = given is not None and given.decision == Judgement.APPROVE and (given.merge_now or not merge_now)
    if again and entry.state == EntryState.MERGED:
        return False
    must_be_active(entry)
    must_be_head(entry, head)
    if is_own(entry.author, str(by)) or (by.mail and by.mail.lower() in _author_mails(entry)):
        raise Forbidden(f"{entry.pk} is your own change: somebody else has to approve it")
    if again and not entry.held:
        return False
    must_not_have_moved(entry)
    return _record_verdict(entry, by, {"decision": "approve", "merge_now": merge_now})


def withdraw(entry: ReviewEntry, *, by: Actor, head: str) -> bool:
    """What a person has said of exactly this head counts no more: their review was dismissed on the host. False where
    they have said nothing, or it counts no more already."""
    must_be_active(entry)
    given = entry.verdicts.filter(by=str(by), head_sha=head).last()
    if given is None or given.decision == Judgement.WITHDRAW:
        return False
    must_be_head(entry, head)
    return _record_verdict(entry, by, {"decision": "withdraw"})


@verb(
    ReviewEntry,
    "request-changes",
    role=_REVIEWER,
    shell=Shell("send it back", "{id} is sent back"),
    page=Page(again="You have sent it back already."),
)
def request_changes(
    entry: ReviewEntry,
    *,
    by: Actor,
    body: Annotated[str, Hint(longest=64 * 1024, insist=True)] = "",
    items: Annotated[Items, Hint(longest=64 * 1024, shell=False)] = (),
    head: Head = None,
) -> bool:
    """A person sends the change back, with `items` and the head's unresolved remarks. False when said before."""
    if entry.state == EntryState.FAILED:
        raise Conflict(f"{entry.pk} is failed: to bring it back with your words, mq retry {entry.pk} --reason TEXT")
    must_be_active(entry)
    if entry.landings.pushing().exists():
        raise Conflict(f"{entry.pk} is being pushed right now: it is too late to change it")
    must_be_head(entry, head)
    told = [*(dict(i) for i in items), *comments.items(entry)]
    feedback = ledger.check_text("body", body, 64 * 1024, required=not told)
    feedback = feedback or f"{len(told)} {'remark' if len(told) == 1 else 'remarks'} on lines"
    last = entry.verdicts.filter(by=str(by), head_sha=entry.head_sha).last()
    said = last is not None and (last.decision, last.feedback, last.items) == ("request_changes", feedback, told)
    if said and not entry.held:
        return False
    return _record_verdict(entry, by, {"decision": "request_changes", "feedback": feedback, "items": told})


@verb(
    ReviewEntry,
    "note",
    role=_REVIEWER,
    offer=Offer(
        "Leave a note",
        "It changes nothing: whoever works on this next has it in their prompt.",
        lambda entry: entry.kind != EntryKind.CHECK and entry.state != EntryState.MERGED,
        console=False,
        page=True,
    ),
    shell=Shell("a note for whoever works on it next; nothing else changes", "{id} has your note"),
    page=Page("Your note is kept for whoever works on it next.", "You have just said so."),
)
def note(entry: ReviewEntry, *, by: Actor, text: Annotated[str, Hint(lines=3, positional=True)]) -> bool:
    """A person's note on a change, in whatever state that is. False while the very same waits to be taken in."""
    if entry.kind == EntryKind.CHECK or entry.state == EntryState.MERGED:
        must_be_active(entry)
    with transaction.atomic():
        ledger.lock_town(entry.rig.town)
        return inbox.record_once(entry.rig.town, "entry.note", entry.pk, {"reason": text}, actor=by)


def _author_mails(entry: ReviewEntry) -> set[str]:
    """The authors of the change's commits. Raises Unavailable when git cannot tell: unknown is nobody's approval."""
    try:
        return {commit.mail.lower() for commit in ranges.commits(entry, limit=10_000)}
    except GitFailed as error:
        raise Unavailable(f"who wrote this change cannot be read, so it cannot be approved: {error.message}") from error


def _record_verdict(entry: ReviewEntry, by: Actor, told: dict[str, Any]) -> bool:
    """Record it once: the same decision by the same person, before anything came of the first, is a double click."""
    count = entry.verdicts.filter(by=str(by)).count()
    said = json.dumps([entry.pk, entry.head_sha, str(by), count, told], sort_keys=True)
    key = f"verdict:{hashlib.sha256(said.encode()).hexdigest()}"
    told = {"head": entry.head_sha, **told}
    return inbox.record(entry.rig.town, "entry.verdict", entry.pk, told, actor=by, dedupe_key=key)


@verb(
    ReviewEntry,
    "comment",
    role=_REVIEWER,
    page=Page(done="Your remark is noted. It goes out when changes are requested."),
)
def comment(
    entry: ReviewEntry,
    *,
    by: Actor,
    head: str,
    body: Annotated[str, Hint(longest=comments.MAX_BODY)],
    spot: Spot,
) -> tuple[ReviewComment, bool]:
    """A remark on a line of the diff that a person saw; the same one twice is one. Raises Invalid naming the field."""
    must_be_active(entry)
    must_be_head(entry, head)
    body = ledger.check_text("body", body, comments.MAX_BODY, required=True)
    if entry.comments.filter(head_sha=entry.head_sha).count() >= comments.MAX_COMMENTS:
        raise Invalid(f"this head has {comments.MAX_COMMENTS} comments already", field="body")
    quote = ranges.line_text(entry, spot.file, spot.side, spot.line)
    remark = comments.Remark(spot.file, spot.side, spot.line, quote, body)
    return comments.post(entry, remark, head=entry.head_sha, by=str(by))


@verb(ReviewEntry, "resolve", role=_REVIEWER, page=Page())
def resolve_comment(entry: ReviewEntry, *, by: Actor, comment: int) -> bool:
    """Say that a remark is dealt with; False when it was said before."""
    return comments.set_resolved(_comment(entry, comment), str(by), True)


@verb(ReviewEntry, "reopen", role=_REVIEWER, page=Page())
def reopen_comment(entry: ReviewEntry, *, by: Actor, comment: int) -> bool:
    """Open a remark again that was dealt with; False when it is open."""
    return comments.set_resolved(_comment(entry, comment), str(by), False)


def _comment(entry: ReviewEntry, key: int) -> ReviewComment:
    found = entry.comments.select_related("entry__bead", "entry__rig__town").filter(pk=key).first()
    if found is None:
        raise NotFound(f"{entry.pk} has no comment {key}")
    return found
