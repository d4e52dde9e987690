"""What the rules see of beads and of runs. Pure; part of `refinery.core.world`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agents.lifecycle import RunOutcome, RunState
from beads.lifecycle import BeadStatus, Purpose


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as last observed."""

    id: str
    bead: str
    kind: str
    state: str
    attempt: int
    created_at: dt.datetime
    rig: int = 0
    account: str = ""  # the bead whose money it spends
    outcome: str = ""
    agent: int | None = None
    purpose: str = ""
    start_deadline: dt.datetime | None = None
    lease_until: dt.datetime | None = None
    activity_at: dt.datetime | None = None
    active_tool: str = ""
    nudged_at: dt.datetime | None = None
    start_error: str = ""
    fault: str = ""  # the kind of its start's failure
    exited_at: dt.datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    exit_error: str = ""
    start_sha: str = ""
    head_sha: str = ""
    branch: str = ""
    published: bool = False
    on_remote: bool = False
    publish_requested: bool = False
    work: str = ""
    work_text: str = ""
    last_line: str = ""
    words: str = ""  # an agent's last ones, by its transcript
    stillborn: bool = False  # it failed within seconds, having neither committed nor called a tool
    result: str = ""
    summary: str = ""
    reason: str = ""
    stop_requested: bool = False
    stop_counts: bool = False
    stop_reason: str = ""
    has_steps: bool = False
    ended_at: dt.datetime | None = None
    forgotten: bool = False  # it is from before a person's retry of its bead

    @property
    def live(self) -> bool:
        """True until the run is ended (and fenced)."""
        return self.state != RunState.ENDED


@dataclass(frozen=True, slots=True)
class Blocker:
    """A bead that another one waits for."""

    id: str
    status: str
    title: str = ""
    purpose: str = Purpose.WORK
    resolution: str = ""
    closed_at: dt.datetime | None = None
    rig: int | None = None
    unreleased: str = ""  # words to be added to its status
    reason: str = ""  # of a failed one


@dataclass(frozen=True, slots=True)
class BeadView:
    """A live issue bead with its runs since the last retry, oldest first."""

    id: str
    status: str
    created_at: dt.datetime
    rig: int
    title: str = ""
    purpose: str = Purpose.WORK
    priority: int = 2
    convoy: str | None = None
    parent: str | None = None
    cancel_requested: bool = False
    unreleased: str = ""  # who filed it, while it waits for a person's release
    hold: str = ""  # who has stopped it, and why
    blockers: tuple[Blocker, ...] = ()
    runs: tuple[RunView, ...] = ()

    @property
    def live_run(self) -> RunView | None:
        """Its one live agent run."""
        return next((r for r in self.runs if r.live), None)

    @property
    def last_run(self) -> RunView | None:
        """Its latest run."""
        return next(reversed(self.runs), None)

    @property
    def waiting_for(self) -> tuple[Blocker, ...]:
        """Blockers that are not closed. A failed one keeps it blocked, visibly."""
        return tuple(b for b in self.blockers if b.status != BeadStatus.CLOSED)

    @property
    def attempts_used(self) -> int:
        """Attempts that count against the cap: those in which the command itself failed."""
        return sum(1 for r in self.runs if r.outcome == RunOutcome.FAILED)

    @property
    def published_head(self) -> RunView | None:
        """The latest run whose commits have arrived: where the next attempt starts."""
        return next((r for r in reversed(self.runs) if r.published and r.head_sha), None)
