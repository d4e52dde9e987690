"""Where an active entry stands, from what is stored and observed. Pure."""

from __future__ import annotations

import datetime as dt

from beads.config import Config, MergeStrategy
from beads.lifecycle import BeadStatus, Purpose
from refinery.core.approvals import approvals, approvals_needed, objection
from refinery.core.beadviews import Blocker
from refinery.core.entryviews import CandidateView, EntryView
from refinery.core.gating import judged, needed, red, results_on
from refinery.core.order import is_feature_lane
from refinery.core.reasons import Held
from refinery.core.stages import WAITS_FOR_PERSON, Stage, Standing, phase
from refinery.core.states import BuildResult, GateOutcome, Judgement
from refinery.core.telling import led_by
from refinery.core.world import RigView, World

_BY_GATES = frozenset({Held.GATE_ERROR, Held.REWORK_LIMIT})
_LANDING_STAGE = {
    "intent": (Stage.LANDING, "about to be pushed"),
    "pushing": (Stage.LANDING, "being pushed"),
    "landed": (Stage.LANDED, "git shows it on the target"),
    "moved": (Stage.TARGET_MOVED, "the target moved: built and gated again"),
    "head_moved": (Stage.HEAD_MOVED, "the branch has a newer head"),
    "refused": (Stage.PUSH_REFUSED, "the remote refused the push"),
}


# what goes no further while the remote is away
_ASKS_REMOTE = frozenset(
    {Stage.UNPROVEN, Stage.UNBUILT, Stage.BUILDING, Stage.COUPLING, Stage.STALE, Stage.GREEN, Stage.LANDING}
    | {Stage.TARGET_MOVED, Stage.HEAD_MOVED}
)


def standing(entry: EntryView, rig: RigView, now: dt.datetime) -> Standing:
    """Where an active entry stands, from what is stored and observed. Total: every entry has a stage."""
    where = _standing(entry, rig, now)
    if rig.outage is not None and where.stage in _ASKS_REMOTE:
        return Standing(where.stage, f"{where.why}; {rig.outage.words(now)}")
    return where


def stands(world: World, entry: EntryView) -> Standing:
    """`standing` of one of the world's own entries, derived once for each world."""
    found = world.stood.get(entry.id)
    if found is None:
        found = world.stood[entry.id] = standing(entry, world.rigs[entry.rig], world.now)
    return found


def phase_of(world: World, entry: EntryView) -> str:
    """The people's word for where one of the world's own entries stands."""
    return phase(stands(world, entry).stage, admitted=entry.admitted)


def _standing(entry: EntryView, rig: RigView, now: dt.datetime) -> Standing:
    landing, car = entry.landing, entry.car
    if landing is not None and landing.under_way:
        stage, why = _LANDING_STAGE[landing.state]
        return Standing(stage, landing.trouble or landing.message or why)
    if (waits := _waits(entry, rig)) is not None:
        return waits
    if landing is not None and landing.state in _LANDING_STAGE:
        stage, why = _LANDING_STAGE[landing.state]
        return Standing(stage, landing.message or why)
    if not entry.admitted and (alone := _alone(entry, rig, now)):
        return alone
    if car is not None and car.coupling == "waits":
        return Standing(Stage.COUPLING, f"waits until {car.ahead}, the car ahead, is built")
    candidate = entry.candidate
    if candidate is None or candidate.head != entry.head:
        return _unbuilt(entry)
    if car is not None and car.coupling == "stale":
        return Standing(Stage.STALE, "what it stood on has changed: built again")
    where = _built(entry, candidate, rig, now)
    if where.stage in _OF_THE_TREE and car is not None and not car.settled:
        return Standing(Stage.UNSETTLED, f"{where.why}; judged once what is ahead has landed")
    if where.stage in (Stage.CHECKING, Stage.EXCUSED) and car is None and not on_the_target(candidate):
        return Standing(Stage.UNSETTLED, f"{where.why}; judged once it stands on {entry.target} alone")
    return where


