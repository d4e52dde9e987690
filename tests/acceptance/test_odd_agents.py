"""Agents as they are outside (rows G of the cases): whatever they do with git, their work lands or fails with a reason.

Nothing is called merged without its file on the target, and the next agent is not harmed.
"""

from __future__ import annotations

import sys

import pytest

from beads import config as configs
from beads import ledger
from beads.models import Bead
from refinery import shows
from tests.acceptance.agents import odd
from tests.acceptance.conftest import AGENTS, Stage

# What runs cannot do before each has a repository of its own, whose work comes back through the door (ADR 15). Strict:
# whoever makes one of them pass takes it out of here.
NOT_YET: frozenset[str] = frozenset()


def play(stage: Stage) -> None:
    """A town of agents that work oddly in their first attempt, with a gate for line ends and one for a file."""
    stage.open(gates=['! grep -rq "$(printf "\\r")" --include=*.txt .', "grep -q Project README.md"])
    agents = {"polecat": {"command": [sys.executable, str(AGENTS / "oddly.py")]}}
    ledger.set_config(stage.rig, configs.validate({"agents": agents, "dispatch": {"max_attempts": 3}}))
    stage.rig.refresh_from_db()
    stage.commit("main", {"CHANGES.md": "two\n"})  # so that there is something to go back behind


def end(stage: Stage, bead: Bead) -> str:
    """What became of it, in the words of `odd.RIGHT`; other words are wrong."""

    def ended() -> bool:
        found = Bead.objects.get(pk=bead.pk)
        return found.status in ("closed", "failed") or shows.Board(stage.town).bead_phase(found) == "awaiting_human"

    stage.until(ended, 60)
    found = Bead.objects.get(pk=bead.pk)
    files = stage.git("ls-tree", "-r", "--name-only", "main", cwd=stage.remote).splitlines()
    if found.resolution in ("merged", "already_merged"):
        return "landed" if f"work/{bead.pk}.txt" in files else "closed without its file"
    if found.status == "failed":
        return "failed" if found.reason else "failed without a reason"
    if found.status == "closed":
        return "nothing" if found.resolution == "nothing_changed" else f"closed {found.resolution}"
    return "asked" if shows.Board(stage.town).bead(found) else "asked, nobody knows what"


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.xfail(strict=True, reason="ADR 15") if way in NOT_YET else ())
        for way in sorted(odd.RIGHT)
    ],
)
def test_g_an_odd_agents_work_lands_or_fails_with_a_reason_and_harms_nobody(stage: Stage, way: str) -> None:
    play(stage)
    assert end(stage, stage.sling(way, "")) in odd.RIGHT[way]
    agents = {"polecat": {"command": [sys.executable, str(AGENTS / "polecat.py")]}}
    ledger.set_config(stage.rig, configs.validate({"agents": agents}))
    after = stage.await_bead(stage.sling("After", "echo after > after.txt"), "closed", "failed")
    assert (after.resolution, stage.file("after.txt"), stage.file("README.md")) == ("merged", "after", "# Project")
