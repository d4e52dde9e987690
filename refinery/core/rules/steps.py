"""The next step of a car of its lane's train, or of an entry gated by itself: built, gated, reviewed, landed. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from agents.lifecycle import RunOutcome
from beads.values import format_duration, moment
from refinery.core.actions import (
    CloseEntry,
    Hold,
    Land,
    Landable,
    NewHead,
    OpenConflict,
    Place,
    Prove,
    PushAgain,
    Rebuild,
    Regroup,
    Ruling,
    StartRun,
)
from refinery.core.beadviews import RunView
from refinery.core.entryviews import CandidateView, EntryView, NotNeeded
from refinery.core.gating import judged, needed, results_on
from refinery.core.keys import build_key, land_key
from refinery.core.readiness import host_faults, same_set_up_error, start_again_at, stays
from refinery.core.rules.lanestate import Lane
from refinery.core.rules.rework import gates_failed, leave, nothing_committed
from refinery.core.stacks import uncompared
from refinery.core.stages import CONFLICT_LIMIT, GATES_TRIES, Stage
from refinery.core.standing import proving
from refinery.core.states import BuildResult, EntryKind, GateOutcome
from refinery.core.world import RigView, World

BUILD_PATIENCE = dt.timedelta(minutes=10)  # for what fails here and there, and not by an outage that all have
_CUTS = (Stage.GATE_FAILED, Stage.GATE_ERROR, Stage.PUSH_REFUSED)  # a batch of several in half


@dataclass(frozen=True, slots=True)
class Step:
    """An entry at a stage, whose next step is looked for."""

    world: World
    entry: EntryView
    lane: Lane
    stage: Stage
    why: str

    def ruling(self) -> Ruling:
        """What is done next, if anything."""
        candidate = self.entry.candidate
        if (built := self._being_built()) is not None:
            return built
        if candidate is None or self.stage in (Stage.BUILDING, Stage.LANDING):
            return str(self.stage), self.why, ()
        found = self._of_a_batch() or self._by_candidate(candidate) or self._by_gates() or self._by_push()
        return found or (str(self.stage), self.why, ())

    def _being_built(self) -> Ruling | None:
        """What outside work it waits for, and what becomes of work that was not answered."""
        world, entry, stage = self.world, self.entry, self.stage
        unanswered = world.unanswered(build_key(entry.id, entry.build_no))
        if stage in (Stage.UNPROVEN, Stage.BUILDING) and self._hopeless():
            text = f"it could not be built for {format_duration(BUILD_PATIENCE)}: {entry.build_error}"
            return "build-hopeless", text, (Hold(entry.id, "build_error", text),)
        if stage == Stage.UNPROVEN and entry.candidate is None and not unanswered:
            return "build", "is being built, to be gated by itself", ()
        if stage == Stage.UNPROVEN:
            return "prove", self.why, (Prove(entry.id, entry.build_no),)
        if stage == Stage.BUILDING and unanswered:
            return "build", self.why, (self._rebuild(counts=False),)
        if stage == Stage.LANDING and entry.landing is not None and world.unanswered(land_key(entry.landing.carrier)):
            text = "the push was not answered: the remote is asked again"
            if entry.landing.push:  # another one's push carries it, and is asked about there
                return "push-again", text, ()
            return "push-again", text, (PushAgain(entry.landing.id),)
        return None

    def _hopeless(self) -> bool:
        """True for a build that has failed for long while others' work: nobody waits behind it any longer."""
        since, world = self.entry.build_failing_since, self.world
        if since is None or self.lane.rig.outage is not None or world.no_room:
            return False
        return world.now - since >= BUILD_PATIENCE

    def _rebuild(self, *, counts: bool) -> Rebuild:
        """Build it again where it stands in the train. `counts`: it is one of its tries to land."""
        entry, car = self.entry, self.entry.car
        if car is None:
            return Rebuild(entry.id, entry.build_no, counts=counts)
        return Rebuild(entry.id, entry.build_no, counts=counts, on=car.on, seal=car.seal)

    def _of_a_batch(self) -> Ruling | None:
        """A batch that failed is cut in half: the first half is gated again where it is, the second goes to the end of
        the train, so that nobody behind it is built anew at each cut. A car that does not stand with the others goes
        there too, at once, even while it is being rebuilt: who is the last, and seals the batch, would change to and
        fro. None when it is judged like any other."""
        entry, car, lane = self.entry, self.entry.car, self.lane
        if entry.batch is None or car is None:
            return None
        if self.stage in _CUTS and car.batch:
            half = (len(car.batch) + 1) // 2
            stays, goes = lane.next_batch(), lane.next_batch()
            text = f"batch of {len(car.batch)} cut in half: {self.why}"
            first = tuple(Place(name, stays) for name in car.batch[:half])
            rest = tuple(Place(name, goes, lane.next_slot()) for name in car.batch[half:])
            return "cut-batch", text, (Regroup(entry.batch, (*first, *rest), text),)
        current = entry.candidate
        if current is None or current.head != entry.head:
            return None
        if current.result != BuildResult.BUILT and not car.first:
            text = f"falls out of its batch: {current.result}; {self.why}"
            alone = (Place(entry.id, lane.next_batch(), lane.next_slot()),)
            return "leave-batch", text, (Regroup(entry.batch, alone, text),)
        return None

    def _by_candidate(self, candidate: CandidateView) -> Ruling | None:
        """What its build gave, or that it is built of what is past."""
        entry, why = self.entry, self.why
        match self.stage:
            case Stage.STALE if not entry.admitted:
                return "prove", why, (Prove(entry.id, entry.build_no),)
            case Stage.UNBUILT | Stage.STALE:
                return "rebuild", why, (self._rebuild(counts=False),)
            case Stage.NOTHING if entry.kind == EntryKind.LANDING:
                text = "landing changes nothing: no commit of its beads is missing on the target"
                return "landing-empty", text, (CloseEntry(entry.id, "failed", "nothing_to_land", text),)
            case Stage.NOTHING if candidate.result == BuildResult.UNCHANGED:
                return "nothing-changed", why, (CloseEntry(entry.id, "failed", "nothing_changed", why),)
            case Stage.NOTHING if candidate.result == BuildResult.ALREADY_MERGED:
                return "already-merged", why, (merged(entry, entry.head, why, "already_merged"),)
            case Stage.NOTHING:
                return "already-merged", why, (merged(entry, candidate.base, why, "already_merged"),)
            case Stage.UNFIT:
                return "unfit", why, (CloseEntry(entry.id, "failed", "unfit", why),)
            case Stage.BUILD_ERROR:
                return "build-error", why, (Hold(entry.id, "build_error", why),)
            case Stage.CONFLICT:
                return _conflict(self.world, entry, self.lane, why)
        return None

    def _by_gates(self) -> Ruling | None:
        """The ruling that follows from gates and review; None where they call for none."""
        entry, lane, why = self.entry, self.lane, self.why
        match self.stage:
            case Stage.NEEDS_GATES if entry.id in lane.ahead:
                return "built-ahead", f"{why}; {lane.window} cars are gated before it", ()
            case Stage.NEEDS_GATES:
                check = entry.ground.check
                if check is not None and check.hopeless and lane.trying:
                    return "one-tries", f"{why}; one at a time tries: see check {check.id}", ()
                lane.trying = True
                return run_gates(self.world, entry, why)
            case Stage.GATE_ERROR:
                return "gate-error", why, (Hold(entry.id, "gate_error", why),)
            case Stage.GATE_FAILED:
                look = lane.refineries.starter(entry, lane.rig)
                rule, told, actions = gates_failed(entry, lane.rig, why, look)
                if not proving(entry, lane.rig, self.world.now):
                    actions = (*actions, *lane.narrow())
                return rule, told, actions
            case Stage.NEEDS_REVIEW:
                return _review(self.world, entry, lane, why)
        return None

    def _by_push(self) -> Ruling | None:
        """Green, or pushed without success."""
        entry, why = self.entry, self.why
        match self.stage:
            case Stage.GREEN:
                return _land(entry, self.lane, why)
            case Stage.TARGET_MOVED if entry.land_retries >= self.lane.rig.config.refinery.push_retries:
                text = f"the target moved {entry.land_retries} times while landing: {why}"
                return "push-retries", text, (Hold(entry.id, "push_retries", text),)
            case Stage.TARGET_MOVED | Stage.HEAD_MOVED:
                first = entry.car is None or entry.car.place == 1
                return "rebuild", why, (self._rebuild(counts=first),)
            case Stage.PUSH_REFUSED:
                return "push-refused", why, (Hold(entry.id, "push_refused", why),)
        return None


