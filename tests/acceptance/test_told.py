"""What people are told of runs that come to nothing: why, what there is to see, and what to do about it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead, Fact
from refinery.models import GateResult
from refinery.pages import outcomes
from tests.acceptance.conftest import Stage


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    capsys.readouterr()
    call_command(*words)
    return capsys.readouterr().out


def ended(stage: Stage, bead: Bead) -> Bead:
    """The bead once it has ended."""
    stage.until(lambda: Bead.objects.get(pk=bead.pk).status in ("closed", "failed"))
    return Bead.objects.get(pk=bead.pk)


def test_g2_a_change_that_is_on_the_target_already_is_nothing_changed(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commit is new and its tree is not: the build's answer is taken in, and a person is asked."""
    stage.open()
    first = stage.sling("First", "echo a > a.txt")
    assert ended(stage, first).resolution == "merged"
    second = ended(stage, stage.sling("Second", "echo a > a.txt", first))
    assert (second.status, second.resolution) == ("failed", "nothing_changed")
    assert not Fact.objects.exclude(quarantined_at=None).exists()
    text = said(capsys, "bead", "show", second.pk)
    assert f"if nothing was needed: gastown bead confirm {second.pk}" in text
    assert f"to let it be tried again: gastown bead retry {second.pk}" in text


def test_an_agent_that_dies_tells_its_last_line(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.open()
    dies = "import sys; print('agent: \x1b[31mno key\x1b[0m is set', file=sys.stderr); sys.exit(3)"
    agents = {"polecat": {"command": [sys.executable, "-c", dies]}}
    ledger.set_config(stage.rig, configs.validate({"agents": agents, "dispatch": {"max_attempts": 1}}))
    stage.rig.refresh_from_db()
    bead = ended(stage, stage.sling("Hello", ""))
    assert 'ended without gt_done (exit code 3): "agent: no key is set"' in bead.reason
    run = Run.objects.get(bead=bead)
    text = said(capsys, "runs", "show", run.pk)
    assert "work: nothing" in text
    assert "step agent: exit 3" in text
    assert f"gastown runs log {run.pk}" in text
    assert "no key is set" in said(capsys, "runs", "list", "--all")


def test_what_an_agent_did_not_commit_is_shown_by_the_command_that_is_named(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.open()
    bead = stage.sling("Hello", "echo precious > lost.txt; exit 4")
    run = stage.until(lambda: Run.objects.filter(bead=bead, outcome="failed").first())
    told = json.loads(said(capsys, "runs", "show", run.pk, "--json"))["data"]
    assert (told["work"], told["on_remote"]) == ("uncommitted", False)
    command = outcomes.restore(run)
    assert command in said(capsys, "runs", "show", run.pk)
    _, _, mirror, *show = shlex.split(command)
    assert "+precious" in stage.git(*show, cwd=Path(mirror))


def test_an_agent_that_pushes_is_told_that_there_is_no_need(stage: Stage) -> None:
    stage.open()
    push = "echo a > a.txt; ! git push origin HEAD > out 2>&1; grep -q 'no push is needed' out; rm out"
    assert ended(stage, stage.sling("Push", push)).resolution == "merged"


def test_a_gate_without_network_is_told_that_it_has_none(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    python = f"{sys.executable} -c"
    stage.open(agents=False, gates=[f"{python} 'import socket; socket.getaddrinfo(\"example.org\", 443)'"])
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    hint = "this gate has no network: `network = true` for it"
    assert hint in GateResult.objects.get(entry=entry).output
    text = said(capsys, "mq", "show", entry.pk)
    assert hint in text
    run = Run.objects.get(kind="gates", bead=entry.pk)
    assert f"gastown runs log {run.pk}" in text
    assert hint in said(capsys, "runs", "log", run.pk)
