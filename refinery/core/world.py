"""Everything a rule may see, as frozen dataclasses. Pure; what is derived from it lives in `refinery.core.stages`.

`None` in an observed field means *unknown*, which is never taken for fine, absent or dead.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from beads.config import Config
from beads.lifecycle import BeadStatus, Purpose
from refinery.core.convoyviews import ConvoyView
from refinery.core.outageviews import EffectView, OutageView
from refinery.core.relations import ForecastView, Ground, KnownCheck, Ties
from refinery.core.stages import Standing

BREAKER_WINDOW = dt.timedelta(minutes=30)
BREAKER_LIMIT = 20
BREAKER_PROBE = dt.timedelta(minutes=5)
FENCE_MARGIN = dt.timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class RigView:
    """A rig with its effective config."""

    id: int
    slug: str
    default_branch: str
    config: Config
    parked: bool = False
    problems: tuple[str, ...] = ()
    outage: OutageView | None = None


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
    stillborn: bool = False  # it failed within seconds, having neither committed nor called a tool
    result: str = ""
    summary: str = ""
    reason: str = ""
    stop_requested: bool = False
    stop_counts: bool = False
    stop_reason: str = ""
    has_steps: bool = False
    ended_at: dt.datetime | None = None

    @property
    def live(self) -> bool:
        """True until the run is ended (and fenced)."""
        return self.state != "ended"


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
    blockers: tuple[Blocker, ...] = ()
    runs: tuple[RunView, ...] = ()

    @property
    def live_run(self) -> RunView | None:
        """Its one live agent run."""
        return next((r for r in self.runs if r.live), None)

    @property
    def last_run(self) -> RunView | None:
        """Its latest run."""
        return self.runs[-1] if self.runs else None

    @property
    def waiting_for(self) -> tuple[Blocker, ...]:
        """Blockers that are not closed. A failed one keeps it blocked, visibly."""
        return tuple(b for b in self.blockers if b.status != BeadStatus.CLOSED)

    @property
    def attempts_used(self) -> int:
        """Attempts that count against the cap: those in which the command itself failed."""
        return sum(1 for r in self.runs if r.outcome == "failed")

    @property
    def published_head(self) -> RunView | None:
        """The latest run whose commits have arrived: where the next attempt starts."""
        return next((r for r in reversed(self.runs) if r.published and r.head_sha), None)


@dataclass(frozen=True, slots=True)
class CandidateView:
    """What a build gave. `untouched`: lists of paths that the change is known to touch nothing of."""

    id: int
    build_no: int
    result: str
    head: str
    base: str = ""
    sha: str = ""
    tree: str = ""
    files: tuple[str, ...] = ()
    error: str = ""
    on: int | None = None
    on_landed: bool = False
    seal: str = ""
    untouched: frozenset[tuple[str, ...]] = frozenset()


@dataclass(frozen=True, slots=True)
class LaneView:
    """What is remembered of a lane. `window`: cars (or batches) at once; None: as configured. `failing`: the share of
    its latest changes that failed their gates; None: unknown."""

    window: int | None = None
    frozen: str = ""
    failing: float | None = None
    forecast: ForecastView | None = None


@dataclass(frozen=True, slots=True)
class CarView:
    """An admitted entry's place in its lane's train; see `refinery.core.trains.couple`.

    `coupling`: `fits` (its candidate stands where it should), `stale` (it must be built anew) or `waits` (for the
    car ahead to be built). `on`, `ahead`: the candidate it should stand on and its entry; None and empty: the target.
    `settled`: nothing ahead of it (or of its batch) can change what it stands on, so it is judged by its results.
    `batch`: the cars that are gated and land as one with it, in order; the last one is gated for all. `seal`: the
    candidate of the first of them, where this one is the last. `first`: nobody of its batch is ahead of it. `member`:
    the last car's candidate is gated `for_all`, with these `results`.
    """

    place: int
    coupling: str
    on: int | None = None
    ahead: str = ""
    settled: bool = True
    batch: tuple[str, ...] = ()
    seal: int | None = None
    first: bool = True
    member: bool = False
    for_all: CandidateView | None = None
    results: tuple[GateView, ...] = ()


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate's latest outcome on a tree, and how often it `fails` there. `telling`: the one line that says why it did
    not pass; `detail`: how it ended, in `run`. `head`: whose tree it was; `alone`: on nothing but the target."""

    gate: str
    command: str
    tree: str
    outcome: str
    detail: str = ""
    id: int = 0
    flaky: bool = False
    head: str = ""
    alone: bool = False
    fails: int = 0
    remedy: str = ""
    exit: int | None = None  # its exit code, or the negative number of the signal that ended it
    files: frozenset[str] = frozenset()  # in which it fails
    telling: str = ""
    run: str = ""

    @property
    def words(self) -> str:
        """Why it did not pass, how it ended in which run, and what mends that where it is known."""
        told = self.telling or self.detail
        ended = "" if self.detail in told else self.detail
        aside = "; ".join(part for part in (ended, f"run {self.run}" if self.run else "") if part)
        return f"{told}{f' ({aside})' if aside else ''}{'; ' + self.remedy if self.remedy else ''}"


