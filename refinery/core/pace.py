"""How long things took of late, as ranges, and lengths of time in words. Pure.

A range is what four of five of the latest lengths fell into, and wider where they are few. What has been measured too
seldom is unknown, and says why: it is never taken for nothing.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor

from beads.config import Gate

ENOUGH = 3  # so many samples at least
SAMPLES = 30  # so many of the latest count

# What is timed: `review`, `landing`, `work`, `around` (what a run of gates takes beside its gates), or a gate's name
# and command: with another command it is another gate.
What = str | tuple[str, str]
_NAMES = {"review": "a review", "landing": "a landing", "work": "a piece of work"}


@dataclass(frozen=True, slots=True)
class Span:
    """How long something takes, in seconds: seldom less than `low`, seldom more than `high`."""

    low: float = 0.0
    usual: float = 0.0
    high: float = 0.0

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.usual + other.usual, self.high + other.high)

    def beside(self, other: Span) -> Span:
        """Both at once: as long as the longer of the two."""
        return Span(max(self.low, other.low), max(self.usual, other.usual), max(self.high, other.high))

    def after(self, passed: float) -> Span:
        """What is left of it when so much has passed, which must be less than `high`."""
        left = self.high - passed
        usual = self.usual - passed
        if passed >= self.low:
            usual = max(usual, left / 2)
        return Span(max(self.low - passed, 0.0), usual, left)


NOTHING = Span()


class Untold(Exception):
    """Nobody can say how long: `words` say why. `behind`: what is said of whoever comes after."""

    def __init__(self, words: str, behind: str = "", *, overdue: bool = False) -> None:
        super().__init__(words)
        self.words, self.behind, self.overdue = words, behind or words, overdue


@dataclass(frozen=True)
class History:
    """What was observed: (rig, what) → how long it takes, and how often it was timed."""

    spans: Mapping[tuple[int, What], Span] = field(default_factory=dict)
    counts: Mapping[tuple[int, What], int] = field(default_factory=dict)

    def of(self, rig: int, what: str) -> Span:
        """How long something takes in a rig. Raises Untold."""
        found = self.spans.get((rig, what))
        if found is None:
            raise Untold(f"unknown: {_NAMES[what]} was timed {self.counts.get((rig, what), 0)} of {ENOUGH} times")
        return found

    def gate(self, rig: int, gate: Gate, present: Iterable[Gate]) -> Span:
        """How long a gate takes in a rig, whose gates are `present`. Raises Untold."""
        key = gate.name, gate.command
        found = self.spans.get((rig, key))
        if found is None:
            unknown = "unknown"
            if self._others(rig, present):
                unknown = "unknown since the gates changed"
            count = self.counts.get((rig, key), 0)
            raise Untold(f"{unknown}: gate {gate.name!r} was timed {count} of {ENOUGH} times")
        return found

    def around(self, rig: int) -> Span:
        """How long a run of gates takes beside its gates: to wait for its turn, to be prepared, to be taken in."""
        return self.spans.get((rig, "around"), NOTHING)

    def _others(self, rig: int, present: Iterable[Gate]) -> bool:
        """True when gates were timed that the rig no longer has, or has with another command."""
        known = {(g.name, g.command) for g in present}
        return any(r == rig and isinstance(what, tuple) and what not in known for r, what in self.counts)


def history(samples: Iterable[tuple[int, What, float]]) -> History:
    """From (rig, what, seconds), the latest first."""
    taken: dict[tuple[int, What], list[float]] = defaultdict(list)
    for rig, what, seconds in samples:
        if len(taken[rig, what]) < SAMPLES:
            taken[rig, what].append(max(seconds, 0.0))
    enough = {key: _span(found) for key, found in taken.items() if len(found) >= ENOUGH}
    return History(enough, {key: len(found) for key, found in taken.items()})


def _span(samples: list[float]) -> Span:
    """From the first tenth to the last, and by one part in as many as there are wider than that on both sides."""
    ordered, count = sorted(samples), len(samples)
    low, high = ordered[count // 10], ordered[ceil(0.9 * count) - 1]
    return Span(low / (1 + 1 / count), statistics.median(ordered), high * (1 + 1 / count))


# -- words ----------------------------------------------------------------------------------------------------------

_UNITS = ((1.0, 5, "s", 90.0), (60.0, 1, "min", 5400.0), (3600.0, 1, "h", 129600.0), (86400.0, 1, "days", float("inf")))


def lasting(low: float, high: float) -> str:
    """A range of time in words, `2 to 5 min`, rounded outwards. The same is done by live.js: keep the two alike."""
    size, step, unit = next((size, step, unit) for size, step, unit, most in _UNITS if high < most)
    to = max(ceil(high / size / step) * step, step)
    start = floor(low / size / step) * step
    if start:
        return f"{start} to {max(to, start + step)} {unit}"
    smaller = next((s for s in reversed(_UNITS) if s[0] < size), None)
    if smaller is not None and (less := floor(low / smaller[0] / smaller[1]) * smaller[1]):
        return f"{less} {smaller[2]} to {to} {unit}"
    return f"up to {to} {unit}"


def due(low: float, high: float) -> str:
    """When something happens, in words: `in 2 to 5 min`, or `within 5 s`."""
    words = lasting(low, high)
    if words.startswith("up to"):
        return words.replace("up to", "within", 1)
    return f"in {words}"


def exactly(seconds: float) -> str:
    """How long something has lasted, in words, never more than it has."""
    size, _, unit, _ = next(row for row in _UNITS if seconds < row[3])
    return f"{floor(seconds / size)} {unit}"
