"""What gate results say of a candidate: passed, to be run, or whose fault it is that they have not. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from beads.config import Gate
from refinery.core.entryviews import CandidateView, EntryView, GateView
from refinery.core.relations import Broken, Ground
from refinery.core.stages import Stage, Standing
from refinery.core.states import GateOutcome
from refinery.core.world import RigView


def needed(gate: Gate, candidate: CandidateView) -> bool:
    """False only when it is known that the change touches nothing under exactly this gate's paths."""
    return not gate.paths or gate.paths not in candidate.untouched


def results_on(candidate: CandidateView, found: Iterable[GateView]) -> dict[tuple[str, str], GateView]:
    """(gate, command) → its result on a candidate's tree."""
    return {(g.gate, g.command): g for g in found if g.tree == candidate.tree}


def judged(
    entry: EntryView, candidate: CandidateView, gates: Iterable[Gate], found: Iterable[GateView], rig: RigView
) -> Standing | None:
    """What the results on a candidate's tree say; None when all of these gates that it needs have passed on it."""
    results = results_on(candidate, found)
    in_batch = entry.car is not None and bool(entry.car.batch)
    twice = rig.config.refinery.batch.max > 1 and not in_batch
    known_bad = entry.ground.broken
    missing: list[str] = []
    bad: list[GateView] = []
    for gate in gates:
        if not needed(gate, candidate):
            continue
        result = results.get((gate.name, gate.command))
        if result is None:
            missing.append(gate.name)
        elif result.outcome != GateOutcome.PASS and result.id < entry.ground.passes.get((gate.name, gate.command), 0):
            missing.append(gate.name)  # it did not pass where the entry stands either, and now it does
        elif result.outcome == GateOutcome.ERROR:
            bad.append(result)
        elif (
            result.outcome == GateOutcome.FAIL
            and twice
            and result.fails < 2
            and (gate.name, gate.command) not in known_bad
        ):
            missing.append(gate.name)  # a single is blamed only for what fails twice
        elif result.outcome == GateOutcome.FAIL:
            bad.append(result)
    if bad:
        return _blamed(entry, candidate, bad, in_batch=in_batch)
    if not missing:
        return None
    if entry.live_run("gates"):
        return Standing(Stage.GATING, f"gates are running: {', '.join(missing)}")
    return Standing(Stage.NEEDS_GATES, f"gates to run: {', '.join(missing)}")


def _blamed(entry: EntryView, candidate: CandidateView, bad: list[GateView], *, in_batch: bool) -> Standing:
    """What follows from gates that did not pass: first it must be known that they pass where the entry stands. (A batch
    is only cut.) An error counts for more than a failure: the host may be to blame for that, too."""
    asked = dict.fromkeys(bad, "passes")
    if not in_batch:
        asked = {g: passes_below(entry.ground, candidate.base, g) for g in bad}
    named = ", ".join(repr(g.gate) for g in bad)
    check = entry.ground.check
    if "unknown" in asked.values():
        why = f"{_told(bad)}; whether {named} passes on {entry.target} is checked first"
        if check is not None:
            why += f": see check {check.id}"
        return Standing(Stage.CHECKING, why)
    if "elsewhere" in asked.values():
        return Standing(Stage.STALE, f"{_told(bad)}; {named} passes on {entry.target} as it is now: built again")
    own = [g for g in bad if asked[g] == "passes"]
    if errors := [g for g in own if g.outcome == GateOutcome.ERROR]:
        return Standing(Stage.GATE_ERROR, _told(errors[:1]))
    if own:
        return Standing(Stage.GATE_FAILED, _told(own))
    assert check is not None
    first = min(bad, key=lambda g: g.outcome != GateOutcome.ERROR)
    words = check.broken[first.gate, first.command].words
    why = f"waits: gate {first.gate!r} {first.verb} on {entry.target}, too ({words}): see check {check.id}"
    return Standing(Stage.EXCUSED, why)


def _told(bad: list[GateView]) -> str:
    return "; ".join(_one_told(gate) for gate in bad)


def _one_told(gate: GateView) -> str:
    how = {"error": "could not be run"}.get(gate.outcome, "failed")
    if gate.telling:  # which begins with the gate's name
        return f"gate {how}: {gate.words}"
    return f"gate {gate.gate!r} {how}: {gate.words}"


def _same_way(gate: GateView, there: Broken) -> bool:
    """True unless an entry's gate is seen to fail otherwise than on the target: by another exit, or in other files. (A
    gate may fail on a target that has nothing for it yet, as `pytest` does without tests.)"""
    if gate.outcome == GateOutcome.ERROR:
        return True
    return gate.exit == there.exit and (not gate.files or bool(gate.files & there.files))


def passes_below(ground: Ground, base: str, gate: GateView) -> str:
    """Whether a gate passes where an entry stands: `passes` (or fails there otherwise), `fails`, `elsewhere` (on the
    target's newer head) or `unknown`. Nobody waits for a check that gives no answer."""
    key, check = (gate.gate, gate.command), ground.check
    if key in ground.passes:
        return "passes"
    if check is None:
        return "unknown"
    if key in check.broken and _same_way(gate, check.broken[key]):
        return "fails"
    if key in check.broken:
        return "passes"
    if check.answered and check.head != base:
        return "elsewhere"
    if check.answered or check.barren:
        return "passes"
    return "unknown"


def failing(entry: EntryView, rig: RigView) -> list[GateView]:
    """The red gates of the current candidate."""
    candidate = entry.candidate
    if candidate is None or candidate.head != entry.head:
        return []
    results = results_on(candidate, entry.gates)
    found = [results.get((g.name, g.command)) for g in rig.config.refinery.gates if needed(g, candidate)]
    return [r for r in found if r is not None and r.outcome == GateOutcome.FAIL]


def red(entry: EntryView, rig: RigView) -> str:
    """What the red gates of the current candidate say, or an empty string."""
    return _told(failing(entry, rig))