@dataclass(frozen=True, slots=True)
class NotNeeded:
    """What stands for a gate's result where the change touches nothing under the gate's `paths`."""

    gate: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """A review of one head."""

    id: int
    decision: str
    head: str
    by: str
    human: bool
    created_at: dt.datetime
    merge_now: bool = False
    pending: bool = False  # a person's request that no agent has been given yet


def person(by: str) -> str:
    """Who somebody is, whichever door they came through: `web:ann` and `cli:ann` are one person."""
    return by.partition(":")[2] or by


@dataclass(frozen=True, slots=True)
class LandingView:
    """The latest landing of a candidate."""

    id: int
    candidate: int
    state: str
    message: str = ""
    push: int = 0
    trouble: str = ""  # what its push has met
    asked_at: dt.datetime | None = None

    @property
    def carrier(self) -> int:
        """The landing whose push carries this one: its own, or that of the last car pushed with it."""
        return self.push or self.id


@dataclass(frozen=True, slots=True)
class EntryView:
    """An active review entry. `candidate` is that of the current build, or None while it is being built."""

    id: str
    rig: int
    branch: str
    head: str
    target: str
    created_at: dt.datetime
    title: str = ""
    status: str = BeadStatus.OPEN
    kind: str = "change"
    convoy: str | None = None
    convoy_age: dt.datetime | None = None
    source: str | None = None
    source_status: str = ""
    source_cancelled: bool = False
    author: str = ""
    priority: int = 2
    admitted_at: dt.datetime | None = None
    slot: float | None = None
    batch: int | None = None
    car: CarView | None = None
    build_no: int = 0
    build_error: str = ""
    build_failing_since: dt.datetime | None = None
    held: str = ""
    held_text: str = ""
    attempts: int = 0
    rework_count: int = 0
    conflict_count: int = 0
    land_retries: int = 0
    reject_requested: str = ""
    observed_head: str = ""
    answered_head: str = ""  # given back by its author without a new commit
    answered_to: int = 0  # the latest verdict then
    answer: str = ""
    candidate: CandidateView | None = None
    built_as: frozenset[str] = frozenset()  # all candidates of its present head
    on_remote: bool = True  # its branch is one of the remote's, not only of the mirror
    contested: tuple[str, ...] = ()  # the files of its latest conflict
    gates: tuple[GateView, ...] = ()
    verdicts: tuple[VerdictView, ...] = ()
    landing: LandingView | None = None
    blockers: tuple[Blocker, ...] = ()
    after: tuple[Blocker, ...] = ()  # what its source (or its convoy) waits for
    reopened_at: dt.datetime | None = None
    ties: Ties = field(default_factory=Ties)
    ground: Ground = field(default_factory=Ground)
    runs: tuple[RunView, ...] = ()

    @property
    def admitted(self) -> bool:
        """True while it is a car of its lane's train."""
        return self.admitted_at is not None

    @property
    def answered(self) -> bool:
        """True when its author was asked to change exactly this head, and committed nothing."""
        return bool(self.answered_head) and self.answered_head == self.head

    @property
    def waiting_for(self) -> tuple[Blocker, ...]:
        """Open rework or conflict tasks."""
        return tuple(b for b in self.blockers if b.status != BeadStatus.CLOSED)

    def live_run(self, kind: str) -> RunView | None:
        """Its live run of a kind."""
        return next((r for r in self.runs if r.live and r.kind == kind), None)

    def runs_of_candidate(self, kind: str) -> tuple[RunView, ...]:
        """All runs of a kind that were started on the current candidate."""
        if self.candidate is None:
            return ()
        shas = {self.candidate.sha, self.candidate.head} - {""}
        return tuple(r for r in self.runs if r.kind == kind and r.start_sha in shas)

    @property
    def triages(self) -> tuple[RunView, ...]:
        """The refinery's looks at the red gates of the current candidate."""
        return tuple(r for r in self.runs_of_candidate("refinery") if r.purpose == "triage")

    @property
    def people(self) -> tuple[VerdictView, ...]:
        """Each person's newest verdict on exactly this head."""
        newest = {person(v.by): v for v in self.verdicts if v.human and v.head == self.head}
        return tuple(newest.values())

    def latest_verdict(self, *, human: bool) -> VerdictView | None:
        """The newest verdict on exactly this head, by a person or by an agent."""
        return next(
            (v for v in reversed(self.verdicts) if v.head == self.head and v.human is human),
            None,
        )


