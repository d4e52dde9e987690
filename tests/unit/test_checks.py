"""What is known of the gates on the target decides who is blamed. Worlds in, decisions out."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from refinery.core import checks
from refinery.core.actions import Admit, CheckAnew, CloseEntry, Hold, Leave, OpenCheck, OpenRework, Prove, StartRun
from refinery.core.beadviews import RunView
from refinery.core.entryviews import GateView, LaneView
from refinery.core.keys import build_key
from refinery.core.outageviews import EffectView
from refinery.core.relations import Broken, Ground, KnownCheck
from refinery.core.rules import plan
from refinery.core.stages import Stage, phase
from refinery.core.standing import standing, wants_slot
from refinery.core.trains import batch_size
from refinery.core.world import CheckView, RigView, World
from tests.unit.test_rules import BUILT, ENTRY, NOW, PASS, RIG, config

KEY = ("test", "test")
FAIL = replace(PASS, outcome="fail", detail="exit 1", id=5, exit=1)
ERROR = replace(FAIL, outcome="error", detail="exit 127", remedy="install it")
KNOWN = KnownCheck("gt-c", head="base")
BROKEN = replace(KNOWN, broken={KEY: Broken("exit 1", 1)}, answered=True)
WAITS = replace(ENTRY, admitted_at=None, slot=None)
HEAD = replace(BUILT, id=9, head="base", base="base", sha="base", tree="below")
CHECK = CheckView(replace(WAITS, id="gt-c", kind="check", branch="main", head="base", candidate=HEAD), NOW)
BELOW = replace(PASS, tree="below", head="base", id=8)


def failing(gate: GateView = FAIL, ground: Ground = Ground(), **more: Any) -> Any:  # noqa: B008 - frozen
    return replace(ENTRY, candidate=BUILT, gates=(gate,), ground=ground, **more)


def world(*entries: Any, check: CheckView | None = None, rig: RigView = RIG, **more: Any) -> World:
    found = (check,) if check else ()
    known = {(1, "main"): checks.known(check, rig, NOW)} if check else {}
    effects = {build_key(key, 1): EffectView("pending") for key in ("gt-e", "gt-c")}
    return World(now=NOW, town="t", rigs={1: rig}, entries=entries, checks=found, known=known, effects=effects, **more)


def acts(found: World) -> list[Any]:
    return [a for d in plan(found) for a in d.actions]


@pytest.mark.parametrize("gate", [FAIL, ERROR])
@pytest.mark.parametrize(
    ("ground", "stage"),
    [
        (Ground(), Stage.CHECKING),  # nothing is known
        (Ground(check=KNOWN), Stage.CHECKING),  # it is being found out
        (Ground({KEY: 0}), None),  # it passes where the entry stands
        (Ground({KEY: 0}, BROKEN), None),  # whatever it does elsewhere
        (Ground({KEY: 5}), None),  # this very result is the first since it does
        (Ground({KEY: 6}), Stage.NEEDS_GATES),  # it did not pass there when the entry was gated, and now it does
        (Ground(check=BROKEN), Stage.EXCUSED),
        (Ground(check=replace(BROKEN, answered=False)), Stage.EXCUSED),  # asked again: so far nothing else is known
        (Ground(check=replace(KNOWN, answered=True)), None),
        (Ground(check=replace(KNOWN, answered=True, head="newer")), Stage.STALE),
        (Ground(check=replace(KNOWN, barren=True)), None),  # no answer is no excuse
    ],
)
def test_o6_nobody_is_blamed_before_it_is_known_where_the_fault_is(
    gate: GateView, ground: Ground, stage: Stage | None
) -> None:
    own = Stage.GATE_FAILED if gate is FAIL else Stage.GATE_ERROR
    assert standing(failing(gate, ground), RIG, NOW).stage == (stage or own)


@pytest.mark.parametrize(
    ("gate", "there", "excused"),
    [
        (FAIL, Broken("", 1), True),
        (FAIL, Broken("", 5), False),  # there were no tests to run
        (FAIL, Broken("", 127), False),
        (
            replace(FAIL, files=frozenset({"a.py"})),
            Broken("", 1),
            False,
        ),  # its own, for nothing failed there by a place
        (replace(FAIL, files=frozenset({"a.py"})), Broken("", 1, frozenset({"b.py"})), False),
        (replace(FAIL, files=frozenset({"a.py", "b.py"})), Broken("", 1, frozenset({"b.py"})), True),
        (ERROR, Broken("", 1), True),  # an error is nobody's fault in any case
    ],
)
def test_o6_who_fails_otherwise_than_the_target_is_not_excused(gate: GateView, there: Broken, excused: bool) -> None:
    known = Ground(check=replace(BROKEN, broken={KEY: there}))
    assert (standing(failing(gate, known), RIG, NOW).stage == Stage.EXCUSED) is excused


def test_o6_the_first_of_a_lane_asks_and_all_wait_outside_of_the_train() -> None:
    second = failing(id="gt-f", branch="g")
    found = acts(world(failing(), replace(second, slot=2.0, candidate=replace(BUILT, id=8))))
    assert [a for a in found if isinstance(a, OpenCheck)] == [OpenCheck(1, "main")]
    assert Leave("gt-e", innocent=True) in found
    assert not [a for a in found if isinstance(a, OpenRework | Hold)]


def test_o6_who_is_excused_waits_for_the_check_and_takes_nobodys_place() -> None:
    entry = failing(ground=Ground(check=BROKEN), admitted_at=None)
    told = standing(entry, RIG, NOW)
    assert told.why == "waits: gate 'test' fails on main, too (exit 1): see check gt-c"
    assert phase(told.stage, admitted=False) == "awaiting_human"
    assert not wants_slot(entry, RIG, NOW)
    green = replace(WAITS, id="gt-f", branch="g")
    assert [a.entry for a in acts(world(entry, green)) if isinstance(a, Admit)] == ["gt-f"]


def test_o6_of_several_only_what_passes_below_is_blamed() -> None:
    rig = replace(RIG, config=config(gates=["test", "docs"]))
    docs = replace(FAIL, gate="docs", command="docs", detail="exit 2")
    both = replace(failing(ground=Ground({("docs", "docs"): 0}, BROKEN)), gates=(FAIL, docs))
    told = standing(both, rig, NOW)
    assert (told.stage, told.why) == (Stage.GATE_FAILED, "gate 'docs' failed: exit 2")
    unknown = replace(both, ground=Ground(check=replace(BROKEN, answered=False)))
    assert standing(unknown, rig, NOW).stage == Stage.CHECKING


def test_o6_what_did_not_stand_on_the_target_alone_is_judged_when_it_does() -> None:
    below = replace(BUILT, on=3)
    entry = replace(failing(ground=Ground(check=BROKEN), admitted_at=None), candidate=below)
    assert standing(entry, RIG, NOW).stage == Stage.UNSETTLED
    assert wants_slot(entry, RIG, NOW)


def test_a_batch_is_cut_and_a_broken_lane_makes_none() -> None:
    rig = replace(RIG, config=config(batch={"max": 4, "size": 4}))
    found = replace(world(rig=rig), lanes={(1, "main"): LaneView()})
    assert batch_size(rig, "main", found)[0] == 4
    broken = replace(found, known={(1, "main"): BROKEN})
    assert batch_size(rig, "main", broken) == (1, "")


# -- the check itself --


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"candidate": None}, []),
        ({"candidate": replace(HEAD, result="error", error="gone")}, [Hold]),
        ({}, [StartRun]),
        ({"gates": (replace(BELOW, outcome="fail"),)}, [Hold]),
        ({"gates": (replace(BELOW, outcome="error"),)}, [Hold]),
        ({"gates": (BELOW,)}, [CloseEntry]),
        ({"gates": (replace(BELOW, command="old"),)}, [StartRun]),  # of a gate that the config has replaced
        ({"held": "gates_broken", "gates": (replace(BELOW, outcome="fail"),)}, []),
        ({"held": "gates_broken", "gates": ()}, [CheckAnew]),  # the gates are others now
        ({"held": "gates_broken", "gates": (BELOW,)}, [CloseEntry]),  # a change has landed that passes
        ({"held": "gates_broken", "observed_head": "newer"}, [CheckAnew]),
        ({"target": "convoy/c/gt-c/head"}, [CloseEntry]),  # a lane where nothing waits
    ],
)
def test_o6_a_checks_life(change: dict[str, Any], expected: list[type]) -> None:
    found = acts(world(check=replace(CHECK, entry=replace(CHECK.entry, **change))))
    assert [type(a) for a in found] == expected


def test_o6_it_names_what_is_broken_and_the_remedy_errors_first() -> None:
    rig = replace(RIG, config=config(gates=["test", "docs"]))
    docs = replace(BELOW, gate="docs", command="docs", outcome="error", detail="exit 127", remedy="install it")
    check = replace(CHECK, entry=replace(CHECK.entry, gates=(replace(BELOW, outcome="fail"), docs)))
    (hold,) = acts(world(check=check, rig=rig))
    assert hold == Hold(
        "gt-c",
        "gates_broken",
        "gate 'docs' cannot be run on main itself, at base: exit 127; install it. So does 'test'",
    )


def test_a_rig_without_gates_needs_no_check() -> None:
    rig = replace(RIG, config=config(gates=[], code_review=True))
    (close,) = acts(world(check=CHECK, rig=rig))
    assert (close.state, close.reason) == ("failed", "cancelled")


def test_who_failed_elsewhere_is_built_on_the_head_that_passed() -> None:
    check = replace(CHECK, entry=replace(CHECK.entry, gates=(BELOW,)))
    known = checks.known(check, RIG, NOW)
    older = replace(failing(ground=Ground(check=known), admitted_at=None), candidate=replace(BUILT, base="older"))
    found = acts(world(older, check=check))
    assert Prove("gt-e", 1) in found and not [a for a in found if isinstance(a, OpenRework)]


def test_nobody_waits_for_an_answer_that_does_not_come() -> None:
    late = NOW + checks.PATIENCE
    unanswered = replace(CHECK, entry=replace(CHECK.entry, candidate=None))
    assert not checks.known(unanswered, RIG, late - dt.timedelta(seconds=1)).barren
    assert checks.known(unanswered, RIG, late).barren
    held = replace(CHECK, entry=replace(CHECK.entry, held="gate_error", held_text="no sandbox"))
    assert checks.known(held, RIG, NOW).barren


def test_where_no_gate_can_be_run_one_at_a_time_tries() -> None:
    broken = replace(CHECK, latest=(replace(BELOW, outcome="error"),))
    assert checks.known(broken, RIG, NOW).hopeless
    assert world(check=broken).window(1, "main") == 1
    fails = replace(CHECK, latest=(replace(BELOW, outcome="fail"),))
    assert world(check=fails).window(1, "main") == 4


def test_gates_that_were_asked_for_again_are_stopped_and_begun_anew() -> None:
    old = RunView("run-1", "gt-c", "gates", "running", 1, NOW, rig=1, start_sha="base")
    check = replace(CHECK, asked_at=NOW + dt.timedelta(seconds=1))
    (decision,) = [d for d in plan(world(check=check, runs=(old,))) if d.subject == "run run-1"]
    assert decision.why == "its gates were asked for again"


def test_a_check_that_another_lanes_run_has_answered_lets_nobody_of_its_lane_be_blamed_either() -> None:
    """Two lanes whose targets are the same tree: one run of the gates answers both checks."""
    result = replace(BELOW, outcome="fail", exit=1, run="run-of-the-other-check")
    held = replace(CHECK.entry, gates=(result,), held="gates_broken", held_text="it fails there, too")
    check = replace(CHECK, entry=held, latest=())
    known = checks.known(check, RIG, NOW)
    assert known.answered and set(known.broken) == {KEY}
    assert standing(failing(ground=Ground(check=known)), RIG, NOW).stage == Stage.EXCUSED
    mended = replace(held, gates=(replace(BELOW, run="run-of-the-other-check"),))
    assert not checks.known(replace(check, entry=mended, latest=(result,)), RIG, NOW).broken