def merged(entry: EntryView, sha: str, text: str, reason: str = "merged") -> CloseEntry:
    """It ends as one whose change is on the target."""
    return CloseEntry(entry.id, "merged", reason, text, sha, delete_branch=True)


def _land(entry: EntryView, lane: Lane, why: str) -> Ruling:
    """The green cars at the front of the train land with one push; the first one's decision carries it."""
    if lane.frozen:
        return "frozen", f"{why}; {lane.frozen}", ()
    cars = lane.landing
    if entry not in cars and uncompared(lane.world, entry):
        return "uncompared", f"{why}; git is asked whether it stands on another entry", ()
    if entry not in cars:
        return "behind", f"{why}; lands after the cars ahead", ()
    if entry is not cars[0]:
        return "lands-with", f"{why}; lands with {cars[0].id}", ()
    landable = tuple(_landable(c, c.candidate, lane.rig) for c in cars if c.candidate is not None)
    return "land", why, (Land(landable),)


def _landable(entry: EntryView, candidate: CandidateView, rig: RigView) -> Landable:
    """A waiver is named only where the gates themselves have not all passed."""
    if not entry.ties.waived:
        return Landable(entry.id, candidate.id, evidence(entry, candidate, rig))
    latest = results_on(candidate, entry.gates)
    wanted = [g for g in rig.config.refinery.landing_gates if needed(g, candidate)]
    found = [latest.get((g.name, g.command)) for g in wanted]
    passed = tuple(g.id for g in found if g is not None and g.outcome == GateOutcome.PASS)
    if len(passed) == len(found):
        return Landable(entry.id, candidate.id, passed)
    return Landable(entry.id, candidate.id, passed, entry.ties.waiver)


