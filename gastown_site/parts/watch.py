"""Which parts of `up` hang: they run, and show no sign of life.

A sign is a heartbeat that the part's own loop has written, an answer of the web server, a task that the cluster ran.
Promises: judged is by changes of a sign on our own clock, so neither a wall clock that is set nor a machine that slept
condemns anybody; nobody is judged while the database is away, as nobody can show a sign there; who is only busy has
five times as long, however long a worker's task may take. Pure but for `group`, which reads /proc.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

LOOK_SECONDS = 5.0
GAP_SECONDS = 30.0  # no look for so long: we did not run ourselves, and neither did they
STOPPED_SECONDS = 20.0
BUSY = 5  # times the limit
BUSY_SHARE = 0.05  # of a processor; who waits for what never comes uses none


WEB = "web"  # its sign is an answer to /healthz; its key is no heartbeat


@dataclass(frozen=True)
class Watched:
    """One part: its name, the heartbeat that is its sign, and how long it may go without."""

    name: str
    key: str
    limit: float = 45.0

    @property
    def beats(self) -> bool:
        """True unless its sign is an answer."""
        return self.key != WEB


WATCHED = (
    Watched("web", WEB),
    Watched("cluster", "cluster", 60.0),
    Watched("reconciler", "reconciler"),
    Watched("executor", "executor"),
    Watched("runner", "runner"),
)


@dataclass(frozen=True)
class Process:
    """One process, as /proc has it. `ticks`: of processor time."""

    pid: int
    state: str
    parent: int
    group: int
    ticks: int
    title: str = ""


_AT_WORK = ("idle", "processing")  # what django-q2's workers call themselves, third word


@dataclass
class _Signs:
    """What is known of one part."""

    started: float = 0.0
    last: str = ""
    changed: float = 0.0
    stopped: float | None = None  # since when one of its processes is
    ticks: int = 0
    looked: float = 0.0
    busy: bool = False
    all_at_work: bool = False  # all of the cluster's workers have a task, which has a time-out of its own


class Watch:
    """Takes what was seen, says who hangs. `now` is always the monotonic clock."""

    def __init__(self, watched: Iterable[Watched] = WATCHED, second: int = 100) -> None:
        self.watched = {row.name: row for row in watched}
        self.second = second  # ticks of the processor's clock in one
        self._signs = {name: _Signs() for name in self.watched}
        self._seen = 0.0

    def lost(self) -> None:
        """The database could not be asked: all have their whole limit once it can be."""
        self._seen = 0.0

    def see(
        self, signs: Mapping[str, str], groups: Mapping[str, list[Process]], started: Mapping[str, float], now: float
    ) -> None:
        """`signs`: by key, another text each time there was one; `groups`, `started`: by part."""
        fresh = now - self._seen > GAP_SECONDS
        self._seen = now
        for name, row in self.watched.items():
            sign, began = signs.get(row.key, ""), started.get(name, 0.0)
            kept = self._signs[name]
            if fresh or kept.started != began:
                kept = self._signs[name] = _Signs(began, sign, now)
            elif sign != kept.last:
                kept.last, kept.changed = sign, now
            self._look_at(kept, groups.get(name, []), now)

    def _look_at(self, kept: _Signs, group: list[Process], now: float) -> None:
        """Whether its processes work, or are stopped."""
        ticks = sum(process.ticks for process in group)
        uses = True
        if kept.looked:
            uses = (ticks - kept.ticks) / self.second > BUSY_SHARE * (now - kept.looked)
        workers = [words[2] for p in group if (words := p.title.split())[:1] == ["qcluster"] and words[2:3]]
        states = {word for word in workers if word in _AT_WORK}
        kept.all_at_work, kept.busy = states == {"processing"}, uses
        kept.ticks, kept.looked = ticks, now
        if not any(process.state == "T" for process in group):
            kept.stopped = None
        elif kept.stopped is None:
            kept.stopped = now

    def hung(self, now: float) -> dict[str, str]:
        """Part → what it is to be killed for. After `see` of the same `now`."""
        found = {}
        for name, row in self.watched.items():
            kept = self._signs[name]
            silent = now - kept.changed
            patience = float(row.limit)
            if kept.all_at_work:
                patience = math.inf
            elif kept.busy:
                patience = BUSY * row.limit
            if kept.stopped is not None and now - kept.stopped > STOPPED_SECONDS:
                found[name] = f"was stopped by a signal {now - kept.stopped:.0f} s ago"
            elif silent > patience:
                found[name] = f"hangs ({silent:.0f} s without a sign of life)"
        return found


def groups(leaders: Mapping[str, int]) -> dict[str, list[Process]]:
    """The processes that are in the group of each leader now."""
    named = {pid: name for name, pid in leaders.items()}
    found: dict[str, list[Process]] = {name: [] for name in leaders}
    for process in processes():
        if name := named.get(process.group):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").rstrip("\0")
                found[name].append(replace(process, title=title))
    return found


def processes() -> Iterator[Process]:
    """All processes that can be seen now, without their titles."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                yield Process(int(entry.name), rest[0], int(rest[1]), int(rest[2]), int(rest[11]) + int(rest[12]))
