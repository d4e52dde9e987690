"""Rules for review entries: who ends, waits for others, or takes its next step (`refinery.core.rules.steps`). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from beads.lifecycle import BeadStatus
from refinery.core.actions import (
    AbandonLanding,
    Action,
    CloseEntry,
    Decision,
    NewHead,
    OpenCheck,
    Ruling,
)
from refinery.core.approvals import objection
from refinery.core.entryviews import EntryView
from refinery.core.order import by_lane, in_queue_order
from refinery.core.rules.lanestate import Lane, Refineries
from refinery.core.rules.rework import after_triage, leave, rework
from refinery.core.rules.steps import Step, merged
from refinery.core.stacks import refused
from refinery.core.stages import WAITS_FOR_PERSON, Stage, Standing
from refinery.core.standing import is_judged, proving, stands
from refinery.core.states import LandingState
from refinery.core.telling import led_by
from refinery.core.world import RigView, World

_NEEDS_OTHERS = (Stage.BLOCKED, Stage.HOST_UNKNOWN, *(WAITS_FOR_PERSON - {Stage.EXCUSED}))


def decide(world: World) -> Iterator[Decision]:
    """One decision for each active entry (admission is the lanes' matter), trains from the front."""
    refineries = Refineries(world)
    # of lanes that share a refinery, the one with the fewest runs of it is served first
    for key, entries in sorted(by_lane(world.entries).items(), key=lambda lane: _live_reviews(lane[1])):
        entries = in_queue_order(entries)
        lane = Lane(world, world.rigs[key[0]], key[1], entries, refineries)
        for entry in entries:
            rule, why, actions = _one(world, entry, lane)
            yield Decision(f"entry {entry.id}", rule, why, actions)


def _live_reviews(entries: list[EntryView]) -> int:
    return sum(1 for e in entries if e.live_run("refinery"))


def _one(world: World, entry: EntryView, lane: Lane) -> Ruling:
    rig = lane.rig
    where = stands(world, entry)
    stage, why = where.stage, where.why
    if stage == Stage.LANDED and entry.candidate is not None:
        return "landed", why, (merged(entry, entry.candidate.sha, f"landed on {entry.target}"), *lane.widen())
    if (over := _taken_back(entry) or _failed_rework(entry)) is not None:
        return over
    if entry.observed_head not in ("", entry.head) and not entry.waiting_for and stage != Stage.LANDING:
        moved = NewHead(entry.id, entry.head, entry.observed_head, entry.branch, "the branch has a newer head")
        return "head-moved", "the branch has a newer head", (moved,)
    if (again := _reworked(world, entry, rig, where)) is not None:
        return again
    if stage == Stage.BEHIND or (stage == Stage.BLOCKED and not entry.waiting_for):
        return str(stage), why, leave(entry, innocent=True)
    if stage in _NEEDS_OTHERS:
        return str(stage), why, leave(entry)
    if stage in (Stage.CHECKING, Stage.EXCUSED):
        return _waits_for_check(entry, lane, stage, why)
    by_itself = not entry.admitted and (proving(entry, rig, world.now) or is_judged(entry, stage))
    stopped = world.stopped(rig)
    if not entry.admitted and not by_itself:
        if stage != Stage.UNBUILT:
            why = f"waits for its turn; {why}"
        return "queued", lane.frozen or stopped or why, ()
    if not entry.admitted and stopped:
        return "queued", f"its gates wait: {stopped}", ()
    return Step(world, entry, lane, stage, why).ruling()


def _taken_back(entry: EntryView) -> Ruling | None:
    """A person, its bead or git's answer has ended it, unless its push has begun: then git decides."""
    withdrawn = _withdrawn(entry) or refused(entry)
    pushing = entry.landing is not None and entry.landing.state == LandingState.PUSHING
    if not withdrawn or pushing:
        return None
    code, text = withdrawn
    return code, text, (*_abandoned(entry), CloseEntry(entry.id, "failed", code, text))


def _abandoned(entry: EntryView) -> tuple[Action, ...]:
    """Its intent to land is withdrawn, where there is one."""
    if entry.landing is not None and entry.landing.state == LandingState.INTENT:
        return (AbandonLanding(entry.landing.id),)
    return ()


def _failed_rework(entry: EntryView) -> Ruling | None:
    failed = [b for b in entry.waiting_for if b.status == BeadStatus.FAILED]
    if not failed:
        return None
    text = "; ".join(f"{b.purpose} {b.id} failed{led_by(': ', b.reason)}" for b in failed)
    return "rework-failed", text, (CloseEntry(entry.id, "failed", "rework_failed", text),)


def _reworked(world: World, entry: EntryView, rig: RigView, where: Standing) -> Ruling | None:
    """Somebody wants it changed, or the refinery has looked why it is red."""
    asked = objection(entry)
    if where.stage == Stage.LANDING and asked is not None and (abandoned := _abandoned(entry)):
        rule, text, actions = rework(entry, rig, "review", f"{asked.by} asked for changes")
        return rule, text, (*abandoned, *actions)
    if where.stage == Stage.CHANGES_REQUESTED:
        return rework(entry, rig, "review", where.why)
    if where.stage in (Stage.TRIAGE, Stage.GATE_FAILED):
        return after_triage(entry, rig, world.now)
    return None


def _waits_for_check(entry: EntryView, lane: Lane, stage: Stage, why: str) -> Ruling:
    """It waits outside of the train, where it is in nobody's way, for a check of the target; the first asks for it."""
    actions: list[Action] = [*leave(entry, innocent=True)]
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
