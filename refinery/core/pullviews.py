"""What the rules see of pull requests on a host: what the host answered when it was last read. Pure.

A `Pull` is kept as JSON in a row, so each field is bounded by whoever reads it from a host (`refinery.hosts`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

import pydantic


class PullState(StrEnum):
    """What has become of a pull request on its host."""

    OPEN = "open"
    CLOSED = "closed"
    MERGED = "merged"


class Right(StrEnum):
    """What somebody may do in the repository; `unknown` may nothing."""

    UNKNOWN = "unknown"
    NONE = "none"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def writes(self) -> bool:
        """True for whoever may push there."""
        return self in (Right.WRITE, Right.ADMIN)


class Opinion(StrEnum):
    """What a review on the host says."""

    APPROVE = "approve"
    REQUEST_CHANGES = "request_changes"
    COMMENT = "comment"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True)
class Review:
    """A review, of one commit. `by`: a login."""

    id: int
    by: str
    opinion: Opinion
    commit: str
    right: Right = Right.UNKNOWN


@dataclass(frozen=True, slots=True)
class Remark:
    """What a review says of a line: of the file as it is (`new`), or as it was (`old`)."""

    file: str
    line: int
    side: str
    body: str


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment that is a command. `body`: its first line."""

    id: int
    by: str
    body: str
    right: Right = Right.UNKNOWN


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull request as its host shows it. `head_repo`: `owner/name` of where its branch is; `authors`: the logins of
    those who wrote its commits, as far as the host knows them (`authors_known`: all of them, but for our agents);
    `merge_sha`: the commit that it says it was merged as; `mergeable`: None: not known; `etags`: of the lists that this
    was read from, by which the next reading is spared."""

    number: int
    head: str
    head_repo: str
    branch: str
    base: str
    title: str
    author: str
    state: PullState
    node: str = ""
    url: str = ""
    draft: bool = False
    mergeable: bool | None = None
    merge_sha: str = ""
    authors: tuple[str, ...] = ()
    authors_known: bool = True
    labels: tuple[str, ...] = ()
    reviews: tuple[Review, ...] = ()
    commands: tuple[Comment, ...] = ()
    whole: bool = True  # False: it has more reviews or comments than are read; see TOO_MUCH
    etags: Mapping[str, str] = field(default_factory=dict)
    on_target: bool = False  # git has shown `merge_sha` on its base


TOO_MUCH = (
    "it has more reviews or comments than can be read: close it, and submit its branch by itself (gastown mq submit)"
)


@cache
def _adapter() -> pydantic.TypeAdapter[Pull]:
    return pydantic.TypeAdapter(Pull)


def dump(pull: Pull) -> dict[str, Any]:
    """As JSON."""
    told: dict[str, Any] = _adapter().dump_python(pull, mode="json")
    return told


def load(told: Mapping[str, Any]) -> Pull | None:
    """The inverse of `dump`; None for what is empty, or was written by another version."""
    try:
        return _adapter().validate_python(dict(told)) if told else None
    except pydantic.ValidationError:
        return None


def unlike(pull: Pull, repository: str, head: str, base: str) -> str:
    """What keeps a pull request that somebody has made from showing this head for `base`, in a sentence; empty when it
    is just that."""
    name = f"pull request #{pull.number}"
    if pull.state != PullState.OPEN:
        return f"{name} is {pull.state}"
    if pull.head_repo.lower() != repository.lower():
        return f"the branch of {name} is in {pull.head_repo or 'a repository that is gone'}, not in {repository}"
    if pull.base != base:
        return f"{name} is for {pull.base}, not for {base}"
    if pull.head != head:
        return f"the head of {name} is {pull.head[:12]}, not {head[:12]}"
    return ""


@dataclass(frozen=True, slots=True)
class PullView:
    """A row: a pull request that concerns us. `pull`: as last read; None: not known.

    `wanted_at`: when something was last heard of it; what was read before that may be past. `heard`: what reviews and
    comments were taken in: `r<id>` → opinion, `c` → the latest comment's id. `told`: a digest of our comment as it
    is there; `said`: by context, the mark of each status there (see `refinery.core.rules.pullreports.mark`);
    `answer`: what came of the last command.
    """

    id: int
    rig: int
    number: int
    wanted_at: dt.datetime
    offered: bool = False
    head: str = ""  # where it and its entry were last the same
    read_at: dt.datetime | None = None
    pull: Pull | None = None
    heard: Mapping[str, Any] = field(default_factory=dict)
    told: str = ""
    told_at: dt.datetime | None = None
    said: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    entry: str = ""
    outcome: str = ""  # of its entry, once that has ended: a reason of `refinery.core.reasons.Exit`
    outcome_text: str = ""
    merge_sha: str = ""

    @property
    def known(self) -> bool:
        """True when nothing was heard of it since it was read."""
        return self.pull is not None and self.read_at is not None and self.read_at >= self.wanted_at


@dataclass(frozen=True, slots=True)
class HostView:
    """What is known of a rig's host. `polled_at`: begin of the last look that was answered; `trouble`: why it cannot be
    asked since `since`, and when it is tried again."""

    rig: int
    polled_at: dt.datetime | None = None
    trouble: str = ""
    kind: str = ""
    since: dt.datetime | None = None
    next_try_at: dt.datetime | None = None
    failures: int = 0
