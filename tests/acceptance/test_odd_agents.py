"""Agents as they are outside (rows G of the cases): whatever they do with git, their work lands or fails with a reason.

Nothing is called merged without its file on the target, and the next agent is not harmed.
"""

from __future__ import annotations

import contextlib
import sys

import pytest

from beads import config as configs
from beads import ledger
from beads.models import Bead
from refinery.pages import boards
from tests.acceptance.agents import odd
from tests.acceptance.conftest import AGENTS, Stage


def play(stage: Stage) -> None:
    """A town of agents that work oddly in their first attempt, with a gate for line ends and one for a file."""
    stage.open(gates=['! grep -rq "$(printf "\\r")" --include=*.txt .', "grep -q Project README.md"])
    agents = {"polecat": {"command": [sys.executable, str(AGENTS / "oddly.py")]}}
    ledger.set_config(stage.rig, configs.validate({"agents": agents, "dispatch": {"max_attempts": 3}}))
    stage.rig.refresh_from_db()
    stage.commit("main", {"CHANGES.md": "two\n"})  # so that there is something to go back behind


def end(stage: Stage, bead: Bead, files: dict[str, str]) -> str:
    """What became of it, in the words of `odd.RIGHT`; other words are wrong. `files`: what is on the target."""
    found = Bead.objects.get(pk=bead.pk)
    if found.resolution in ("merged", "already_merged"):
        return "landed" if f"work/{bead.pk}.txt" in files else "closed without its file"
    if found.resolution == "nothing_changed":
        return "nothing"
    if found.status == "failed":
        return "failed" if found.reason else "failed without a reason"
    if found.status == "closed":
        return f"closed {found.resolution}"
    return "asked" if waits(stage, bead) else found.status


def waits(stage: Stage, bead: Bead) -> bool:
    """True when a person is to say what becomes of it."""
    return boards.Board(stage.town).bead_phase(Bead.objects.get(pk=bead.pk)) == "awaiting_human"


def at_an_end(stage: Stage, bead: Bead) -> bool:
    """True when nothing more comes of it without a person."""
    return Bead.objects.get(pk=bead.pk).status in ("closed", "failed") or waits(stage, bead)


@pytest.mark.long
def test_g_odd_agents_work_lands_or_fails_with_a_reason_and_harms_nobody(stage: Stage) -> None:
    """All of them at once, so that each may come upon what the others have left."""
    play(stage)
    beads = {way: stage.sling(way, "") for way in sorted(odd.RIGHT)}
    with contextlib.suppress(AssertionError):  # what has not ended is named below
        stage.until(lambda: all(at_an_end(stage, bead) for bead in beads.values()), 90)
    listed = stage.git("ls-tree", "-r", "main", cwd=stage.remote).splitlines()
    files = {line.partition("\t")[2]: line.split()[0] for line in listed}
    ends = {way: end(stage, bead, files) for way, bead in beads.items()}
    assert {way: told for way, told in ends.items() if told not in odd.RIGHT[way]} == {}
    assert [name for name, mode in files.items() if mode == "160000"] == []  # a gitlink without .gitmodules
    assert stage.file("README.md") == "# Project"
    for way, bead in beads.items():  # each brought its own file and nobody else's
        made = Bead.objects.get(pk=bead.pk).merge_sha
        if ends[way] == "landed":
            names = stage.git("show", "--format=", "--name-only", made, cwd=stage.remote).splitlines()
            assert [n for n in names if n.startswith("work/")] == [f"work/{bead.pk}.txt"], way