@dataclass(frozen=True, slots=True)
class CheckView:
    """A lane's active check: its target's own head before the gates. It is in no queue and no train.

    `entry`: its row, with the results and runs since it was asked for, at `asked_at`. `latest`: of each gate the latest
    result, also from before.
    """

    entry: EntryView
    asked_at: dt.datetime
    latest: tuple[GateView, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentView:
    """A refinery that serves a convoy and is not retired."""

    id: int
    convoy: str
    convoy_ended: bool
    convoy_reviewed: bool
    busy: bool


@dataclass(frozen=True)
class World:
    """One town at one moment."""

    now: dt.datetime
    town: str
    paused: bool = False
    paused_reason: str = ""
    rigs: Mapping[int, RigView] = field(default_factory=dict)
    beads: tuple[BeadView, ...] = ()
    entries: tuple[EntryView, ...] = ()
    checks: tuple[CheckView, ...] = ()
    known: Mapping[tuple[int, str], KnownCheck] = field(default_factory=dict)  # what is known of a lane's check
    convoys: tuple[ConvoyView, ...] = ()
    runs: tuple[RunView, ...] = ()
    final_beads_with_live_runs: frozenset[str] = frozenset()
    refineries: tuple[AgentView, ...] = ()
    lanes: Mapping[tuple[int, str], LaneView] = field(default_factory=dict)
    refinery_runs: Mapping[tuple[int, str | None], tuple[str, ...]] = field(default_factory=dict)
    failures_in_a_row: int = 0
    last_failure_at: dt.datetime | None = None
    escalated: frozenset[str] = frozenset()
    effects: Mapping[str, EffectView] = field(default_factory=dict)
    behind: bool = False
    no_room: str = ""  # why what writes has to wait
    # by entry; written by `refinery.core.standing.stands` alone, and empty again in a copy
    stood: dict[str, Standing] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def convoy(self) -> dict[str, ConvoyView]:
        """Live convoys by id."""
        return {c.id: c for c in self.convoys}

    @cached_property
    def entry_of_source(self) -> dict[str, EntryView]:
        """Active entries by source bead."""
        return {e.source: e for e in self.entries if e.source}

    @cached_property
    def entry(self) -> dict[str, EntryView]:
        """Active entries by id."""
        return {e.id: e for e in self.entries}

    @cached_property
    def check(self) -> dict[str, CheckView]:
        """Active checks by id."""
        return {c.entry.id: c for c in self.checks}

    @property
    def breaker_open(self) -> bool:
        """True when so many runs in a row failed lately, none succeeding, that dispatch pauses by itself."""
        return self.failures_in_a_row >= BREAKER_LIMIT

    @property
    def probe_due(self) -> bool:
        """True when the open breaker lets one run through, to see whether the cause is gone."""
        quiet = self.last_failure_at is None or self.now >= self.last_failure_at + BREAKER_PROBE
        return self.breaker_open and quiet and not any(r.kind != "gates" for r in self.runs)

    def window(self, rig: int, target: str) -> int:
        """How many cars a lane's train may have now."""
        most = self.rigs[rig].config.refinery.train.window
        lane = self.lanes.get((rig, target))
        check = self.known.get((rig, target))
        if check is not None and check.hopeless:
            return 1  # one at a time tries, for no gate at all can be run on the target
        return most if lane is None or lane.window is None else max(min(lane.window, most), 1)

    def broken(self, rig: int, target: str) -> bool:
        """True when a gate is known not to pass on a lane's target itself."""
        check = self.known.get((rig, target))
        return check is not None and bool(check.broken)

    def frozen(self, rig: int, target: str) -> str:
        """Why nothing lands in a lane now, or an empty string."""
        lane = self.lanes.get((rig, target))
        return lane.frozen if lane else ""

    def stopped(self, rig: RigView) -> str:
        """Why nothing is begun in a rig now: the town is paused, or the rig is parked. Or an empty string."""
        if self.paused:
            return f"town {self.town} is paused: {self.paused_reason or 'no reason given'}"
        return f"rig {rig.slug} is parked" if rig.parked else ""

    def tip(self, rig: int, target: str) -> str:
        """The commit at which a lane's target was last seen; empty when it is not followed."""
        lane = self.lanes.get((rig, target))
        return lane.forecast.tip if lane and lane.forecast else ""

    def unanswered(self, key: str) -> bool:
        """True when outside work that was asked for is not under way and its answer is not here: it was lost.

        While facts wait to be drained, nothing is known to be lost.
        """
        found = self.effects.get(key)
        return not self.behind and (found is None or found.state != "pending")

    def target_of(self, bead: BeadView) -> str:
        """The branch a bead's change is for."""
        convoy = self.convoy.get(bead.convoy or "")
        branch = convoy.branch_in(bead.rig) if convoy and convoy.lands_once else None
        return branch.name if branch else self.rigs[bead.rig].default_branch
