"""The pure core: a world goes in, decisions come out. Tables, no database."""

from __future__ import annotations

import ast
import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beads.config import Config, effective, validate
from refinery.core.actions import Action
from refinery.core.beadviews import BeadView, Blocker, RunView
from refinery.core.entryviews import CandidateView, EntryView, GateView, LandingView, VerdictView
from refinery.core.keys import build_key, land_key
from refinery.core.order import in_queue_order
from refinery.core.outageviews import EffectView
from refinery.core.outputs import first_failures
from refinery.core.relations import Ground
from refinery.core.rules import plan
from refinery.core.stages import Stage, phase
from refinery.core.standing import standing
from refinery.core.world import RigView, World
from refinery.store.gates import classify

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
AGENTS = {"polecat": {"command": ["p"]}, "refinery": {"command": ["r"]}}


def config(**refinery: Any) -> Config:
    return effective(validate({"refinery": {"gates": ["test"], **refinery}, "agents": AGENTS}), {})


RIG = RigView(1, "proj", "main", config())
SOUND = Ground({("test", "test"): 0, ("docs", "docs"): 0, ("unit", "unit"): 0})  # they pass where the entry stands
ENTRY = EntryView("gt-e", 1, "feature", "head", "main", NOW, build_no=1, admitted_at=NOW, ground=SOUND)
BUILT = CandidateView(7, 1, "built", "head", "base", "cand", "tree")
PASS = GateView("test", "test", "tree", "pass")
OK = VerdictView(1, "approve", "head", "refinery", False, NOW)
HUMAN = replace(OK, id=2, by="alice", human=True)


def world(**parts: Any) -> World:
    effects = {build_key("gt-e", 1): EffectView("pending"), land_key(1): EffectView("pending")}
    return World(now=NOW, town="main", rigs={1: RIG}, effects=effects, **parts)


def actions(found: World) -> list[str]:
    return [type(a).__name__ for d in plan(found) for a in d.actions]