def evidence(entry: EntryView, candidate: CandidateView, rig: RigView) -> tuple[int | NotNeeded, ...]:
    """What lets a candidate land: the latest result of each gate on its tree, or on that of its batch, or why there
    needs to be none."""
    gates = rig.config.refinery.landing_gates
    found = entry.gates
    if entry.car is not None and entry.car.for_all is not None and judged(entry, candidate, gates, found, rig):
        candidate, found = entry.car.for_all, entry.car.results
    latest = results_on(candidate, found)
    told: list[int | NotNeeded] = []
    for gate in gates:
        if needed(gate, candidate):
            told.append(latest[gate.name, gate.command].id)
        else:
            told.append(NotNeeded(gate.name, gate.paths))
    return tuple(told)


def run_gates(world: World, entry: EntryView, why: str, brief: str = "gates") -> Ruling:
    """Start an entry's gates, or say what they wait for."""
    if entry.live_run("gates"):
        return "gates-stopping", "the gates of an older candidate are being stopped", ()
    if told := _not_started(world, entry, entry.runs_of_candidate("gates"), why, "gates"):
        return told
    assert entry.candidate is not None
    return "run-gates", why, (StartRun(entry.id, "gates", brief, entry.candidate.sha),)


def _not_started(world: World, entry: EntryView, runs: Sequence[RunView], why: str, what: str) -> Ruling | None:
    """Why no run of the gates, or of a review (`what`), is started now after these; None when one is."""
    if world.no_room:
        return "no-room", f"{why}; {world.no_room}", ()
    they, held = {"gates": ("they", "gate_error"), "review": ("it", "review_gave_up")}[what]
    faults = host_faults(runs)
    text = ""
    if runs and stays(runs[-1]):
        text = f"the {what} cannot be started: {runs[-1].reason}"
    elif faults >= GATES_TRIES:
        text = f"the {what} could not be started {GATES_TRIES} times: {runs[-1].reason}"
    if text:
        return f"{what}-broken", text, (Hold(entry.id, held, text),)
    if world.now < (due := start_again_at(runs, world.rigs[entry.rig].config)):
        return f"{what}-backoff", f"{why}; {they} could not be started, tried again at {moment(due, world.now)}", ()
    return None


