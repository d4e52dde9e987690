"""docs/glossary.md says of each state what it means: none is missing, none is invented."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from django.db import models

from agents.lifecycle import RunKind, RunOutcome
from agents.models import Run
from beads.lifecycle import BeadStatus, BeadType, Purpose, Resolution
from beads.models import Bead, Effect, Escalation, Fact
from refinery.core import readiness
from refinery.core.reasons import Exit, Held
from refinery.core.stages import Stage, phase
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, Verdict
from refinery.pages import conversation

GLOSSARY = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text()
TABLES = {
    title: re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", text, re.M)
    for title, text in re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", GLOSSARY, re.M | re.S)
}


def legal(model: type[models.Model], field: str) -> set[str]:
    """The values that the database accepts, by the table's own constraint."""
    (values,) = (
        condition[1]
        for constraint in model._meta.constraints
        if isinstance(constraint, models.CheckConstraint) and isinstance(constraint.condition, models.Q)
        for condition in constraint.condition.children
        if isinstance(condition, tuple) and condition[0] == f"{field}__in"
    )
    return {str(value) for value in values}


def returned(function: Callable[..., Any]) -> set[str]:
    """The words that a function may return, alone or as the first of a pair."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Return) and node.value is not None:
            value = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
            ends = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            found |= {str(end.value) for end in ends if isinstance(end, ast.Constant)}
    return found


def moments(model: type[models.Model], first: str, *names: str) -> set[str]:
    """States that a row's time stamps tell: each name is that of a column NAME_at."""
    assert {f"{name}_at" for name in names} <= {field.name for field in model._meta.fields}
    return {first, *names}


STATES: dict[str, Iterable[str]] = {
    "Type of a bead": set(BeadType) | legal(Bead, "type"),
    "Purpose of an issue": Purpose,
    "Status of a bead": set(BeadStatus) | legal(Bead, "status"),
    "Resolution of a final bead": Resolution,
    "Phase of a live bead": returned(readiness.bead_phase),
    "Phase of a convoy": returned(readiness.convoy_phase) | returned(readiness.ended_phase),
    "Phase of a request": returned(conversation.phase),
    "State of an entry": legal(ReviewEntry, "state"),
    "Phase of an active entry": {phase(stage, admitted=admitted) for stage in Stage for admitted in (True, False)},
    "Stage of an active entry": Stage,
    "Exit of an ended entry": Exit,
    "Hold of an active entry": Held,
    "Result of a build": legal(Candidate, "result"),
    "Outcome of a gate": legal(GateResult, "outcome"),
    "Decision of a reviewer": legal(Verdict, "decision"),
    "State of a landing": legal(Landing, "state"),
    "Kind of a run": RunKind,
    "State of a run": legal(Run, "state"),
    "Outcome of an ended run": RunOutcome,
    "State of an escalation": moments(Escalation, "open", "acknowledged", "closed"),
    "State of a fact": moments(Fact, "pending", "processed", "quarantined"),
    "State of an effect": legal(Effect, "state"),
}


def test_the_tables_are_those_of_the_states() -> None:
    assert TABLES.keys() == STATES.keys()


@pytest.mark.parametrize("title", STATES)
def test_each_state_has_its_meaning(title: str) -> None:
    assert [value for value, _ in TABLES[title]] == list(dict.fromkeys(value for value, _ in TABLES[title]))
    assert {value for value, _ in TABLES[title]} == {str(value) for value in STATES[title]}
