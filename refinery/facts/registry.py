"""The registry of facts: each kind stands once, beside its payload's type and what is written when it is taken in.

`check` refuses an unknown kind, a missing key and a wrong type before anything is written, naming the field. Keys
that are not known are ignored: a newer shim or server may say more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic

from beads.errors import Invalid
from beads.models import Fact, Town
from refinery.facts.payloads import Payload

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class Taken(Generic[P]):
    """A fact in the tick's hands: what it says, checked, and the tick's `now`."""

    fact: Fact
    said: P
    now: dt.datetime

    @property
    def town(self) -> Town:
        """The town that it happened in."""
        return self.fact.town

    @property
    def actor(self) -> str:
        """Who said it, such as `web:ann`, `executor` or a run."""
        return self.fact.actor

    @property
    def kind(self) -> str:
        """Its kind, for a handler that serves several."""
        return self.fact.kind

    @property
    def subject(self) -> str:
        """The id of what it is about."""
        return self.fact.subject


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fact. `replayable`: an observation, which may come twice, and not a person's decision."""

    payload: type[Payload]
    take: Callable[[Taken[Any]], None]
    replayable: bool = False


KINDS: dict[str, Kind] = {}


def fact(
    *kinds: str, says: type[P], replayable: bool = False
) -> Callable[[Callable[[Taken[P]], None]], Callable[[Taken[P]], None]]:
    """Register what is written when a fact of one of `kinds` is taken in."""

    def register(take: Callable[[Taken[P]], None]) -> Callable[[Taken[P]], None]:
        for kind in kinds:
            if kind in KINDS:
                raise AssertionError(f"two handlers take {kind}")
            KINDS[kind] = Kind(says, take, replayable)
        return take

    return register


def at_the_door(*kinds: str, says: type[Payload]) -> None:
    """Register kinds that were carried out where they were asked for: the fact is the wake-up and the history."""
    fact(*kinds, says=says)(_nothing_left)


def _nothing_left(_: Taken[Any]) -> None: ...


def check(kind: str, payload: object) -> Payload:
    """What a fact of `kind` says. Raises Invalid, naming the field, for what no fact of that kind can say."""
    known = KINDS.get(kind)
    if known is None:
        raise Invalid(f"unknown kind of fact {kind!r}", field="kind")
    if not isinstance(payload, dict):
        raise Invalid(f"{kind}: the payload is no object", field="payload")
    try:
        return known.payload.model_validate(payload)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "payload"
        raise Invalid(f"{kind}: {field}: {first['msg']}"[:500], field=field) from None


def take(fact: Fact, now: dt.datetime) -> None:
    """Apply one fact, under the tick's lock. Raises on anything that it cannot make sense of."""
    said = check(fact.kind, fact.payload)
    KINDS[fact.kind].take(Taken(fact, said, now))