def _waits(entry: EntryView, rig: RigView) -> Standing | None:
    """Whom it waits for before anything is built or gated: its tasks, a person, its author, who is ahead of it."""
    if entry.waiting_for:
        names = ", ".join(f"{b.id} ({b.status})" for b in entry.waiting_for)
        return Standing(Stage.BLOCKED, f"waits for {entry.waiting_for[0].purpose} {names}{_asked_for(entry, rig)}")
    if entry.held:
        return Standing(Stage.HELD, _past(entry, rig) or entry.held_text or entry.held)
    if rig.problems:
        return Standing(Stage.HELD, f"the config is refused: {rig.problems[0]}")
    if (against := objection(entry)) is not None:  # wherever it stands: what is to be changed need not be gated first
        return Standing(Stage.CHANGES_REQUESTED, f"{against.by} asked for changes")
    if entry.triages and not entry.admitted and not entry.ties.waived and (failed := red(entry, rig)):
        return Standing(Stage.TRIAGE, f"the refinery looks at why it is red: {failed}")
    return _held_back(entry)


def _unbuilt(entry: EntryView) -> Standing:
    """It has no candidate of its present head."""
    if entry.candidate is not None:
        return Standing(Stage.UNBUILT, "has a new head")
    if entry.admitted:
        return Standing(Stage.BUILDING, entry.build_error or "the candidate is being built")
    under = led_by("; stands on ", ", ".join(b.id for b in entry.ties.stacked_on))
    return Standing(Stage.UNBUILT, f"waits for its turn{under}")


def on_the_target(candidate: CandidateView) -> bool:
    """True when nothing but what has landed is below it."""
    return not candidate.seal and (candidate.on is None or candidate.on_landed)


def is_judged(entry: EntryView, stage: Stage) -> bool:
    """True where gates are known to fail on a candidate that stands on the target alone: its place in a train changes
    nothing about that. (It left its train while it was looked whether they pass on the target.)"""
    return stage == Stage.GATE_FAILED and entry.candidate is not None and on_the_target(entry.candidate)


def _past(entry: EntryView, rig: RigView) -> str:
    """What is said of a hold whose cause are only results of gates that the config has replaced; empty for others."""
    candidate = entry.candidate
    if entry.held not in _BY_GATES or candidate is None or candidate.head != entry.head or objection(entry):
        return ""
    known = {(gate.name, gate.command) for gate in rig.config.refinery.gates}
    bad = [key for key, result in results_on(candidate, entry.gates).items() if result.outcome != GateOutcome.PASS]
    if not bad or any(key in known for key in bad):
        return ""
    names = ", ".join(dict.fromkeys(name for name, _ in bad))
    return f"what held it is past, for the config has replaced {names}: mq retry {entry.id} lets it go on"


def _asked_for(entry: EntryView, rig: RigView) -> str:
    """Why an entry waits for its rework: what failed, or who asked for changes; empty where that is not known."""
    candidate = entry.candidate
    if entry.waiting_for[0].purpose != Purpose.REWORK or candidate is None or candidate.head != entry.head:
        return ""
    if failed := red(entry, rig):
        return f": {failed}"
    where = reviewed(entry, rig)
    if where is None or where.stage != Stage.CHANGES_REQUESTED:
        return ""
    return f": {where.why}"


def _alone(entry: EntryView, rig: RigView, now: dt.datetime) -> Standing | None:
    """Where an entry stands that must pass gates by itself, on the target alone; None when it has, or need not."""
    if entry.ties.waived:
        return None
    gates = rig.config.refinery.entry_gates
    if not gates:
        return None
    outcomes = {(g.gate, g.command): g.outcome for g in entry.gates if g.alone and g.head == entry.head}
    candidate = entry.candidate
    if candidate is not None and (candidate.head != entry.head or candidate.on is not None):
        candidate = None
    left = (g for g in gates if outcomes.get((g.name, g.command)) != "pass")
    if not any(candidate is None or needed(g, candidate) for g in left):
        return None
    if candidate is None:
        return Standing(Stage.UNPROVEN, "is first built and gated by itself")
    if candidate.result != BuildResult.BUILT:
        return _built(entry, candidate, rig, now)
    return judged(entry, candidate, gates, entry.gates, rig)