@pytest.mark.parametrize(
    ("entry", "settings", "stage", "act"),
    [
        (replace(ENTRY, admitted_at=None), {}, Stage.UNBUILT, ["Admit"]),
        (ENTRY, {}, Stage.BUILDING, []),
        (replace(ENTRY, candidate=BUILT), {}, Stage.NEEDS_GATES, ["StartRun"]),
        (
            replace(ENTRY, candidate=replace(BUILT, result="conflict", files=("a",))),
            {},
            Stage.CONFLICT,
            ["OpenConflict"],
        ),
        (
            replace(ENTRY, candidate=replace(BUILT, result="conflict")),
            {"require_clean_merge": False},
            Stage.CONFLICT,
            ["StartRun"],
        ),
        (replace(ENTRY, candidate=replace(BUILT, result="already_merged")), {}, Stage.NOTHING, ["CloseEntry"]),
        (replace(ENTRY, candidate=replace(BUILT, result="error")), {}, Stage.BUILD_ERROR, ["Hold"]),
        (
            replace(ENTRY, candidate=BUILT, gates=(replace(PASS, outcome="fail"),)),
            {"triage": "off"},
            Stage.GATE_FAILED,
            ["OpenRework", "SetWindow"],
        ),
        (
            replace(ENTRY, candidate=BUILT, gates=(replace(PASS, outcome="fail"),)),
            {},
            Stage.GATE_FAILED,
            ["StartRun", "Leave", "SetWindow"],
        ),
        (replace(ENTRY, candidate=BUILT, gates=(replace(PASS, outcome="error"),)), {}, Stage.GATE_ERROR, ["Hold"]),
        (replace(ENTRY, candidate=BUILT, gates=(replace(PASS, tree="other"),)), {}, Stage.NEEDS_GATES, ["StartRun"]),
        (replace(ENTRY, candidate=BUILT, gates=(replace(PASS, command="old"),)), {}, Stage.NEEDS_GATES, ["StartRun"]),
        (replace(ENTRY, candidate=BUILT, gates=(PASS,)), {}, Stage.NEEDS_REVIEW, ["StartRun"]),
        (replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(OK,)), {}, Stage.GREEN, ["Land"]),
        (
            replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(replace(OK, head="old"),)),
            {},
            Stage.NEEDS_REVIEW,
            ["StartRun"],
        ),
        (
            replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(replace(OK, decision="request_changes"),)),
            {},
            Stage.CHANGES_REQUESTED,
            ["OpenRework"],
        ),
        (
            replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(OK,)),
            {"auto_merge": False},
            Stage.NEEDS_APPROVAL,
            ["Leave"],
        ),
        (
            replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(OK, HUMAN)),
            {"auto_merge": False},
            Stage.GREEN,
            ["Land"],
        ),
        (
            replace(ENTRY, candidate=BUILT, gates=(PASS,), verdicts=(HUMAN,)),
            {"merge_strategy": "pr"},
            Stage.MERGE_DELAY,
            ["Leave"],
        ),
        (
            replace(ENTRY, candidate=BUILT, landing=LandingView(1, 7, "landed")),
            {},
            Stage.LANDED,
            ["CloseEntry"],
        ),
        (replace(ENTRY, candidate=BUILT, landing=LandingView(1, 7, "moved")), {}, Stage.TARGET_MOVED, ["Rebuild"]),
        (
            replace(ENTRY, candidate=BUILT, land_retries=5, landing=LandingView(1, 7, "moved")),
            {},
            Stage.TARGET_MOVED,
            ["Hold"],
        ),
        (replace(ENTRY, candidate=BUILT, landing=LandingView(1, 7, "refused")), {}, Stage.PUSH_REFUSED, ["Hold"]),
        (replace(ENTRY, candidate=BUILT, landing=LandingView(1, 7, "pushing")), {}, Stage.LANDING, []),
        (
            replace(ENTRY, candidate=BUILT, source_cancelled=True, landing=LandingView(1, 7, "pushing")),
            {},
            Stage.LANDING,
            [],
        ),
        (
            replace(ENTRY, candidate=BUILT, source_cancelled=True, landing=LandingView(1, 7, "intent")),
            {},
            Stage.LANDING,
            ["AbandonLanding", "CloseEntry"],
        ),
        (
            replace(
                ENTRY,
                target="convoy/c",
                convoy="gt-c",
                onto_convoy=True,
                candidate=BUILT,
                gates=(PASS,),
                verdicts=(OK,),
            ),
            {"merge_strategy": "pr"},
            Stage.GREEN,
            ["Land"],
        ),
        (replace(ENTRY, held="gate_error", admitted_at=None), {}, Stage.HELD, []),
        (replace(ENTRY, blockers=(Blocker("gt-r", "open"),)), {}, Stage.BLOCKED, ["Leave"]),
        (
            replace(ENTRY, admitted_at=None, blockers=(Blocker("gt-r", "failed"),)),
            {},
            Stage.BLOCKED,
            ["CloseEntry"],
        ),
    ],
)
def test_an_entrys_stage_and_what_follows(
    entry: EntryView, settings: dict[str, Any], stage: Stage, act: list[str]
) -> None:
    rig = replace(RIG, config=config(**settings))
    assert standing(entry, rig, NOW).stage == stage
    assert actions(replace(world(entries=(entry,)), rigs={1: rig})) == act


def test_a_config_that_checks_nothing_lands_nothing() -> None:
    rig = replace(RIG, config=config(gates=[], code_review=False), problems=("nothing would check a change",))
    found = replace(world(entries=(replace(ENTRY, candidate=BUILT),)), rigs={1: rig})
    assert actions(found) == ["Leave"]


def test_every_stage_has_a_phase() -> None:
    names = {phase(stage, admitted=a) for stage in Stage for a in (True, False)}
    assert names == {"blocked", "awaiting_human", "queued", "gating", "reviewing", "landing"}


