"""Who of the waiting outside work is begun next, so that nobody waits for another's remote. Pure.

Each rig has a share, each remote host has one, and some places are kept for whoever's remote is known to answer: ten
remotes that accept and stay silent take what is theirs, and not one place more. Where an outage is known, nothing is
begun but a look at the remote (or, where only work shows whether it is over, one piece of work) when its time has come.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PLACES = 24  # at once, altogether
KEPT = 6  # of them, for rigs whose remotes have answered
PER_RIG = 2
PER_HOST = 6


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of outside work. `share`: who has it (`rig:7`, or `town:1` where no rig has); `host`: the key of its
    remote's host, or empty. A look at a rig's remote has the effect 0."""

    effect: int
    share: str
    host: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The outages that would stand in its way."""
        return tuple(key for key in (self.share, self.host) if key)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A known outage: when it is looked at again, by `look` (the job that does so), or, `at_work`, by doing work."""

    next_look_at: dt.datetime
    look: Job
    at_work: bool = False


@dataclass
class Shares:
    """What is at work now, and who has answered since this process began."""

    running: list[Job] = field(default_factory=list)
    good: set[str] = field(default_factory=set)

    def choose(self, due: Iterable[Job], troubles: Mapping[str, Trouble], now: dt.datetime) -> list[Job]:
        """What is begun now, of `due` in its order and of the looks that are due."""
        busy = Counter(key for job in self.running for key in job.keys)
        taken = Counter(job.share in self.good for job in self.running)
        chosen: list[Job] = []

        def _take(job: Job) -> None:
            chosen.append(job)
            busy.update(job.keys)
            taken[job.share in self.good] += 1

        due = list(due)
        worked_on = {key for job in due for key in job.keys}
        for key, trouble in troubles.items():
            shown = not trouble.at_work or key not in worked_on
            if shown and now >= trouble.next_look_at and not busy[key] and self._room(taken, good=False):
                _take(trouble.look)
        for job in due:
            good = job.share in self.good
            lasting = [key for key in job.keys if key in troubles]
            if lasting:
                tried = all(troubles[key].at_work and now >= troubles[key].next_look_at for key in lasting)
                if not tried or any(busy[key] for key in lasting):
                    continue
            most = 1
            if good:
                most = PER_RIG
            if busy[job.share] < most and (not job.host or busy[job.host] < PER_HOST) and self._room(taken, good=good):
                _take(job)
        return chosen

    def _room(self, taken: Counter[bool], *, good: bool) -> bool:
        return taken.total() < PLACES and (good or taken[False] < PLACES - KEPT)
