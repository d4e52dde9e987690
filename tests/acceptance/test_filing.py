"""What agents file, through real runs: nothing starts by itself, a flood is bounded, and a released bead lands."""

from __future__ import annotations

import json
import sys
from io import StringIO

import pytest
from django.core.management import call_command

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead, Escalation
from refinery.pages import boards
from refinery.tick import reconciler
from tests.acceptance.conftest import AGENTS, Stage

HEAD = """
import json, subprocess, sys, urllib.error
sys.path.insert(0, {agents!r})
from tool import call

def tried(tool, **arguments):
    try:
        call(tool, **arguments)
        return 200
    except urllib.error.HTTPError as error:
        return error.code

prime = call("gt_prime")
title = prime["bead"]["title"]
"""
TAIL = """
subprocess.run("git add -A && git commit -qm work", shell=True, check=True)
call("gt_done", summary="done")
"""


def play(stage: Stage, script: str, **limits: int) -> None:
    """A town whose polecats are this script."""
    path = stage.root / "agent.py"
    path.write_text(HEAD.format(agents=str(AGENTS)) + script + TAIL)
    stage.open()
    ledger.set_config(
        stage.rig,
        configs.validate({"agents": {"polecat": {"command": [sys.executable, str(path)]}}, "limits": limits}),
    )
    stage.rig.refresh_from_db()


def release(*ids: str) -> None:
    """As a person types it."""
    call_command("bead", "release", *ids, "--json", stdout=StringIO())


def at_rest(stage: Stage) -> None:
    """Drive until nothing is going on any more."""
    stage.until(
        lambda: (
            not Run.objects.exclude(state="ended").exists()
            and not any(d.actions for d in reconciler.explain(stage.town))
            and not stage.town.facts.filter(processed_at=None).exists()
            and not stage.town.effects.filter(state="pending").exists()
        )
    )


def test_p6_what_a_polecat_files_lands_only_after_a_person_has_released_it(stage: Stage) -> None:
    play(
        stage,
        """
if title == "First":
    call("gt_bead_create", title="Second", body="do more")
open(title + ".txt", "w").write(title)
""",
    )
    first = stage.await_bead(stage.sling("First", ""), "closed", "failed")
    assert first.resolution == "merged"
    at_rest(stage)
    second = Bead.objects.get(title="Second", type="issue")
    assert (second.status, second.depth, second.unreleased) == ("open", 1, True)
    assert not Run.objects.filter(bead=second).exists()
    board = boards.Board(stage.town)
    assert (board.bead_phase(second), [b.id for b in board.unreleased]) == ("awaiting_human", [second.pk])
    call_command("wait", "--idle", "--timeout", "5", "--json", stdout=StringIO())  # it waits for a person: idle
    release(second.pk)
    assert stage.await_bead(second, "closed", "failed").resolution == "merged"
    assert stage.file("Second.txt") == "Second"


@pytest.mark.long
def test_s9_a_run_that_floods_starts_no_agent_and_is_bounded(stage: Stage) -> None:
    play(
        stage,
        """
big = "x" * 200_000
told = {
    "beads": [tried("gt_bead_create", title=f"More {n}", body=big) for n in range(60)],
    "big": [tried("gt_escalate", title=f"Fire {n}", body=big, severity="critical") for n in range(60)],
    "small": [tried("gt_escalate", title=f"Fire {n}", body="x" * 16_000, severity="critical") for n in range(60)],
}
json.dump(told, open("told.json", "w"))
""",
    )
    bead = stage.await_bead(stage.sling("Flood", ""), "closed", "failed")
    assert bead.resolution == "merged"  # its own work is judged as ever
    at_rest(stage)
    assert json.loads(stage.file("told.json")) == {
        "beads": [200] * 5 + [429] * 55, "big": [400] * 60, "small": [200] * 5 + [429] * 55,
    }  # fmt: skip
    filed = Bead.objects.filter(type="issue").exclude(filed_by="")
    assert filed.count() == 5 and all(b.unreleased for b in filed)
    assert Bead.objects.filter(type="issue").count() == 6
    assert set(Run.objects.exclude(kind="gates").values_list("bead", flat=True)) == {bead.pk}
    assert Escalation.objects.filter(severity="critical").count() == 5
    assert Escalation.objects.filter(severity="low").count() == 2  # one notice for each limit that was hit


def test_s9_a_chain_that_people_release_ends_at_the_depth(stage: Stage) -> None:
    play(
        stage,
        """
code = tried("gt_bead_create", title=title + "+")
open(title + ".txt", "w").write(str(code))
""",
    )
    stage.await_bead(stage.sling("a", ""), "closed", "failed")
    for title in ("a+", "a++"):
        bead = Bead.objects.get(title=title, type="issue")
        release(bead.pk)
        stage.await_bead(bead, "closed", "failed")
    at_rest(stage)
    assert [stage.file(f"{title}.txt") for title in ("a", "a+", "a++")] == ["200", "200", "429"]
    assert not Bead.objects.filter(title="a+++").exists()
