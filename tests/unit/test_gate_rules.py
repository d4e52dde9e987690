"""Which gates' results count for an entry, and what is said of the others. Tables, no database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beads.config import effective, validate
from refinery.core.actions import Land
from refinery.core.entryviews import EntryView, GateView, NotNeeded
from refinery.core.keys import build_key
from refinery.core.outageviews import EffectView
from refinery.core.rules import plan
from refinery.core.stages import Stage
from refinery.core.standing import standing
from refinery.core.world import RigView, World
from refinery.store.gates import steps_for
from tests.unit.test_rules import BUILT, ENTRY, NOW

UNIT = {"name": "unit", "run": "unit", "paths": ["src/**"]}
DOCS = {"name": "docs", "run": "docs"}
PASS = GateView("docs", "docs", "tree", "pass", id=3)


def rig(*gates: Any) -> RigView:
    settings = validate({"refinery": {"gates": list(gates), "code_review": False, "allow_no_gates": True}})
    return RigView(1, "proj", "main", effective(settings, {}))


def entry(*patterns: tuple[str, ...], gates: tuple[GateView, ...] = ()) -> EntryView:
    return replace(ENTRY, candidate=replace(BUILT, untouched=frozenset(patterns)), gates=gates)


@pytest.mark.parametrize(
    ("gates", "known", "results", "stage", "why"),
    [
        ([UNIT], [("src/**",)], (), Stage.GREEN, "green (none of its gates is needed"),
        ([UNIT], [], (), Stage.NEEDS_GATES, "gates to run: unit"),  # unknown means: run it
        ([UNIT], [("src/**", "lib/**")], (), Stage.NEEDS_GATES, "gates to run: unit"),  # of other patterns
        ([UNIT, DOCS], [("src/**",)], (), Stage.NEEDS_GATES, "gates to run: docs"),
        ([UNIT, DOCS], [("src/**",)], (PASS,), Stage.GREEN, "green"),
        ([], [("src/**",)], (), Stage.GREEN, "green (ungated)"),
    ],
)
def test_a_gate_is_left_out_only_for_exactly_the_paths_that_are_known_to_be_untouched(
    gates: list[Any], known: list[tuple[str, ...]], results: tuple[GateView, ...], stage: Stage, why: str
) -> None:
    found = standing(entry(*known, gates=results), rig(*gates), NOW)
    assert found.stage == stage
    assert found.why == why or (why.startswith("green (none") and found.why.startswith(why))


def test_the_landing_names_what_it_did_not_need() -> None:
    one = entry(("src/**",), gates=(PASS,))
    world = World(
        now=NOW, town="main", rigs={1: rig(UNIT, DOCS)}, entries=(one,),
        effects={build_key("gt-e", 1): EffectView("pending")},
    )  # fmt: skip
    (land,) = [a for d in plan(world) for a in d.actions if isinstance(a, Land)]
    assert land.cars[0].evidence == (NotNeeded("unit", ("src/**",)), 3)


def test_only_needed_gates_become_steps() -> None:
    gates = rig(UNIT, DOCS).config.refinery.gates
    assert [s["name"] for s in steps_for(gates)] == ["unit", "docs"]
    assert [s["name"] for s in steps_for(gates, [["src/**"]])] == ["docs"]
    assert [s["name"] for s in steps_for(gates, [["src/*"]])] == ["unit", "docs"]


def test_an_error_of_one_gate_counts_for_more_than_another_ones_failure() -> None:
    """A host that cannot run one gate may well be why the other one failed."""
    fail = replace(PASS, outcome="fail")
    error = GateView("unit", "unit", "tree", "error", "timed out", 4)
    both = [{"name": "docs", "run": "docs"}, {"name": "unit", "run": "unit"}]
    assert standing(entry(gates=(fail, error)), rig(*both), NOW).stage == Stage.GATE_ERROR
    assert standing(entry(gates=(fail,)), rig(*both), NOW).stage == Stage.GATE_FAILED
