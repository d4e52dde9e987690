"""Checks: a lane's target itself before the gates, so that nobody is blamed for what does not pass there either. Pure.

A check is asked for by a person (`rig add`, `rig config`, `rig check`) and by the first failure of an entry's gate of
which it is not known whether it passes where the entry stands. What fails there as well is one hold of the lane;
entries that fail in the same way wait, unblamed, until the check has passed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from beads.config import Gate
from refinery.core.entryviews import EntryView, GateView
from refinery.core.gating import results_on
from refinery.core.relations import Broken, Ground, Key, KnownCheck
from refinery.core.stages import Stage, Standing
from refinery.core.states import BuildResult, GateOutcome
from refinery.core.telling import led_by
from refinery.core.world import CheckView, RigView

PATIENCE = dt.timedelta(minutes=30)  # an entry waits so long for a check that gives no answer


@dataclass(frozen=True, slots=True)
class Tally:
    """How a check's present candidate has fared: gates that have yet to run, and those that did not pass."""

    missing: tuple[str, ...] = ()
    broken: tuple[GateView, ...] = ()


def key_of(gate: Gate | GateView) -> Key:
    """What a gate's results are known by."""
    if isinstance(gate, Gate):
        return gate.name, gate.command
    return gate.gate, gate.command


def tally(check: CheckView, rig: RigView) -> Tally | None:
    """The results on a check's candidate, by the present config; None while there is no candidate."""
    entry, candidate = check.entry, check.entry.candidate
    if candidate is None or candidate.result != BuildResult.BUILT:
        return None
    results = results_on(candidate, entry.gates)
    found = [(gate.name, results.get(key_of(gate))) for gate in rig.config.refinery.gates]
    missing = tuple(name for name, result in found if result is None)
    return Tally(
        missing, tuple(result for _, result in found if result is not None and result.outcome != GateOutcome.PASS)
    )


def known(check: CheckView, rig: RigView, now: dt.datetime) -> KnownCheck:
    """What entries of its lane may know of a check."""
    entry = check.entry
    gates = {key_of(gate) for gate in rig.config.refinery.gates}
    # its own latest, even while it is built again; but where it is, what is known of that tree, whoever's run it was: a
    # check whose tree another lane's check has answered is held by that, and so nobody of its lane is to blame either
    told = {key_of(result): result for result in check.latest}
    if entry.candidate is not None:
        told |= results_on(entry.candidate, entry.gates)
    latest = {key: result for key, result in told.items() if key in gates}
    broken = {
        key: Broken(result.words, result.exit, result.files)
        for key, result in latest.items()
        if result.outcome != GateOutcome.PASS
    }
    counted = tally(check, rig)
    answered = counted is not None and not counted.missing
    failed = entry.held not in ("", "gates_broken")
    return KnownCheck(
        id=entry.id,
        head=entry.built.sha,
        broken=broken,
        answered=answered,
        barren=not answered and (failed or now >= check.asked_at + PATIENCE),
        hopeless=bool(gates) and gates == {k for k, result in latest.items() if result.outcome == GateOutcome.ERROR},
    )


def ground(
    entries: Iterable[EntryView],
    lanes: Mapping[tuple[int, str], KnownCheck],
    passes: Mapping[tuple[int, str], Mapping[Key, int]],
) -> list[EntryView]:
    """The same entries, each with what is known of the gates where it stands. `lanes`: (rig, target) →
    what its check says; `passes`: (rig, commit) → see `Ground`."""
    found = []
    for entry in entries:
        there = passes.get((entry.rig, entry.built.base), {})
        check = lanes.get((entry.rig, entry.target))
        if there or check:
            entry = replace(entry, ground=Ground(there, check))
        found.append(entry)
    return found


def check_standing(check: CheckView, rig: RigView) -> Standing:
    """Where a check stands, in the words of entries."""
    entry = check.entry
    if entry.held:
        return Standing(Stage.HELD, entry.held_text)
    if rig.problems:
        return Standing(Stage.HELD, f"the config is refused: {rig.problems[0]}")
    if entry.candidate is None:
        return Standing(Stage.BUILDING, entry.build_error or f"the head of {entry.target} is being fetched")
    if entry.candidate.result != BuildResult.BUILT:
        return Standing(Stage.BUILD_ERROR, f"{entry.target} could not be fetched: {entry.candidate.error}")
    counted = tally(check, rig)
    assert counted is not None
    if counted.missing and entry.live_run("gates"):
        return Standing(Stage.GATING, f"gates are running: {', '.join(counted.missing)}")
    if counted.missing:
        return Standing(Stage.NEEDS_GATES, f"gates to run: {', '.join(counted.missing)}")
    if counted.broken:
        return Standing(Stage.GATE_FAILED, sentence(entry, counted.broken))
    return Standing(Stage.GREEN, f"every gate passes on {entry.target} at {entry.candidate.sha[:12]}")


def sentence(entry: EntryView, broken: tuple[GateView, ...]) -> str:
    """What is said of a target on which gates do not pass: one of them with how and its remedy, the others' names."""
    first = min(broken, key=lambda g: g.outcome != GateOutcome.ERROR)
    said = f"gate {first.gate!r} {first.verb} on {entry.target} itself, at {entry.built.sha[:12]}: {first.words}"
    others = [repr(g.gate) for g in broken if g is not first]
    if len(others) == 1:
        return f"{said}. So does {others[0]}"
    return said + led_by(". So do ", ", ".join(others))
