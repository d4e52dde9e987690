"""Whose approval counts, for which head, and when it merges by itself. Tables, no database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from beads.config import effective, validate
from refinery.core.approvals import approvals, is_own, objection
from refinery.core.entryviews import EntryView, VerdictView, person
from refinery.core.rules import plan
from refinery.core.stages import Stage
from refinery.core.standing import standing
from refinery.core.world import RigView, World
from tests.unit.test_rules import BUILT, ENTRY, NOW, PASS

LATER = NOW + dt.timedelta(hours=1)
READY = replace(ENTRY, candidate=BUILT, gates=(PASS,), author="web:ann")


def rig(approvals: int = 1, **refinery: Any) -> RigView:
    given = {"code_review": False, "gates": ["test"], "merge_strategy": "pr", **refinery}
    return RigView(
        1, "proj", "main", effective(validate({"refinery": given, "pr": {"required_approvals": approvals}}), {})
    )


def said(number: int, by: str, decision: str = "approve", head: str = "head", merge_now: bool = False) -> VerdictView:
    return VerdictView(number, decision, head, by, by.partition(":")[1] == ":", NOW, merge_now)


@pytest.mark.parametrize(
    ("verdicts", "needed", "stage"),
    [
        ((), 1, Stage.NEEDS_APPROVAL),
        ((said(1, "web:rita"),), 1, Stage.GREEN),
        ((said(1, "web:rita", head="older"),), 1, Stage.NEEDS_APPROVAL),
        ((said(1, "web:ann"),), 1, Stage.NEEDS_APPROVAL),  # her own change
        ((said(1, "admin:ann"),), 1, Stage.NEEDS_APPROVAL),
        ((said(1, "refinery"),), 1, Stage.NEEDS_APPROVAL),  # an agent is no person
        ((said(1, "web:rita"), said(2, "web:rita")), 2, Stage.NEEDS_APPROVAL),
        ((said(1, "web:rita"), said(2, "cli:rita", merge_now=True)), 2, Stage.NEEDS_APPROVAL),
        ((said(1, "web:rita"), said(2, "web:olaf")), 2, Stage.GREEN),
        ((said(1, "web:rita"), said(2, "web:ann"), said(3, "refinery")), 2, Stage.NEEDS_APPROVAL),
        ((said(1, "web:rita"), said(2, "web:olaf", "request_changes")), 1, Stage.CHANGES_REQUESTED),
        ((said(1, "web:olaf", "request_changes"), said(2, "web:rita")), 1, Stage.CHANGES_REQUESTED),
        ((said(1, "web:olaf", "request_changes"), said(2, "web:olaf")), 1, Stage.GREEN),
        ((said(1, "web:olaf", "request_changes"), said(2, "web:rita", merge_now=True)), 1, Stage.GREEN),
        ((said(1, "web:olaf", "request_changes", head="older"), said(2, "web:rita")), 1, Stage.GREEN),
        ((said(1, "web:rita"), said(2, "web:rita", "request_changes")), 1, Stage.CHANGES_REQUESTED),
        ((said(1, "refinery", "request_changes"), said(2, "web:rita")), 1, Stage.GREEN),
        ((said(1, "web:rita"), said(2, "refinery", "request_changes")), 1, Stage.CHANGES_REQUESTED),
    ],
)
def test_what_counts(verdicts: tuple[VerdictView, ...], needed: int, stage: Stage) -> None:
    assert standing(replace(READY, verdicts=verdicts), rig(needed), LATER).stage == stage


def test_the_delay_counts_from_the_approval_that_was_missing() -> None:
    late = replace(said(2, "web:olaf"), created_at=NOW + dt.timedelta(minutes=50))
    entry = replace(READY, verdicts=(said(1, "web:rita"), late))
    assert standing(entry, rig(2), NOW + dt.timedelta(minutes=54)).stage == Stage.MERGE_DELAY
    assert standing(entry, rig(2), NOW + dt.timedelta(minutes=56)).stage == Stage.GREEN
    third = replace(said(3, "web:otto"), created_at=NOW + dt.timedelta(minutes=55))
    assert standing(replace(entry, verdicts=(*entry.verdicts, third)), rig(2), LATER).stage == Stage.GREEN


def test_merge_now_waits_for_no_delay_but_for_every_approval() -> None:
    merge = said(1, "web:rita", merge_now=True)
    assert standing(replace(READY, verdicts=(merge,)), rig(1), NOW).stage == Stage.GREEN
    assert standing(replace(READY, verdicts=(merge,)), rig(2), NOW).stage == Stage.NEEDS_APPROVAL


def test_without_auto_merge_somebody_has_to_merge_it() -> None:
    stands = standing(replace(READY, verdicts=(said(1, "web:rita"),)), rig(auto_merge=False), LATER)
    assert (stands.stage, "merge it" in stands.why) == (Stage.NEEDS_APPROVAL, True)


def test_an_approval_by_a_person_is_none_while_gates_are_missing_or_red() -> None:
    approved = replace(READY, verdicts=(said(1, "web:rita", merge_now=True),))
    assert standing(replace(approved, gates=()), rig(), LATER).stage == Stage.NEEDS_GATES
    assert standing(replace(approved, gates=(replace(PASS, outcome="fail"),)), rig(), LATER).stage == Stage.GATE_FAILED
    assert standing(replace(approved, gates=(replace(PASS, outcome="error"),)), rig(), LATER).stage == Stage.GATE_ERROR


@pytest.mark.parametrize("held", ["", "push_refused"])
def test_a_new_push_is_taken_in_while_a_person_is_waited_for(held: str) -> None:
    entry = replace(READY, admitted_at=None, observed_head="newer", held=held, candidate=BUILT)
    (decision,) = [d for d in plan(World(NOW, "main", rigs={1: rig()}, entries=(entry,))) if d.subject == "entry gt-e"]
    assert decision.rule == "head-moved"


def test_who_is_who() -> None:
    assert person("web:ann") == person("cli:ann") == "ann"
    assert person("proj-toast") == "proj-toast"
    assert is_own("cli:ann", "web:ann")
    assert not is_own("cli:root", "cli:root")  # a shell's user names prove nothing
    assert not is_own("proj-toast", "web:proj-toast")  # an agent's change is nobody's own
    entry: EntryView = replace(READY, verdicts=(said(1, "web:rita"), said(2, "web:ann", "request_changes")))
    assert [v.by for v in approvals(entry)] == ["web:rita"]
    against = objection(entry)
    assert against is not None
    assert against.by == "web:ann"  # an author may send it back