def proving(entry: EntryView, rig: RigView, now: dt.datetime) -> bool:
    """True while an entry that is no car has yet to pass gates by itself."""
    return not entry.admitted and _alone(entry, rig, now) is not None


def _held_back(entry: EntryView) -> Standing | None:
    """What has to land before it, when that is not ahead of it in its train; see `refinery.core.stacks`."""
    after = [b for b in entry.after if b.status != BeadStatus.CLOSED]
    if after:
        names = ", ".join(f"{b.id} ({b.status}{b.unreleased}{_elsewhere(entry, b)})" for b in after)
        return Standing(Stage.BLOCKED, f"waits until {names} is closed, for its bead comes after")
    under = [b for b in entry.ties.stacked_on if b.state != "ahead"]
    if not under:
        if not entry.ties.held_back_by or entry.admitted:
            return None
        if entry.ties.resolving:
            return Standing(Stage.BLOCKED, entry.ties.held_back_by)
        return Standing(Stage.BEHIND, entry.ties.held_back_by)
    names = ", ".join(b.id for b in under)
    if stuck := [b.id for b in under if b.state == "waits"]:
        return Standing(Stage.BLOCKED, f"stands on {names} and lands after it; {', '.join(stuck)} waits for others")
    return Standing(Stage.BEHIND, f"stands on {names}: lands after it")


def _elsewhere(entry: EntryView, blocker: Blocker) -> str:
    if blocker.rig in (None, entry.rig):
        return ""
    return ", in another rig"


_OF_THE_TREE = frozenset(
    {Stage.NOTHING, Stage.CONFLICT, Stage.GATE_FAILED, Stage.GATE_ERROR, Stage.CHECKING, Stage.EXCUSED}
)


def _built(entry: EntryView, candidate: CandidateView, rig: RigView, now: dt.datetime) -> Standing:
    """Where an entry stands by its candidate."""
    match candidate.result:
        case "already_merged":
            return Standing(Stage.NOTHING, f"{entry.head[:10]} is already contained in {entry.target}")
        case "unchanged":
            return Standing(Stage.NOTHING, "it changes nothing: no commit of its own is on the target")
        case "empty":
            return Standing(Stage.NOTHING, f"it changes nothing on {entry.target}")
        case "conflict":
            return Standing(Stage.CONFLICT, f"conflicts with {entry.target} in {', '.join(candidate.files[:5])}")
        case "refused":
            return Standing(Stage.UNFIT, candidate.error or "it is unfit to be built")
        case "error":
            return Standing(Stage.BUILD_ERROR, candidate.error or "the candidate could not be built")
        case _:
            return gated(entry, candidate, rig) or reviewed(entry, rig) or _approved(entry, rig, now)


def gated(entry: EntryView, candidate: CandidateView, rig: RigView) -> Standing | None:
    """The gates' part of `standing`; None when all have passed on exactly this tree, or on its batch's, or when a
    person has waived them."""
    if entry.ties.waived:
        return None
    gates = rig.config.refinery.landing_gates
    own = judged(entry, candidate, gates, entry.gates, rig)
    car = entry.car
    if own is None or car is None or not car.member:
        return own
    if car.for_all is not None and judged(entry, car.for_all, gates, car.results, rig) is None:
        return None
    return Standing(Stage.BATCHED, f"is gated in one batch with {car.batch[-1]}")


