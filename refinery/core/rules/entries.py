"""Rules for review entries, from admission to landing: one `match` over the entry's stage. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from agents.lifecycle import RunOutcome
from beads.lifecycle import BeadStatus
from beads.values import format_duration, moment
from refinery.core.actions import (
    AbandonLanding,
    Action,
    CloseEntry,
    Decision,
    Hold,
    Land,
    Landable,
    Leave,
    NewHead,
    OpenCheck,
    OpenConflict,
    Place,
    Prove,
    PushAgain,
    Rebuild,
    Regroup,
    SetWindow,
    StartRun,
)
from refinery.core.approvals import objection
from refinery.core.beadviews import RunView
from refinery.core.budgets import waits
from refinery.core.entryviews import CandidateView, CarView, EntryView, NotNeeded
from refinery.core.gating import judged, needed, results_on
from refinery.core.keys import build_key, land_key
from refinery.core.order import by_lane, in_queue_order, is_feature_lane
from refinery.core.readiness import host_faults, same_set_up_error, start_again_at, stays
from refinery.core.rules.rework import after_triage, gates_failed, nothing_committed, rework
from refinery.core.stacks import refused, uncompared
from refinery.core.stages import CONFLICT_LIMIT, GATES_TRIES, Stage
from refinery.core.standing import is_judged, proving, stands
from refinery.core.states import BuildResult, EntryKind, GateOutcome, LandingState
from refinery.core.trains import gating_room, groups, landing_cars, new_batches
from refinery.core.world import RigView, World

Told = tuple[str, str, tuple[Action, ...]]
BUILD_PATIENCE = dt.timedelta(minutes=10)  # for what fails here and there, and not by an outage that all have


def decide(world: World) -> Iterator[Decision]:
    """One decision for each active entry (admission is the lanes' matter), trains from the front."""
    refineries = _Refineries(world)
    # of lanes that share a refinery, the one with the fewest runs of it is served first
    for key, entries in sorted(by_lane(world.entries).items(), key=lambda lane: _live_reviews(lane[1])):
        entries = in_queue_order(entries)
        lane = _Lane(world, world.rigs[key[0]], key[1], entries, refineries)
        for entry in entries:
            rule, why, actions = _one(world, entry, lane)
            yield Decision(f"entry {entry.id}", rule, why, actions)


def _live_reviews(entries: list[EntryView]) -> int:
    return sum(1 for e in entries if e.live_run("refinery"))


class _Refineries:
    """What refineries are at, and what this tick starts: one has at most `refinery.max_reviews` live runs, whatever
    they are for. A convoy's own serves its lane; the rig's serves all other lanes."""

    def __init__(self, world: World) -> None:
        self._budgets = world.budgets
        self._runs = {key: list(runs) for key, runs in world.refinery_runs.items()}

    def busy(self, entry: EntryView, rig: RigView) -> str:
        """Why the refinery that serves this entry can begin nothing now, or an empty string."""
        if cap := self._budgets.held(entry.account):
            return waits(cap)
        at, most = self._at(entry), rig.config.refinery.max_reviews
        return "" if len(at) < most else f"its refinery is at {', '.join(at)}: refinery.max_reviews is {most}"

    def start(self, entry: EntryView, rig: RigView, purpose: str, sha: str) -> StartRun:
        """A run of the refinery that serves this entry."""
        self._at(entry).append(f"the {purpose} of {entry.id}")
        return StartRun(entry.id, "refinery", purpose, sha, at_most=rig.config.refinery.max_reviews)

    def _at(self, entry: EntryView) -> list[str]:
        return self._runs.setdefault((entry.rig, entry.convoy if is_feature_lane(entry) else None), [])


class _Lane:
    """What one tick's decisions in a lane share: who lands together, who is reviewed, the window as it changes."""

    def __init__(
        self, world: World, rig: RigView, target: str, entries: list[EntryView], refineries: _Refineries
    ) -> None:
        self.world, self.rig, self.target, self.refineries = world, rig, target, refineries
        self.landing = landing_cars(entries, rig, world.now, lambda e: uncompared(world, e))
        self._slot = max((e.slot or 0.0 for e in entries), default=0.0)
        self._batches = new_batches(entries, odd=True)
        self.frozen = world.frozen(rig.id, target)
        self.window = world.window(rig.id, target)
        train = groups(e for e in entries if e.admitted)
        self.ahead = {e.id for group in train[gating_room(train, rig, world.now, self.window) :] for e in group}
        self.checked = (rig.id, target) in world.known  # there is a check of its target, or one is opened
        self.trying = any(e.live_run("gates") for e in entries)

    def widen(self) -> tuple[Action, ...]:
        """A car has landed: the window grows by one."""
        return self._set(min(self.window + 1, self.rig.config.refinery.train.window))

    def narrow(self) -> tuple[Action, ...]:
        """A car has failed: the window halves."""
        return self._set(max(self.window // 2, 1))

    def next_slot(self) -> float:
        """A place behind all others, and ahead of who is admitted in the same tick: they get the next whole ones."""
        self._slot += 1 / 1024
        return self._slot

    def next_batch(self) -> int:
        """A number that no batch of the train has."""
        return next(self._batches)

    def _set(self, size: int) -> tuple[Action, ...]:
        if size == self.window:
            return ()
        self.window = size
        return (SetWindow(self.rig.id, self.target, size),)


def _one(world: World, entry: EntryView, lane: _Lane) -> Told:
    rig = lane.rig
    where = stands(world, entry)
    stage, why = where.stage, where.why
    candidate, asked = entry.candidate, objection(entry)
    if stage == Stage.LANDED and candidate is not None:
        return "landed", why, (_merged(entry, candidate.sha, f"landed on {entry.target}"), *lane.widen())
    withdrawn = _withdrawn(entry) or refused(entry)
    if withdrawn and not (entry.landing and entry.landing.state == LandingState.PUSHING):
        abandon: tuple[Action, ...] = ()
        if entry.landing and entry.landing.state == LandingState.INTENT:
            abandon = (AbandonLanding(entry.landing.id),)
        code, text = withdrawn
        return code, text, (*abandon, CloseEntry(entry.id, "failed", code, text))
    if any(b.status == BeadStatus.FAILED for b in entry.waiting_for):
        failed = [b for b in entry.waiting_for if b.status == BeadStatus.FAILED]
        text = "; ".join(f"{b.purpose} {b.id} failed{': ' + b.reason if b.reason else ''}" for b in failed)
        return "rework-failed", text, (CloseEntry(entry.id, "failed", "rework_failed", text),)
    if entry.observed_head not in ("", entry.head) and not entry.waiting_for and stage != Stage.LANDING:
        moved = NewHead(entry.id, entry.head, entry.observed_head, entry.branch, "the branch has a newer head")
        return "head-moved", "the branch has a newer head", (moved,)
    if stage == Stage.LANDING and asked is not None and entry.landing and entry.landing.state == LandingState.INTENT:
        rule, text, actions = rework(entry, rig, "review", f"{asked.by} asked for changes")
        return rule, text, (AbandonLanding(entry.landing.id), *actions)
    if stage == Stage.CHANGES_REQUESTED:
        return rework(entry, rig, "review", why)
    if stage in (Stage.TRIAGE, Stage.GATE_FAILED) and (after := after_triage(entry, rig, world.now)):
        return after
    if stage == Stage.BEHIND or (stage == Stage.BLOCKED and not entry.waiting_for):
        return str(stage), why, (Leave(entry.id, innocent=True),) if entry.admitted else ()
    if stage in (Stage.BLOCKED, Stage.HELD, Stage.NO_REVIEWER, Stage.NEEDS_APPROVAL, Stage.MERGE_DELAY):
        return str(stage), why, (Leave(entry.id),) if entry.admitted else ()
    if stage in (Stage.CHECKING, Stage.EXCUSED):
        return _waits_for_check(entry, lane, stage, why)
    alone = not entry.admitted and proving(entry, rig, world.now)
    if not entry.admitted and not alone and not is_judged(entry, stage):
        told = why if stage == Stage.UNBUILT else f"waits for its turn; {why}"
        return "queued", lane.frozen or world.stopped(rig) or told, ()
    if not entry.admitted and (stopped := world.stopped(rig)):
        return "queued", f"its gates wait: {stopped}", ()
    return _admitted(world, entry, lane, stage, why)


def _waits_for_check(entry: EntryView, lane: _Lane, stage: Stage, why: str) -> Told:
    """It waits outside of the train, where it is in nobody's way, for a check of the target; the first asks for it."""
    actions: list[Action] = [Leave(entry.id, innocent=True)] if entry.admitted else []
    if stage == Stage.CHECKING and not lane.checked:
        lane.checked = True
        actions.append(OpenCheck(lane.rig.id, lane.target))
    elif stage == Stage.EXCUSED and entry.admitted:
        actions += lane.narrow()
    return str(stage), why, tuple(actions)


def _withdrawn(entry: EntryView) -> tuple[str, str] | None:
    """The exit reason when a person or the source bead took the change back."""
    if entry.reject_requested:
        return "rejected", entry.reject_requested
    if entry.source_cancelled:
        return "cancelled", "its bead was cancelled"
    if entry.source_status in (BeadStatus.CLOSED, BeadStatus.FAILED):
        return "cancelled", f"its bead is {entry.source_status}"
    return None


def _merged(entry: EntryView, sha: str, text: str, reason: str = "merged") -> CloseEntry:
    return CloseEntry(entry.id, "merged", reason, text, sha, delete_branch=True)


def _admitted(world: World, entry: EntryView, lane: _Lane, stage: Stage, why: str) -> Told:
    """A car of its lane's train, or an entry that is gated by itself: take the next step."""
    rig = lane.rig
    config = rig.config.refinery
    candidate = entry.candidate
    on, seal = (entry.car.on, entry.car.seal) if entry.car else (None, None)
    if stage in (Stage.UNPROVEN, Stage.BUILDING) and _hopeless(world, entry, rig):
        text = f"it could not be built for {format_duration(BUILD_PATIENCE)}: {entry.build_error}"
        return "build-hopeless", text, (Hold(entry.id, "build_error", text),)
    if stage == Stage.UNPROVEN:
        if candidate is None and not world.unanswered(build_key(entry.id, entry.build_no)):
            return "build", "is being built, to be gated by itself", ()
        return "prove", why, (Prove(entry.id, entry.build_no),)
    if stage == Stage.LANDING and entry.landing is not None and world.unanswered(land_key(entry.landing.carrier)):
        text = "the push was not answered: the remote is asked again"
        return "push-again", text, (PushAgain(entry.landing.id),) if not entry.landing.push else ()
    if stage == Stage.BUILDING and world.unanswered(build_key(entry.id, entry.build_no)):
        return "build", why, (Rebuild(entry.id, entry.build_no, counts=False, on=on, seal=seal),)
    if candidate is None or stage in (Stage.BUILDING, Stage.LANDING):
        return str(stage), why, ()
    if entry.car is not None and (cut := _of_a_batch(entry, entry.car, lane, stage, why)):
        return cut
    match stage:
        case Stage.STALE if not entry.admitted:
            return "prove", why, (Prove(entry.id, entry.build_no),)
        case Stage.UNBUILT | Stage.STALE:
            return "rebuild", why, (Rebuild(entry.id, entry.build_no, counts=False, on=on, seal=seal),)
        case Stage.NOTHING if entry.kind == EntryKind.LANDING:
            text = "landing changes nothing: no commit of its beads is missing on the target"
            return "landing-empty", text, (CloseEntry(entry.id, "failed", "nothing_to_land", text),)
        case Stage.NOTHING if candidate.result == BuildResult.UNCHANGED:
            return "nothing-changed", why, (CloseEntry(entry.id, "failed", "nothing_changed", why),)
        case Stage.NOTHING:
            sha = entry.head if candidate.result == BuildResult.ALREADY_MERGED else candidate.base
            return "already-merged", why, (_merged(entry, sha, why, "already_merged"),)
        case Stage.UNFIT:
            return "unfit", why, (CloseEntry(entry.id, "failed", "unfit", why),)
        case Stage.BUILD_ERROR:
            return "build-error", why, (Hold(entry.id, "build_error", why),)
        case Stage.CONFLICT:
            return _conflict(world, entry, lane, why)
        case Stage.NEEDS_GATES if entry.id in lane.ahead:
            return "built-ahead", f"{why}; {lane.window} cars are gated before it", ()
        case Stage.NEEDS_GATES:
            check = entry.ground.check
            if check is not None and check.hopeless and lane.trying:
                return "one-tries", f"{why}; one at a time tries: see check {check.id}", ()
            lane.trying = True
            return run_gates(world, entry, why)
        case Stage.GATE_ERROR:
            return "gate-error", why, (Hold(entry.id, "gate_error", why),)
        case Stage.GATE_FAILED:
            look = None if lane.refineries.busy(entry, rig) else lane.refineries.start
            rule, told, actions = gates_failed(entry, rig, why, look)
            return rule, told, (*actions, *(() if proving(entry, rig, world.now) else lane.narrow()))
        case Stage.NEEDS_REVIEW:
            return _review(world, entry, lane, why)
        case Stage.GREEN:
            return _land(entry, lane, why)
        case Stage.TARGET_MOVED if entry.land_retries >= config.push_retries:
            text = f"the target moved {entry.land_retries} times while landing: {why}"
            return "push-retries", text, (Hold(entry.id, "push_retries", text),)
        case Stage.TARGET_MOVED | Stage.HEAD_MOVED:
            first = entry.car is None or entry.car.place == 1
            return "rebuild", why, (Rebuild(entry.id, entry.build_no, counts=first, on=on, seal=seal),)
        case Stage.PUSH_REFUSED:
            return "push-refused", why, (Hold(entry.id, "push_refused", why),)
        case _:
            return str(stage), why, ()


def _hopeless(world: World, entry: EntryView, rig: RigView) -> bool:
    """True for a build that has failed for long while others' work: nobody waits behind it any longer."""
    since = entry.build_failing_since
    return since is not None and rig.outage is None and not world.no_room and world.now - since >= BUILD_PATIENCE


def _of_a_batch(entry: EntryView, car: CarView, lane: _Lane, stage: Stage, why: str) -> Told | None:
    """A batch that failed is cut in half: the first half is gated again where it is, the second goes to the end of the
    train, so that nobody behind it is built anew at each cut. A car that does not stand with the others goes there too,
    at once, be it built anew for whatever reason: who is the last, and seals the batch, would change to and fro.
    None when it is judged like any other."""
    if entry.batch is None:
        return None
    if stage in (Stage.GATE_FAILED, Stage.GATE_ERROR, Stage.PUSH_REFUSED) and car.batch:
        half = (len(car.batch) + 1) // 2
        stays, goes = lane.next_batch(), lane.next_batch()
        text = f"batch of {len(car.batch)} cut in half: {why}"
        first = tuple(Place(name, stays) for name in car.batch[:half])
        rest = tuple(Place(name, goes, lane.next_slot()) for name in car.batch[half:])
        return "cut-batch", text, (Regroup(entry.batch, (*first, *rest), text),)
    candidate = entry.candidate
    current = candidate if candidate is not None and candidate.head == entry.head else None
    if current is not None and current.result != BuildResult.BUILT and not car.first:
        text = f"falls out of its batch: {current.result}; {why}"
        return (
            "leave-batch",
            text,
            (Regroup(entry.batch, (Place(entry.id, lane.next_batch(), lane.next_slot()),), text),),
        )
    return None


def _land(entry: EntryView, lane: _Lane, why: str) -> Told:
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
    return Landable(entry.id, candidate.id, passed, entry.ties.waiver if len(passed) < len(found) else 0)


def evidence(entry: EntryView, candidate: CandidateView, rig: RigView) -> tuple[int | NotNeeded, ...]:
    """What lets a candidate land: the latest result of each gate on its tree, or on that of its batch, or why there
    needs to be none."""
    gates = rig.config.refinery.landing_gates
    found = entry.gates
    if entry.car is not None and entry.car.for_all is not None and judged(entry, candidate, gates, found, rig):
        candidate, found = entry.car.for_all, entry.car.results
    latest = results_on(candidate, found)
    return tuple(latest[g.name, g.command].id if needed(g, candidate) else NotNeeded(g.name, g.paths) for g in gates)


def run_gates(world: World, entry: EntryView, why: str, brief: str = "gates") -> Told:
    """Start an entry's gates, or say what they wait for."""
    if entry.live_run("gates"):
        return "gates-stopping", "the gates of an older candidate are being stopped", ()
    if told := _not_started(world, entry, entry.runs_of_candidate("gates"), why, "gates"):
        return told
    assert entry.candidate is not None
    return "run-gates", why, (StartRun(entry.id, "gates", brief, entry.candidate.sha),)


def _not_started(world: World, entry: EntryView, runs: Sequence[RunView], why: str, what: str) -> Told | None:
    """Why no run of the gates, or of a review (`what`), is started now after these; None when one is."""
    if world.no_room:
        return "no-room", f"{why}; {world.no_room}", ()
    they, held = ("they", "gate_error") if what == "gates" else ("it", "review_gave_up")
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


def _review(world: World, entry: EntryView, lane: _Lane, why: str) -> Told:
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


def _conflict(world: World, entry: EntryView, lane: _Lane, why: str) -> Told:
    config = lane.rig.config
    candidate = entry.candidate
    assert candidate is not None
    if entry.ties.yields:
        return "conflict-waits", entry.ties.yields, (Leave(entry.id, innocent=True),) if entry.admitted else ()
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


def _resolve(entry: EntryView, lane: _Lane, why: str) -> Told:
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
