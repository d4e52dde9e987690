"""P: words arrive in the prompt files that real agents get, and the commands in them work where they are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead
from refinery.decisions import reviews
from refinery.models import ReviewEntry
from tests.acceptance.conftest import AGENTS, WHO, Stage


def talkers(stage: Stage, **refinery: Any) -> None:
    """Agents that go by their words, in a repository that says how it wants to be worked in."""
    stage.commit("main", {"AGENTS.md": "Be kind.\n", "REVIEW.md": "Be strict.\n"})
    stage.open(code_review=True, **refinery)
    told = {"command": [sys.executable, str(AGENTS / "talker.py")]}
    agents = {
        "polecat": told | {"instructions": "Sign your work."},
        "refinery": told | {"instructions": "Be brief."},
    }
    ledger.set_config(stage.rig, configs.validate({"agents": agents}))


def prompts(bead: Bead | str, purpose: str) -> list[str]:
    """The prompt files of a bead's ended runs, in order."""
    runs = Run.objects.filter(bead=bead, purpose=purpose).order_by("created_at")
    return [(Path(settings.GASTOWN_HOME) / "runs" / run.pk / "prompt.md").read_text() for run in runs]


@pytest.mark.long
def test_p3_p4_the_task_and_the_diff_reach_the_author_and_its_answer_the_reviewer(stage: Stage) -> None:
    talkers(stage)
    bead = stage.sling("Signs", "write a.txt\n\nIt wants b.txt only on Sundays.")
    stage.await_bead(bead, "closed", "failed")
    entry = ReviewEntry.objects.get(source=bead)
    assert (entry.state, [v.decision for v in entry.verdicts.all()]) == ("merged", ["request_changes", "approve"])
    assert len({v.head_sha for v in entry.verdicts.all()}) == 1
    (work,), (rework,) = prompts(bead, "work"), prompts(Bead.objects.get(purpose="rework"), "rework")
    for text in (work, rework):
        assert "> It wants b.txt only on Sundays." in text
        assert "\nSign your work.\n" in text and "`AGENTS.md`" in text and "REVIEW.md" not in text
        assert "Be kind." not in text
    assert "> look at b.txt again" in rework
    first, second = prompts(entry.bead, "review")
    assert "it is right as it is" not in first
    assert "> it is right as it is" in second and "> look at b.txt again" in second
    assert "`REVIEW.md` and `AGENTS.md`" in first and "\nBe brief.\n" in first


@pytest.mark.long
def test_p1_a_persons_words_on_a_held_entry_are_done_by_the_next_round(stage: Stage) -> None:
    talkers(stage, max_rework_cycles=0)
    bead = stage.sling("Signs", "write a.txt\n\nIt wants b.txt, too.")
    entry = stage.until(lambda: ReviewEntry.objects.filter(source=bead, held="rework_limit").first())
    reviews.request_changes(entry, by=WHO, body="write gate.sh and then write b.txt")
    stage.await_bead(bead, "closed", "failed")
    assert (stage.file("gate.sh"), stage.file("b.txt")) == ("gate.sh", "b.txt")
    run = Run.objects.get(purpose="rework")
    assert "the change had 1 files" in run.summary  # what the diff in its prompt showed it, inside the sandbox
    assert "> write gate.sh and then write b.txt" in prompts(run.bead, "rework")[0]


@pytest.mark.long
def test_a_refinery_reads_the_red_gate_and_writes_the_request(stage: Stage) -> None:
    gate = "test ! -e a.txt || test -f b.txt || { echo 'a.txt:1: needs b.txt'; exit 1; }"
    talkers(stage, triage="auto", gates=[gate])
    bead = stage.sling("Signs", "write a.txt")
    stage.await_bead(bead, "closed", "failed")
    assert stage.file("b.txt") == "b.txt"
    entry = ReviewEntry.objects.get(source=bead)
    (look,), (rework,) = prompts(entry.bead, "triage"), prompts(Bead.objects.get(purpose="rework"), "rework")
    assert "> a.txt:1: needs b.txt" in look
    assert "> the gate misses a file" in rework and "> - b.txt: write b.txt" in rework
    assert "needs b.txt" in rework
    assert [v.decision for v in entry.verdicts.all()] == ["approve"]
