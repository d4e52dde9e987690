"""What the rules see of review entries: candidates, gates, verdicts, landings, places in a train. Pure; part of
`refinery.core.world`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from beads.lifecycle import BeadStatus
from refinery.core.beadviews import Blocker, RunView
from refinery.core.relations import ForecastView, Ground, Ties
from refinery.core.states import EntryKind, GateOutcome, LandingState
from refinery.core.telling import led_by


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


NOT_BUILT = CandidateView(0, 0, "", "")


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
    def verb(self) -> str:
        """What one says of it where it does not pass: it fails, or cannot be run."""
        if self.outcome == GateOutcome.ERROR:
            return "cannot be run"
        return "fails"

    @property
    def words(self) -> str:
        """Why it did not pass, how it ended in which run, and what mends that where it is known."""
        told = self.telling or self.detail
        aside = [part for part in (self.detail,) if part not in told]
        if self.run:
            aside.append(f"run {self.run}")
        if aside:
            told += f" ({'; '.join(aside)})"
        return told + led_by("; ", self.remedy)


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


HOST = "github"  # the channel of an account of the host that is nobody's here: `github:ann` is not ann
PERSON_THERE = "pr"  # the channel of a person of ours who speaks there


def person(by: str) -> str:
    """Who somebody is, whichever door they came through: `web:ann` and `cli:ann` are one person."""
    channel, _, name = by.partition(":")
    if channel == HOST:
        return by
    return name or by


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

    @property
    def under_way(self) -> bool:
        """True from its intent on until git has answered otherwise."""
        return self.state == LandingState.INTENT or self.begun

    @property
    def begun(self) -> bool:
        """True when it may be on the target: it is being pushed, or has landed."""
        return self.state in (LandingState.PUSHING, LandingState.LANDED)


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
    kind: str = EntryKind.CHANGE
    convoy: str | None = None
    onto_convoy: bool = False  # its target is the branch of its own convoy
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
    question: str = ""  # what its refinery asks of people, and waits for

    @property
    def account(self) -> str:
        """The bead whose money is spent on it; of a convoy's landing, the convoy."""
        return self.source or self.convoy or self.id

    @property
    def admitted(self) -> bool:
        """True while it is a car of its lane's train."""
        return self.admitted_at is not None

    @property
    def built(self) -> CandidateView:
        """Its candidate; one without a commit and a tree while there is none."""
        return self.candidate or NOT_BUILT

    @property
    def candidate_id(self) -> int | None:
        """Its candidate's id; None while there is none."""
        if self.candidate is None:
            return None
        return self.candidate.id

    @property
    def commits(self) -> frozenset[str]:
        """The commits that runs for its candidate begin with: the candidate's, and its head."""
        return frozenset({self.built.sha, self.built.head} - {""})

    @property
    def present_candidate(self) -> CandidateView | None:
        """Its candidate, if that is of its present head."""
        if self.built.head != self.head:
            return None
        return self.candidate

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
        commits = self.commits
        return tuple(r for r in self.runs if r.kind == kind and r.start_sha in commits)

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