def test_the_queues_order_is_priority_convoy_age_retries_age() -> None:
    hour = dt.timedelta(hours=1)
    late = replace(ENTRY, id="late", admitted_at=None, created_at=NOW + hour)
    first = replace(late, id="urgent", priority=0)
    convoy = replace(late, id="convoy", convoy_age=NOW - hour)
    retried = replace(late, id="retried", attempts=1)
    assert [e.id for e in in_queue_order([retried, late, convoy, first])] == ["urgent", "convoy", "late", "retried"]


def test_one_lane_pops_one_and_lanes_do_not_wait_for_one_another() -> None:
    waiting = [replace(ENTRY, id=f"gt-{n}", branch=f"b{n}", admitted_at=None, target=t) for n, t in enumerate("aab")]
    admitted = [d.actions[0] for d in plan(world(entries=tuple(waiting))) if d.rule == "admit"]
    assert {getattr(a, "entry", "") for a in admitted} == {"gt-0", "gt-2"}


def test_at_most_one_decision_for_each_subject() -> None:
    run = RunView("run-1", "gt-b", "polecat", "running", 1, NOW, rig=1, lease_until=NOW)
    bead = BeadView("gt-b", "in_progress", NOW, 1, runs=(run,))
    found = plan(world(beads=(bead,), runs=(run,), entries=(replace(ENTRY, candidate=BUILT),)))
    subjects = [d.subject for d in found]
    assert len(subjects) == len(set(subjects))


@pytest.mark.parametrize(
    ("run", "rule"),
    [
        ({"state": "queued"}, "await-runner"),
        ({"state": "queued", "stop_requested": True}, "stop-queued"),
        ({"state": "starting", "start_deadline": NOW + dt.timedelta(seconds=1)}, "await-claim"),
        ({"state": "starting", "start_deadline": NOW - dt.timedelta(seconds=1)}, "start-deadline"),
        ({"state": "starting", "start_deadline": None}, "await-claim"),
        ({"state": "running", "lease_until": NOW - dt.timedelta(seconds=14)}, "working"),
        ({"state": "running", "lease_until": NOW - dt.timedelta(seconds=16)}, "lease-over"),
        ({"state": "running", "lease_until": None}, "working"),
        ({"state": "running", "exited_at": NOW, "exit_code": 0}, "exited"),
    ],
)
def test_r16_r30_time_makes_us_look_and_null_is_a_case_of_its_own(run: dict[str, Any], rule: str) -> None:
    view = RunView(id="run-1", bead="gt-x", kind="polecat", attempt=1, created_at=NOW, **run)
    assert plan(world(runs=(view,)))[0].rule == rule


@pytest.mark.parametrize(
    ("code", "signal", "timed_out", "outcome"),
    [(0, None, False, "pass"), (1, None, False, "fail"), (126, None, False, "error"), (127, None, False, "error"),
     (None, 9, False, "error"), (None, 15, True, "error"), (None, None, False, "error"), (255, None, False, "fail")],
)  # fmt: skip
def test_a_gates_outcome(code: int | None, signal: int | None, timed_out: bool, outcome: str) -> None:
    assert classify(code, signal, timed_out) == outcome


def test_file_and_line_are_found_in_common_output() -> None:
    text = '  File "pkg/test_a.py", line 9, in test\nsrc/b.ts:12:5 - error TS1\n  at https://x.org:80\n./c.rb:3: bad\n'
    assert [(f["file"], f["line"]) for f in first_failures(text)] == [
        ("pkg/test_a.py", 9),
        ("src/b.ts", 12),
        ("c.rb", 3),
    ]


def test_apply_has_an_arm_for_every_action() -> None:
    acts = Path(__file__).parents[2].joinpath("refinery/tick/acts")
    source = "\n".join(path.read_text() for path in sorted(acts.glob("*.py")))
    patterns = (n.cls for n in ast.walk(ast.parse(source)) if isinstance(n, ast.MatchClass))
    named = {cls.id for cls in patterns if isinstance(cls, ast.Name)}
    union: Any = Action
    assert {kind.__name__ for kind in union.__args__} <= named
