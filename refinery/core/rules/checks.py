"""Rules for checks of a lane's target: built on its present head, gated, held where gates do not pass there. Pure.

A check is asked again by itself when the target or the gates have changed. When it has passed it ends, and who waited
for it is gated again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refinery.core.actions import Action, CheckAnew, CloseEntry, Decision, Hold, Prove, Ruling
from refinery.core.checks import check_standing
from refinery.core.entryviews import EntryView
from refinery.core.keys import build_key
from refinery.core.rules.steps import run_gates
from refinery.core.stages import Stage
from refinery.core.standing import proving, stands
from refinery.core.world import CheckView, RigView, World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each active check."""
    for check in world.checks:
        rule, why, actions = _one(world, check, world.rigs[check.entry.rig])
        yield Decision(f"entry {check.entry.id}", rule, why, actions)


def _one(world: World, check: CheckView, rig: RigView) -> Ruling:
    entry = check.entry
    anew = (CheckAnew(entry.id, entry.build_no),)
    if rig.problems:
        return "misconfigured", f"the config is refused: {rig.problems[0]}", ()
    if not rig.config.refinery.gates:
        return _needless(entry.id, "no gates are configured any more")
    if entry.target != rig.default_branch and not any(_in_lane(world, check)):
        return _needless(entry.id, f"nothing is to land on {entry.target} any more")
    if entry.observed_head not in ("", entry.head):
        return "target-moved", f"{entry.target} has moved: its gates are checked again", anew
    where = check_standing(check, rig)
    if entry.held:
        return _held(world, check, rig, anew)
    match where.stage:
        case Stage.BUILDING if world.unanswered(build_key(entry.id, entry.build_no)):
            return "fetch", where.why, anew
        case Stage.BUILD_ERROR:
            return "build-error", where.why, (Hold(entry.id, "build_error", where.why),)
        case Stage.NEEDS_GATES:
            return run_gates(world, entry, where.why, "check")
        case Stage.GATE_FAILED:
            return "gates-broken", where.why, (Hold(entry.id, "gates_broken", where.why),)
        case Stage.GREEN:
            return "passed", where.why, _passed(world, check, where.why)
        case _:
            return str(where.stage), where.why, ()


def _held(world: World, check: CheckView, rig: RigView, anew: tuple[Action, ...]) -> Ruling:
    """It has told a person that gates do not pass: it goes on by itself when they do, or are others by now."""
    entry = check.entry
    now = check_standing(replace(check, entry=replace(entry, held="")), rig)
    if entry.held == "gates_broken" and now.stage == Stage.GREEN:
        return "passed", now.why, _passed(world, check, now.why)
    if entry.held == "gates_broken" and now.stage != Stage.GATE_FAILED:
        return "check-again", f"its gates have changed: {now.why}", anew
    return "held", check_standing(check, rig).why, ()


def _in_lane(world: World, check: CheckView) -> Iterator[EntryView]:
    lane = check.entry.rig, check.entry.target
    return (entry for entry in world.entries if (entry.rig, entry.target) == lane)


def _needless(entry: str, why: str) -> Ruling:
    return "needless", why, (CloseEntry(entry, "failed", "cancelled", why),)


def _passed(world: World, check: CheckView, why: str) -> tuple[Action, ...]:
    """It ends. Who has failed elsewhere than on this very head, and waits, is built on it, and so gated again."""
    found: list[Action] = [CloseEntry(check.entry.id, "checked", "gates_sound", why)]
    for entry in _in_lane(world, check):
        rig = world.rigs[entry.rig]
        waits = not entry.admitted and not proving(entry, rig, world.now)
        if waits and stands(world, entry).stage == Stage.STALE:
            found.append(Prove(entry.id, entry.build_no))
    return tuple(found)
