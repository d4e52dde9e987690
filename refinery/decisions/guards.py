"""What several decisions need: an active entry, the head that was seen, a remote that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agents.runtime.gitcmd import GitFailed
from beads import inbox
from beads.errors import Conflict, Refused
from beads.models import Rig
from refinery.core.states import EntryKind, EntryState
from refinery.git.mirror import repo_of
from refinery.models import ReviewEntry

REMOTE_PATIENCE = 10.0  # seconds


def must_be_active(entry: ReviewEntry) -> None:
    """Raises Conflict for an entry that has ended, and for a check, which is no change."""
    if entry.kind == EntryKind.CHECK:
        raise Conflict(f"{entry.pk} is no change, but a check of {entry.target} itself: it can only be checked again")
    if entry.state != EntryState.ACTIVE:
        raise Conflict(f"{entry.pk} {entry.ended}")


def must_be_head(entry: ReviewEntry, head: str | None) -> None:
    """Raises Conflict when `head`, which a person saw (7 or more hex digits), is not the entry's any more."""
    if head is not None and (len(head) < 7 or not entry.head_sha.startswith(head)):
        raise Conflict(
            f"the head moved: it is {entry.head_sha[:12]}, not {head[:12]}", details={"head": entry.head_sha}
        )


def must_not_have_moved(entry: ReviewEntry) -> None:
    """Look at the remote: a push that nobody told us of makes a new head before anybody approves the old one.

    A remote that cannot be asked changes nothing: the approval is of the pinned head, and landing asks again.
    """
    if not entry.on_remote:
        return
    with suppress(GitFailed):
        found = repo_of(entry.rig).ls_remote(entry.rig.remote_url, entry.branch, timeout=REMOTE_PATIENCE)
        if found is not None and found != entry.head_sha:
            inbox.record(entry.rig.town, "entry.head_seen", entry.pk, {"head": found}, actor="gastown")
            raise Conflict(
                f"the head moved: {entry.branch} is at {found[:12]}, not {entry.head_sha[:12]}",
                details={"head": found},
            )


@contextmanager
def reading_remote(rig: Rig) -> Iterator[None]:
    """The body asks a rig's remote. Raises Refused, with git's own reason, when it cannot be read."""
    try:
        yield
    except GitFailed as error:
        message = f"the remote of rig {rig.slug} cannot be read: {error.message}"
        raise Refused(message, code=error.kind, details={"field": "remote_url"}) from error
