"""What people say on a pull request, carried out by the very decisions that our own pages make.

Whose words count, and of which head, `refinery.core.rules.pulls` has told from what the host answered; who somebody is
here, `[pr] people` says. An account that is nobody's here acts as `github:<login>`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.contrib.auth import get_user_model

from beads import config as configs
from beads.actors import Actor
from beads.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from beads.models import Rig
from refinery.core import effects, hosting, pullviews
from refinery.core.entryviews import HOST, PERSON_THERE
from refinery.core.pullviews import Comment, Opinion, Pull, PullState, Review
from refinery.core.rules import commands
from refinery.core.rules.pullreports import source_of
from refinery.core.rules.pulls import has_made
from refinery.core.states import EntryState
from refinery.decisions import merge_queue, reviews
from refinery.executor.pulls import asked
from refinery.executor.registry import Result, does
from refinery.hosts.base import Host, HostUnknown
from refinery.models import HostedPull, ReviewEntry

_SAID_NO = (Conflict, Forbidden, Invalid, NotFound, Refused)


def actor(rig: Rig, login: str) -> Actor:
    """Who an account of the host is: a person of ours has the mail address that their commits may bear. Logins are the
    same whatever their case."""
    people = configs.usable(rig.town.config, rig.config)[0].pr.people
    known = {there.lower(): here for there, here in people.items()}.get(login.lower())
    if known is None:
        return Actor(HOST, login)
    mail = get_user_model().objects.filter(username=known).values_list("email", flat=True).first()
    return Actor(PERSON_THERE, known, mail=mail or "")


@does(effects.HearPull)
def hear(work: effects.HearPull) -> Result | None:
    """Carry out a review or a command, once; what was refused is answered there."""
    row = HostedPull.objects.select_related("rig__town").get(pk=work.pull)
    entry = ReviewEntry.objects.select_related("bead", "rig__town", "source").filter(pk=row.entry_id).first()
    pull = pullviews.load(row.state)
    told: dict[str, Any] = {"what": work.what, "value": work.value, "answer": "", "entry": ""}

    def _heard() -> Result:
        return "pull.heard", str(row.pk), told

    if pull is None:
        return None
    if work.what == "c":
        said = next((c for c in pull.commands if str(c.id) == work.value), None)
        if said is not None:
            told["answer"], told["entry"] = _command(_There(row.rig, row.number, pull, entry), said)
        return _heard()
    review = next((r for r in pull.reviews if f"r{r.id}" == work.what and r.opinion == work.value), None)
    if review is None or entry is None:
        return _heard()

    def _take(host: Host) -> Result:
        told["answer"] = _review(host, entry, row.number, review)
        return _heard()

    return asked(row.rig, _take, writes=False)


def _review(host: Host, entry: ReviewEntry, number: int, review: Review) -> str:
    """A review as a verdict here; returns why it is none, if so."""
    by = actor(entry.rig, review.by)
    try:
        if review.opinion == Opinion.APPROVE:
            reviews.approve(entry, by=by, head=review.commit, merge_now=False)
        elif review.opinion == Opinion.DISMISSED:
            reviews.withdraw(entry, by=by, head=review.commit)
        else:
            body, remarks = host.words(number, review.id)
            items = [{"file": r.file, "line": r.line, "problem": r.body, "by": str(by)} for r in remarks if r.body]
            if review.opinion == Opinion.REQUEST_CHANGES:
                reviews.request_changes(entry, by=by, body=body, items=items, head=review.commit)
            elif body or items:
                lines = [f"{i['file']}:{i['line']}: {i['problem']}" for i in items]
                key = f"pull:note:{entry.pk}:{review.id}"
                reviews.note_once(entry, by=by, text="\n".join([body, *lines]).strip()[:4000], key=key)
    except HostUnknown as error:
        if error.kind != "gone":
            raise
        return error.message
    except _SAID_NO as error:
        return f"The review of {review.by} does not count: {error.message}"
    return ""


class _There:
    """A pull request, and the entry that it has become, if it has."""

    def __init__(self, rig: Rig, number: int, pull: Pull, entry: ReviewEntry | None) -> None:
        self.rig, self.number, self.pull, self.entry = rig, number, pull, entry

    @property
    def active(self) -> ReviewEntry:
        """Its entry, which still wants to land."""
        if self.entry is None:
            raise Conflict(f"it is not in the queue: {commands.WORD} queue puts it there")
        return self.entry


def _command(there: _There, said: Comment) -> tuple[str, str]:
    """What came of a command, in one sentence, and the entry that it has made."""
    asks = commands.parse(said.body)
    if not said.right.writes:
        return f"{said.by} may not write to this repository: nothing was done", ""
    if asks.wrong:
        return f"{said.by}: {asks.wrong}", ""
    if asks.verb in ("land", "queue") and not there.pull.whole:
        return f"{said.by}, {asks.verb}: {pullviews.TOO_MUCH}", ""
    by = actor(there.rig, said.by)
    try:
        return _DO[asks.verb](there, by, replace(asks, by=said.by))
    except _SAID_NO as error:
        return f"{said.by}, {asks.verb}: {error.message}", ""


def _queue(there: _There, by: Actor, asks: commands.Command) -> tuple[str, str]:
    """Put it into the queue. Who names the commit, which a comment does not do by itself, approves it as well: what was
    pushed after the comment was written, nobody has seen."""
    entry, pull = there.entry, there.pull
    if asks.sha and not pull.head.startswith(asks.sha):
        raise Conflict(f"its head is {pull.head[:12]} now, not {asks.sha[:12]}")
    if entry is None or entry.state == EntryState.FAILED:
        if pull.state != PullState.OPEN:
            raise Conflict(f"it is {pull.state}")
        if pull.draft:
            raise Conflict("it is a draft: mark it ready for review first")
        config = configs.usable(there.rig.town.config, there.rig.config)[0]
        repository = hosting.repository(config, there.rig.remote_url)
        author = actor(there.rig, pull.author)
        wanted = merge_queue.Submission(
            source_of(pull, repository), target=pull.base, title=pull.title, author=str(author), head=pull.head
        )
        entry = merge_queue.submit(there.rig, wanted, by=by)[0]
    if asks.verb == "queue":
        return f"queued by {by.name}", entry.pk
    if not asks.sha:
        more = f"where it has to be approved, `{commands.WORD} land {pull.head}` or a review does that"
        return f"queued by {by.name}; {more}", entry.pk
    own = f"queued by {by.name}, whose own change it is: somebody else has to approve it where that is needed"
    try:
        if not pull.authors_known:
            more = "its host does not know who wrote all of its commits: approve it on Gastown's page"
            return f"queued by {by.name}; {more}", entry.pk
        if has_made(asks.by, pull):
            return own, entry.pk
        if not reviews.approve(entry, by=by, head=pull.head):
            return f"{by.name} has said so already", entry.pk
    except Forbidden:
        return own, entry.pk
    return f"to be landed, by {by.name}", entry.pk


def _priority(there: _There, by: Actor, asks: commands.Command) -> tuple[str, str]:
    merge_queue.promote(there.active, by=by, priority=asks.number)
    return f"its priority is {asks.number}, by {by.name}", ""


def _retry(there: _There, by: Actor, asks: commands.Command) -> tuple[str, str]:
    merge_queue.retry_entry(there.active, by=by, reason="asked for on its pull request")
    return f"tried again, by {by.name}", ""


def _cancel(there: _There, by: Actor, asks: commands.Command) -> tuple[str, str]:
    merge_queue.reject(there.active, by=by, reason=f"cancelled on its pull request by {by.name}")
    return f"cancelled by {by.name}", ""


def _why(there: _There, by: Actor, asks: commands.Command) -> tuple[str, str]:
    if there.entry is None:
        return f"{by.name} asked why: it is not in the queue", ""
    return f"{by.name} asked why: as said above", ""


_DO: dict[str, Callable[[_There, Actor, commands.Command], tuple[str, str]]] = {
    "land": _queue,
    "queue": _queue,
    "priority": _priority,
    "retry": _retry,
    "cancel": _cancel,
    "why": _why,
}