def reviewed(entry: EntryView, rig: RigView) -> Standing | None:
    """The review's part of `standing`; None when nothing stands against merging."""
    against, approved = objection(entry), approvals(entry)
    agent = entry.latest_verdict(human=False)
    if (
        entry.answered
        and agent is not None
        and agent.decision == Judgement.REQUEST_CHANGES
        and agent.id <= entry.answered_to
    ):
        agent = None  # its author has answered instead of changing it: the answer is reviewed
    if (
        against is None
        and agent is not None
        and agent.decision == Judgement.REQUEST_CHANGES
        and all(agent.id > v.id for v in approved)
    ):
        against = agent
    if against is not None:
        return Standing(Stage.CHANGES_REQUESTED, f"{against.by} asked for changes")
    if not rig.config.refinery.code_review or approved or (agent is not None and agent.decision == Judgement.APPROVE):
        return None
    if entry.live_run("refinery"):
        return Standing(Stage.REVIEWING, "the refinery is reviewing it")
    if entry.question:
        return Standing(Stage.REVIEWER_ASKS, f"the refinery asks: {entry.question}")
    if rig.config.agents.refinery is None:
        return Standing(
            Stage.NO_REVIEWER,
            "code_review is on but agents.refinery.command is not set: approve it by hand, or set one",
        )
    return Standing(Stage.NEEDS_REVIEW, "waits for the refinery's review")


def _approved(entry: EntryView, rig: RigView, now: dt.datetime) -> Standing:
    """The people's part of `standing`. Intermediate merges into a convoy's branch wait for nobody: its landing does."""
    config = rig.config
    remark = _remark(entry, config)
    if is_feature_lane(entry):
        return Standing(Stage.GREEN, f"green{remark}: an intermediate merge into the convoy's branch")
    needed, given = approvals_needed(entry, config), approvals(entry)
    if len(given) < needed == 1:
        return Standing(Stage.NEEDS_APPROVAL, "waits for a person's approval")
    if len(given) < needed:
        return Standing(Stage.NEEDS_APPROVAL, f"has {len(given)} of {needed} approvals")
    if config.refinery.merge_strategy == MergeStrategy.PR and not any(v.merge_now for v in given):
        names = ", ".join(v.by for v in given)
        if not config.refinery.auto_merge:
            return Standing(Stage.NEEDS_APPROVAL, f"approved by {names}; waits for a person to merge it")
        due = sorted(v.created_at for v in given)[needed - 1] + config.pr.auto_merge_delay
        if now < due:
            return Standing(Stage.MERGE_DELAY, f"approved by {names}; merges by itself at {due:%H:%M:%S} UTC")
    if unknown := rig.unknown(now):
        return Standing(Stage.HOST_UNKNOWN, unknown)
    if entry.ties.waived:
        remark = f" (gates skipped {entry.ties.waived})"
    return Standing(Stage.GREEN, f"green{remark}")


def _remark(entry: EntryView, config: Config) -> str:
    """What a person should know of gates that do not stand against merging."""
    gates, candidate = config.refinery.gates, entry.candidate
    if not gates:
        return " (ungated)"
    if candidate is not None and not any(needed(gate, candidate) for gate in gates):
        return " (none of its gates is needed: it touches nothing under their paths)"
    flaky = dict.fromkeys(repr(g.gate) for g in entry.gates if g.tree == entry.built.tree and g.flaky)
    if not flaky:
        return ""
    return f" (flaky: {', '.join(flaky)} has passed and failed on this very tree)"


_WANTS_NO_SLOT = WAITS_FOR_PERSON | {
    Stage.BLOCKED,
    Stage.TRIAGE,
    Stage.CHANGES_REQUESTED,
    Stage.BEHIND,
    Stage.CHECKING,
    Stage.HOST_UNKNOWN,
    Stage.LANDING,
    Stage.LANDED,
}


def wants_slot(entry: EntryView, rig: RigView, now: dt.datetime, where: Standing | None = None) -> bool:
    """True when an entry waits for its lane: neither blocked, nor waiting on a person, nor admitted. `where`: its
    standing, if that is known already."""
    if entry.admitted or entry.reject_requested or entry.source_cancelled or proving(entry, rig, now):
        return False
    stage = (where or standing(entry, rig, now)).stage
    return stage not in _WANTS_NO_SLOT and not is_judged(entry, stage)
