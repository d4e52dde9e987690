"""What the simulator is given, and what it gives: loads, strategies, changes, and the oracle's answer. Pure."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from beads.errors import Invalid


@dataclass(frozen=True)
class Load:
    """What arrives. Rates are between 0 and 1; builds take between `shortest` and `longest` minutes."""

    per_hour: float = 300
    workers: int = 300
    hours: float = 4
    failing: float = 0.05
    conflicting: float = 0.0
    shortest: float = 30
    longest: float = 60
    seed: int = 1


@dataclass(frozen=True)
class Strategy:
    """How a queue is run: cars at once, entries in each, and whether each entry is gated by itself first."""

    window: int = 1
    batch: int = 1
    alone: bool = False

    @property
    def name(self) -> str:
        """As it is written: `alone+train:8+batch:16`."""
        named = {
            "alone": self.alone,
            f"train:{self.window}": self.window > 1,
            f"batch:{self.batch}": self.batch > 1,
        }
        return "+".join(part for part, is_so in named.items() if is_so) or "serial"

    @staticmethod
    def parse(text: str) -> Strategy:
        """The inverse of `name`. Raises Invalid."""
        told: dict[str, int] = {}
        for part in text.split("+"):
            word, _, number = part.strip().partition(":")
            if word in ("train", "batch") and number.isdigit() and 1 <= int(number) <= 100:
                told[word] = int(number)
            elif part.strip() in ("alone", "serial"):
                told[part.strip()] = 1
            else:
                raise Invalid(f"--strategies: {part!r} is none of serial, train:N, batch:N, alone", field="strategies")
        return Strategy(told.get("train", 1), told.get("batch", 1), "alone" in told)


@dataclass
class Change:
    """One change, with the outcome that only the oracle knows."""

    id: str
    arrived: float
    minutes: float
    bad: bool
    rival: str = ""
    landed: float | None = None
    ejected: float | None = None


@dataclass
class Outcome:
    """What a strategy made of a load: minutes from arrival to landing, relative to the oracle's."""

    name: str
    landed: int
    ejected_wrongly: int
    builds: int
    changes: int
    p50: float
    p95: float
    p99: float
    ratios: list[float] = field(default_factory=list)

    @property
    def builds_per_change(self) -> float:
        """Gate runs begun for each change that arrived."""
        return self.builds / max(self.changes, 1)


def arrivals(load: Load) -> list[Change]:
    """A seeded Poisson stream of changes."""
    chance = random.Random(load.seed)  # noqa: S311 - a simulation
    changes: list[Change] = []
    at = 0.0
    while at < load.hours * 60:
        at += chance.expovariate(load.per_hour / 60)
        rival = ""
        if changes and chance.random() < load.conflicting:
            rival = changes[-1].id
        minutes = chance.uniform(load.shortest, load.longest)
        changes.append(Change(f"gt-{len(changes):06d}", at, minutes, chance.random() < load.failing, rival))
    return changes


def oracle(changes: Iterable[Change], workers: int) -> dict[str, float]:
    """When each good change lands if outcomes are known: its one build begins as soon as a worker is free."""
    free = [0.0] * workers
    done: dict[str, float] = {}
    for change in changes:
        if change.bad:
            continue
        begin = max(change.arrived, heapq.heappop(free))
        heapq.heappush(free, begin + change.minutes)
        done[change.id] = begin + change.minutes
    return done
