"""How entries stand to one another, as the rules see it: who waits for whom, who stands on whom, who would conflict.

Pure data; `refinery.core.stacks` derives it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def foresee_key(forecast: int, number: int) -> str:
    """The key of the effect that answers a question about a lane."""
    return f"foresee:{forecast}:{number}"


def contained(parents: Mapping[str, Sequence[str]], heads: Sequence[str]) -> list[tuple[str, str]]:
    """(upper, lower) for each of `heads` from which another one is reached by way of `parents`."""
    wanted, found = set(heads) & parents.keys(), []
    for head in dict.fromkeys(heads):
        seen: set[str] = set()
        todo = [head]
        while todo:
            one = todo.pop()
            if one in parents and one not in seen:
                seen.add(one)
                todo += parents[one]
        found += [(head, low) for low in sorted(seen & wanted - {head})]
    return found


@dataclass(frozen=True, slots=True)
class StackedOn:
    """An active entry of the same lane whose head is contained in another one's.

    `state`: `ahead` (a car further to the front), `queued` (will be one) or `waits` (for people or for work).
    """

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something an entry depends on that will not land: an entry or a bead, how it ended, and when."""

    id: str
    how: str
    at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class ConflictForecast:
    """A conflict foreseen: with another active entry (`id`), or with the target itself (an empty `id`)."""

    id: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForecastView:
    """What is known of a lane ahead of time, and what was asked last.

    `tip` is where the target was last seen. The answer is about `base` and `heads`, which were compared, and `paired`,
    those of them that were merged in pairs; `clashes`: pairs that conflict on that base (an empty second head: with
    the base itself) and the files. `number` is that of the last question, `answered` of the last one answered.
    """

    id: int = 0
    number: int = 0
    answered: int = 0
    asked_at: dt.datetime | None = None
    asked: tuple[str, ...] = ()
    asked_tip: str = ""
    tip: str = ""
    base: str = ""
    heads: frozenset[str] = frozenset()
    paired: frozenset[str] = frozenset()
    clashes: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


Key = tuple[str, str]  # a gate's name and command: with another command it is another check


@dataclass(frozen=True, slots=True)
class Broken:
    """How a gate ends on the target itself: in words, by which exit (or signal), and the files in which it fails."""

    words: str
    exit: int | None = None
    files: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KnownCheck:
    """What a lane's active check of its target is known to say (see `refinery.core.checks`).

    `broken`: gates that did not pass there the last time, with how. `answered`: every gate has been run on `head` since
    it was last asked for. `barren`: it will give no answer, or not in time: nobody waits for it.
    """

    id: str
    head: str = ""
    broken: Mapping[Key, Broken] = field(default_factory=dict)
    answered: bool = False
    barren: bool = False
    hopeless: bool = False  # no gate at all can be run


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of the gates where an entry stands. `passes`: those that pass on the very tree that it was built
    on; results before the number said are from when they did not (0: they always did)."""

    passes: Mapping[Key, int] = field(default_factory=dict)
    check: KnownCheck | None = None

    @property
    def broken(self) -> Mapping[Key, Broken]:
        """The gates that are known not to pass on the target."""
        if self.check is None:
            return {}
        return self.check.broken


@dataclass(frozen=True, slots=True)
class Ties:
    """What an active entry has to do with others, and what people have decided about its order and its gates.

    `before`: active entries that land before it. `inherited_rank`: the priority of the most urgent entry that waits for
    it. `refused_below`: what it stands on and has left the queue unlanded. `held_back_by`: why it lets another one land
    first, and `resolving`: that one waits for its conflict to be resolved. `waiver`: the record of a person's decision
    that the gates of this head are skipped, and in words, by whom and why.
    """

    before: tuple[str, ...] = ()
    inherited_rank: int | None = None
    stacked_on: tuple[StackedOn, ...] = ()
    refused_below: tuple[Refused, ...] = ()
    clashes: tuple[ConflictForecast, ...] = ()
    held_back_by: str = ""
    resolving: bool = False
    waiver: int = 0
    waived: str = ""