def _review(world: World, entry: EntryView, lane: Lane, why: str) -> Ruling:
    rig = lane.rig
    if wait := lane.refineries.busy(entry, rig):
        return "refinery-busy", wait, ()
    assert entry.candidate is not None
    runs = [r for r in entry.runs_of_candidate("refinery") if not r.live and r.purpose != "triage"]
    failed = [r for r in runs if r.outcome == RunOutcome.FAILED]
    if same_set_up_error(runs):
        text = f"the refinery met the same set-up error twice (agents.refinery): {failed[-1].reason}; run {runs[-1].id}"
        return "review-gave-up", text, (Hold(entry.id, "review_gave_up", text),)
    if len(failed) >= rig.config.dispatch.max_attempts:
        last = f"{failed[-1].reason}; run {failed[-1].id}"
        text = f"the refinery ended {len(failed)} times without a verdict; the last: {last}"
        return "review-gave-up", text, (Hold(entry.id, "review_gave_up", text),)
    if failed and runs[-1] is failed[-1] and failed[-1].ended_at is not None:
        due = failed[-1].ended_at + rig.config.dispatch.backoff_for(len(failed))
        if world.now < due:
            return "review-backoff", f"the next review starts at {due:%H:%M:%S} UTC", ()
    if told := _not_started(world, entry, runs, why, "review"):
        return told
    return "review", why, (lane.refineries.start(entry, rig, "review", entry.candidate.sha),)


def _conflict(world: World, entry: EntryView, lane: Lane, why: str) -> Ruling:
    config = lane.rig.config
    candidate = entry.candidate
    assert candidate is not None
    if entry.ties.held_back_by:
        return "conflict-waits", entry.ties.held_back_by, leave(entry, innocent=True)
    if not entry.admitted and world.tip(entry.rig, entry.target) not in ("", candidate.base):
        return "prove", f"built again, for the target has moved; it {why}", (Prove(entry.id, entry.build_no),)
    if entry.answered:
        text = nothing_committed(why, entry.answer)
        return "nothing-committed", text, (Hold(entry.id, "nothing_committed", text),)
    if entry.conflict_count >= CONFLICT_LIMIT:
        text = f"conflicted {CONFLICT_LIMIT} times: {why}"
        return "conflict-limit", text, (Hold(entry.id, "conflict", text),)
    if not config.refinery.require_clean_merge and config.agents.refinery is not None:
        return _resolve(entry, lane, why)
    if config.agents.polecat is None:
        return "conflict-no-polecat", why, (CloseEntry(entry.id, "failed", "conflict", why),)
    return "conflict", why, (OpenConflict(entry.id, candidate.id, candidate.files),)


def _resolve(entry: EntryView, lane: Lane, why: str) -> Ruling:
    """The refinery agent resolves the conflict in its worktree; its result is a new head."""
    candidate = entry.candidate
    assert candidate is not None
    if entry.live_run("refinery"):
        return "resolving", "the refinery is resolving the conflict", ()
    done = [
        r
        for r in entry.runs_of_candidate("refinery")
        if r.purpose == "resolve" and r.outcome == RunOutcome.DONE and r.published and r.head_sha
    ]
    if done and done[-1].head_sha != entry.head:
        run = done[-1]
        return (
            "resolved",
            "the refinery resolved the conflict",
            (
                NewHead(
                    entry.id, entry.head, run.head_sha, run.branch, "conflict resolved by the refinery", run.on_remote
                ),
            ),
        )
    if wait := lane.refineries.busy(entry, lane.rig):
        return "refinery-busy", wait, ()
    ended = [r for r in entry.runs_of_candidate("refinery") if r.purpose == "resolve"]
    if len(ended) >= lane.rig.config.dispatch.max_attempts or same_set_up_error(ended):
        return "resolve-gave-up", why, (OpenConflict(entry.id, candidate.id, candidate.files),)
    return "resolve", why, (lane.refineries.start(entry, lane.rig, "resolve", entry.head),)
