"""Work outside the database: the closed set of kinds, what each says, and the key under which it is asked once. Pure.

An effect's row holds a kind's name and its payload; `read` makes of them again what `payload` has made of it. A new
kind is a dataclass here and its handler in `refinery.executor`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any, ClassVar

import pydantic

from beads.errors import Invalid
from refinery.core.keys import branch_key, build_key, land_key, publish_key
from refinery.core.relations import foresee_key
from refinery.core.telling import led_by


class Remote(Enum):
    """What a kind of work asks of the rig's remote; what a look may show says nothing about pushes."""

    NOTHING = auto()
    LOOK = auto()
    PUSH = auto()


def _as_json(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return value


@dataclass(frozen=True, slots=True)
class Effect:
    """Base of all kinds."""

    name: ClassVar[str]
    remote: ClassVar[Remote] = Remote.NOTHING

    @property
    def key(self) -> str:
        """The same question has the same key, so that it is asked once."""
        raise NotImplementedError

    @property
    def asks(self) -> Remote:
        """What this one asks of the remote."""
        return self.remote

    def payload(self) -> dict[str, Any]:
        """What its row holds: JSON."""
        return {field.name: _as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class Build(Effect):
    """Build the candidate of an entry. `head`: of the moment it was asked. `date`: seconds since 1970, which makes the
    commit reproducible. `on`: the car ahead's candidate, or the target's head. `seal`: the first of its batch."""

    name: ClassVar[str] = "build"
    entry: str
    build_no: int
    head: str
    date: int
    on: int | None = None
    seal: int | None = None

    @property
    def key(self) -> str:
        """One for each build."""
        return build_key(self.entry, self.build_no)

    @property
    def asks(self) -> Remote:
        """Where the target is, unless it is built on a car."""
        if self.on:
            return Remote.NOTHING
        return Remote.LOOK


@dataclass(frozen=True, slots=True)
class Land(Effect):
    """Push the cars of a landing."""

    name: ClassVar[str] = "land"
    remote: ClassVar[Remote] = Remote.PUSH
    landing: int

    @property
    def key(self) -> str:
        """One for each landing."""
        return land_key(self.landing)


@dataclass(frozen=True, slots=True)
class Publish(Effect):
    """Push what a run's shim could not."""

    name: ClassVar[str] = "publish"
    remote: ClassVar[Remote] = Remote.PUSH
    run: str

    @property
    def key(self) -> str:
        """One for each run."""
        return publish_key(self.run)


@dataclass(frozen=True, slots=True)
class CreateBranch(Effect):
    """Cut a convoy's branch from the default branch, once."""

    name: ClassVar[str] = "create_branch"
    remote: ClassVar[Remote] = Remote.PUSH
    branch: int
    asked_at: dt.datetime

    @property
    def key(self) -> str:
        """One for each time that it is asked for."""
        return branch_key(self.name, self.branch, self.asked_at)


@dataclass(frozen=True, slots=True)
class ObserveBranch(Effect):
    """Look where a convoy's branch is."""

    name: ClassVar[str] = "observe_branch"
    remote: ClassVar[Remote] = Remote.LOOK
    branch: int
    asked_at: dt.datetime

    @property
    def key(self) -> str:
        """One for each look."""
        return branch_key(self.name, self.branch, self.asked_at)


@dataclass(frozen=True, slots=True)
class DeleteBranch(Effect):
    """Delete a branch of a rig, whose change has been seen on its target, if it is still at `sha`. `entry`: the one
    that has landed; none: a convoy's branch."""

    name: ClassVar[str] = "delete_branch"
    remote: ClassVar[Remote] = Remote.PUSH
    rig: int
    branch: str
    sha: str
    entry: str = ""

    @property
    def key(self) -> str:
        """One for each branch."""
        return f"delete:{self.rig}:{self.branch}{led_by(':', self.entry)}"


@dataclass(frozen=True, slots=True)
class Foresee(Effect):
    """Answer a question about a lane ahead of time; see `refinery.core.relations.ForecastView`."""

    name: ClassVar[str] = "foresee"
    forecast: int
    number: int

    @property
    def key(self) -> str:
        """One for each question."""
        return foresee_key(self.forecast, self.number)


@dataclass(frozen=True, slots=True)
class Notify(Effect):
    """Tell people of a town what they asked to hear. `kind`: `needs_you`, `landed` or `failed`. `about`: what makes it
    one notice, and not several."""

    name: ClassVar[str] = "notify"
    kind: str
    town: str
    title: str
    body: str
    url: str
    about: str = ""

    @property
    def key(self) -> str:
        """One for each kind of news of a subject."""
        return f"notify:{self.kind}:{self.about}"[:200]


# -- at the host of a rig's pull requests --


@dataclass(frozen=True, slots=True)
class PollHost(Effect):
    """Look what has changed on a rig's host."""

    name: ClassVar[str] = "poll_host"
    rig: int

    @property
    def key(self) -> str:
        """One for each rig."""
        return f"host:{self.rig}"


@dataclass(frozen=True, slots=True)
class ReadPull(Effect):
    """Read a pull request."""

    name: ClassVar[str] = "read_pull"
    rig: int
    number: int

    @property
    def key(self) -> str:
        """One for each pull request."""
        return f"pull:read:{self.rig}:{self.number}"


@dataclass(frozen=True, slots=True)
class OfferPull(Effect):
    """Let an entry be shown by a pull request."""

    name: ClassVar[str] = "offer_pull"
    entry: str

    @property
    def key(self) -> str:
        """One for each entry."""
        return f"pull:offer:{self.entry}"


@dataclass(frozen=True, slots=True)
class HearPull(Effect):
    """Carry out what somebody said on a pull request: `what`: `r<id>` for a review, whose opinion is `value`, or `c`
    for the comment whose id is `value`."""

    name: ClassVar[str] = "hear_pull"
    pull: int
    what: str
    value: str

    @property
    def key(self) -> str:
        """One for each that is said."""
        return f"pull:hear:{self.pull}:{self.what}:{self.value}"


@dataclass(frozen=True, slots=True)
class PushPull(Effect):
    """Let the pull request's branch, which is at `old`, be at `new`: what a round of rework has made."""

    name: ClassVar[str] = "push_pull"
    remote: ClassVar[Remote] = Remote.PUSH
    pull: int
    old: str
    new: str

    @property
    def key(self) -> str:
        """One for each head."""
        return f"pull:push:{self.pull}:{self.new}"


@dataclass(frozen=True, slots=True)
class ReportPull(Effect):
    """Say of a commit how its checks are: (context, state, text) of each. `ready`: it is no draft any more."""

    name: ClassVar[str] = "report_pull"
    pull: int
    sha: str
    statuses: tuple[tuple[str, str, str], ...]
    digest: str
    ready: bool = False

    @property
    def key(self) -> str:
        """One for each thing to say."""
        return f"pull:report:{self.pull}:{self.digest}"


@dataclass(frozen=True, slots=True)
class TellPull(Effect):
    """Let our comment on a pull request say these lines."""

    name: ClassVar[str] = "tell_pull"
    pull: int
    lines: tuple[str, ...]
    digest: str

    @property
    def key(self) -> str:
        """One for each thing to say."""
        return f"pull:tell:{self.pull}:{self.digest}"


@dataclass(frozen=True, slots=True)
class EndPull(Effect):
    """Close a pull request, if it is open: its entry has ended."""

    name: ClassVar[str] = "end_pull"
    pull: int

    @property
    def key(self) -> str:
        """One for each pull request."""
        return f"pull:end:{self.pull}"


OfHost = PollHost | ReadPull | OfferPull | HearPull | PushPull | ReportPull | TellPull | EndPull

KINDS: dict[str, type[Effect]] = {
    kind.name: kind
    for kind in (
        *(Build, Land, Publish, CreateBranch, ObserveBranch, DeleteBranch, Foresee, Notify),
        *(PollHost, ReadPull, OfferPull, HearPull, PushPull, ReportPull, TellPull, EndPull),
    )
}


@cache
def _reader(name: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(KINDS[name])


def read(name: str, payload: Mapping[str, Any]) -> Effect:
    """The work that a row stands for. What is not known in a payload is ignored: an older server may have said more.

    Raises:
        Invalid: there is no such kind, or the payload lacks something; names the field.

    """
    kind = KINDS.get(name)
    if kind is None:
        raise Invalid(f"unknown kind of effect {name!r}", field="kind")
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        found: Effect = _reader(name).validate_python({k: v for k, v in payload.items() if k in known})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "payload"
        raise Invalid(f"{name}: {field}: {first['msg']}"[:500], field=field) from None
    return found
