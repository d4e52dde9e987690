"""What rules see of a remote that does not work. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from beads.values import moment


@dataclass(frozen=True, slots=True)
class OutageView:
    """What of a rig's remote does not work. `lasting`: it takes a person to mend it."""

    key: str
    kind: str
    error: str
    since: dt.datetime
    next_at: dt.datetime
    failures: int = 1
    remedy: str = ""
    lasting: bool = False

    def words(self, now: dt.datetime) -> str:
        """Since when, what, and when next, in one sentence."""
        again = f"looked at again at {moment(self.next_at, now)}" if self.next_at > now else "being looked at again"
        return f"its remote does not work since {moment(self.since, now)}: {self.error}; {again}"


@dataclass(frozen=True, slots=True)
class EffectView:
    """Outside work that is `pending`, or `failed` for good. `since`: it has been failing; an outage of the remote, for
    which the rig has words of its own, does not count."""

    state: str
    error: str = ""
    attempts: int = 0
    since: dt.datetime | None = None
    next_at: dt.datetime | None = None

    def trouble(self, doing: str, now: dt.datetime) -> str:
        """Since when, what, and when next; empty while nothing is wrong with it."""
        if self.since is None or self.next_at is None:
            return ""
        times = f" ({self.attempts} times since {moment(self.since, now)})"
        return f"{doing} failed{times}: {self.error}; tried again at {moment(self.next_at, now)}"
