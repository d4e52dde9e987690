"""What a host has said of pull requests, and what was done there. A hook is a hint: it makes us look, and no more."""

from __future__ import annotations

from beads.errors import NotFound
from beads.models import Rig
from refinery.core import pullviews
from refinery.core.states import EntryState, LandingState
from refinery.facts import subjects
from refinery.facts.payloads import (
    Hint,
    HostPolled,
    HostUnknownTold,
    PullDone,
    PullHeard,
    PullOffered,
    PullRead,
    PullReported,
    PullTold,
)
from refinery.facts.registry import Taken, fact
from refinery.models import ReviewEntry
from refinery.store import entries, pulls


@fact("host.hint", says=Hint, replayable=True)
def hint(it: Taken[Hint]) -> None:
    """A hook was received."""
    if it.said.number:
        pulls.heard_of(subjects.rig(it), it.said.number, it.fact.recorded_at, calls=it.said.calls)


@fact("host.polled", says=HostPolled, replayable=True)
def polled(it: Taken[HostPolled]) -> None:
    """A look at what has changed on the host."""
    rig, said = subjects.rig(it), it.said
    pulls.polled(rig, said.at, said.etags)
    pulls.seen(rig, {int(number): changed for number, changed in said.pulls.items()}, said.at)
    for number in said.calls:
        pulls.heard_of(rig, number, said.at, calls=True)


@fact("host.unknown", says=HostUnknownTold)
def unknown(it: Taken[HostUnknownTold]) -> None:
    """The host did not say."""
    pulls.unknown(subjects.rig(it), it.said.kind, it.said.error, it.said.wait, it.now)


@fact("pull.read", says=PullRead, replayable=True)
def read(it: Taken[PullRead]) -> None:
    """What a pull request is. One that was closed there, unmerged, or merged as something else than what was reviewed
    here, withdraws its entry (but no push)."""
    rig, number = _numbered(it)
    row = pulls.read(rig, number, it.said.at, it.said.state)
    pull = pullviews.load(it.said.state)
    if row is None or row.entry is None or pull is None or row.entry.state != EntryState.ACTIVE:
        return
    if pull.state == pullviews.PullState.CLOSED:
        entries.request_reject(row.entry, f"pull request #{number} was closed on its host")
    elif pull.state == pullviews.PullState.MERGED:
        if not _is_merged_here(row.entry, pull):
            why = f"pull request #{number} was merged on its host at {pull.head[:12]}, not as it was reviewed"
            entries.request_reject(row.entry, why)
    elif not pull.whole:
        entries.request_reject(row.entry, f"pull request #{number}: {pullviews.TOO_MUCH}")
    elif pull.base != row.entry.target:
        entries.request_reject(row.entry, f"pull request #{number} is for {pull.base[:100]} now: ask for it again")


@fact("pull.offered", says=PullOffered, replayable=True)
def offered(it: Taken[PullOffered]) -> None:
    """An entry has its pull request."""
    entry = subjects.entry(it)
    pulls.offered(entry.rig, entry.pk, it.said.number, it.said.head, it.now)
    if it.said.branch:
        entries.on_branch(entry.pk, it.said.head, it.said.branch)
    if it.said.answer:
        pulls.answered(entry.rig, it.said.number, it.said.answer)


@fact("pull.heard", says=PullHeard)
def heard(it: Taken[PullHeard]) -> None:
    """What somebody said there was carried out, or refused."""
    pulls.heard(subjects.pull(it), it.said.what, it.said.value, it.said.answer, it.said.entry)


@fact("pull.pushed", says=PullDone, replayable=True)
def pushed(it: Taken[PullDone]) -> None:
    """Its branch is at the entry's head: that is the entry's branch from now on."""
    row = subjects.pull(it)
    pulls.pushed(row, it.said.head, it.now)
    pull = pullviews.load(row.state)
    if row.entry_id is not None and pull is not None:
        entries.on_branch(row.entry_id, it.said.head, pull.branch)


@fact("pull.told", says=PullTold, replayable=True)
def told(it: Taken[PullTold]) -> None:
    """Our comment is there."""
    pulls.told(subjects.pull(it), it.said.digest, it.said.comment, it.now)


@fact("pull.reported", says=PullReported, replayable=True)
def reported(it: Taken[PullReported]) -> None:
    """Our statuses are there."""
    pulls.reported(subjects.pull(it), it.said.said, it.now, ready=it.said.ready)


@fact("pull.ended", says=PullDone, replayable=True)
def ended(it: Taken[PullDone]) -> None:
    """It is over."""
    pulls.ended(subjects.pull(it), it.now)


def _is_merged_here(entry: ReviewEntry, pull: pullviews.Pull) -> bool:
    """True for the entry's head, which git shows on the target (the rules close it as merged), and while a landing of
    ours is under way: git decides."""
    if pull.on_target and pull.head == entry.head_sha:
        return True
    ours = (LandingState.INTENT, LandingState.PUSHING, LandingState.LANDED)
    return entry.landings.filter(state__in=ours).exists()


def _numbered(it: Taken[PullRead]) -> tuple[Rig, int]:
    """`RIG#NUMBER`"""
    key, _, number = it.subject.partition("#")
    rig = Rig.objects.filter(pk=int(key), town=it.town).first() if key.isdigit() and number.isdigit() else None
    if rig is None:
        raise NotFound(f"no pull request {it.subject[:60]}")
    return rig, int(number)
