"""What is left of budgets, as the rules see it: stored sums against caps. Pure; part of `refinery.core.world`.

A cap that is reached holds whatever would spend more under it: no run is started, a live one is stopped. What a run's
own cap has stopped is held until a person has said something about it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from beads.budget import Cap


@dataclass(frozen=True, slots=True)
class RunCap:
    """A run's own cap. `stopped`: it has ended, because of a budget; `released`: a person has had a word since."""

    cap: Cap
    account: str
    stopped: bool = False
    released: bool = False


@dataclass(frozen=True, slots=True)
class Budgets:
    """The caps that hold: by account (the bead whose money it is) those of bead, convoy and day; by run its own.

    `used_at`: when live runs have used anything the last time, where a cap is reached.
    """

    accounts: Mapping[str, tuple[Cap, ...]] = field(default_factory=dict)
    runs: Mapping[str, RunCap] = field(default_factory=dict)
    used_at: Mapping[str, dt.datetime] = field(default_factory=dict)

    def held(self, account: str) -> Cap | None:
        """The cap because of which nothing more is begun for this account."""
        reached = next((cap for cap in self.accounts.get(account, ()) if cap.reached), None)
        if reached is not None:
            return reached
        stopped = (r for r in self.runs.values() if r.account == account and r.stopped and not r.released)
        return next((r.cap for r in stopped if r.cap.reached), None)

    def over(self, run: str, account: str) -> Cap | None:
        """The cap because of which a live run must end."""
        own = self.runs.get(run)
        if own is not None and own.cap.reached:
            return own.cap
        return next((cap for cap in self.accounts.get(account, ()) if cap.reached), None)

    def every(self) -> list[tuple[Cap, str]]:
        """Each cap once, with an account that it holds for."""
        found: dict[tuple[str, str], tuple[Cap, str]] = {}
        for account, caps in self.accounts.items():
            for cap in caps:
                found.setdefault((cap.scope, cap.subject), (cap, account))
        for run in self.runs.values():
            if not run.released:
                found[run.cap.scope, run.cap.subject] = (run.cap, run.account)
        return list(found.values())


def waits(cap: Cap) -> str:
    """What is said of what a used up budget holds."""
    return f"the budget is used up: {cap}; a person is asked"
