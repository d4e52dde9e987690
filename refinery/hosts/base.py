"""What a host can be asked, and how it says that it cannot be. What counts of it is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from beads.errors import Disposition, GastownError
from refinery.core.pullviews import Pull, Remark

__all__ = ["Host", "HostUnknown", "Offer", "Polled", "Pull", "Remark", "Seen", "Status"]


class HostUnknown(GastownError):
    """The host did not say: nothing follows from that, least of all that something is approved, green or absent.

    `kind`: `down` (no answer, or half of one), `limited` (too many requests), `denied` (the credential is none),
    `forbidden` (a right that it lacks), `gone` (no such repository or pull request), `refused` (it will not do this).
    `wait`: for so many seconds it is not to be asked; 0: it does not say.
    """

    code = "host_unknown"
    disposition = Disposition.RETRY

    def __init__(self, kind: str, message: str, wait: float = 0.0) -> None:
        super().__init__(message[:1000])
        self.kind, self.wait = kind, wait


@dataclass(frozen=True, slots=True)
class Offer:
    """A pull request that is to be there: from `branch` of the repository itself onto `base`."""

    branch: str
    base: str
    title: str
    body: str
    draft: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of one check at a commit. `state`: pending, success, failure or error."""

    context: str
    state: str
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last look has seen, in the host's own words: ETags, and until when."""

    etags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Polled:
    """What a look shows. `pulls`: by number, when each was last changed and its head; `commanded`: the numbers of those
    with a new comment that is a command. Both only since the last look."""

    etags: Mapping[str, str]
    pulls: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    commanded: frozenset[int] = frozenset()


class Host(Protocol):
    """A repository on a host. Everything raises HostUnknown."""

    def poll(self, seen: Seen) -> Polled:
        """What has changed since the last look: at most two requests where nothing has, and these are free."""

    def read(self, number: int) -> Pull:
        """A pull request with its reviews and commands, and the rights of who wrote them."""

    def words(self, number: int, review: int) -> tuple[str, Sequence[Remark]]:
        """What a review says, and of which lines."""

    def offer(self, offer: Offer) -> int:
        """The number of the open pull request of that branch, made when there is none."""

    def ready(self, pull: Pull) -> None:
        """It is no draft any more."""

    def report(self, sha: str, statuses: Sequence[Status]) -> None:
        """Say these of a commit, in place of what was said before."""

    def comment(self, number: int, marker: str, text: str, known: int) -> int:
        """Have exactly one comment of ours, with this text; returns its id. `known`: its id, where it is known;
        `marker` is in its text, and is how it is found again."""

    def close(self, number: int) -> None:
        """Close it, unmerged."""

    def lacking(self) -> list[str]:
        """Which rights the credential lacks, in words; empty when it has all."""
