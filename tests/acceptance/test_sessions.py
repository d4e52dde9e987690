"""A run goes on with its agent's session where it can, else it is told what there is to know: real runs in the sandbox.

The program in the place of `claude` keeps its sessions as that does (`agents/remembers.py`); the real ones have the
same stories in `test_agents.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from agents import sessions
from agents.models import Run
from agents.runtime import sandbox
from beads import config as configs
from beads import ledger
from beads.models import Bead, Escalation
from refinery.decisions import operators, steering
from refinery.decisions.subjects import run_of
from refinery.pages import boards
from tests.acceptance.conftest import AGENTS, WHO, Stage

pytestmark = pytest.mark.skipif(sandbox.available() == sandbox.UNSANDBOXED, reason="no sandbox can be started here")


@pytest.fixture
def town(stage: Stage) -> Stage:
    """A town whose polecat and refinery are `claude`."""
    return open_town(stage)


def open_town(stage: Stage, *, review: bool = False, **role: Any) -> Stage:
    programs = stage.root / "programs"
    programs.mkdir()
    program = programs / "claude"
    program.write_text(f"#!{sys.executable}\n" + f"import runpy\nrunpy.run_path({str(AGENTS / 'remembers.py')!r})\n")
    program.chmod(0o755)
    stage.open(agents=False, code_review=review)
    told = {"preset": "claude", **role}
    town = {**stage.town.config, "agents": {"polecat": told, "refinery": told}}
    town["sandbox"] = {**town["sandbox"], "path": [str(programs)]}
    ledger.set_config(stage.town, configs.validate(town))
    for row in (stage.town, stage.rig):
        row.refresh_from_db()
    stage.rig.town = stage.town
    return stage


def runs(bead: Bead) -> list[Run]:
    return list(Run.objects.filter(account=bead).exclude(kind="gates").order_by("created_at"))


def landed(stage: Stage, bead: Bead) -> dict[str, Any]:
    """What its agent remembered when it made what has landed."""
    ended = stage.await_bead(bead, "closed", "failed")
    told = [(run.purpose, run.outcome, run.reason) for run in runs(bead)]
    assert ended.resolution == "merged", f"{ended.reason}\n{told}\n{log(runs(bead)[-1])}"
    found: dict[str, Any] = json.loads(stage.git("show", "main:memory.txt", cwd=stage.remote))
    return found


def log(run: Run) -> str:
    return Path(run.log_path).read_text(errors="replace")


def test_a_retry_goes_on_with_its_session_and_is_told_what_is_new(town: Stage) -> None:
    bead = town.sling("Paint it", "STUMBLE")
    told = landed(town, bead)
    first, second = runs(bead)
    assert (first.outcome, first.resumed, told["remembers"]) == ("failed", "", 1)
    assert second.resumed and second.resumed in log(first) and second.resumed in log(second)
    assert told["cwd"] == "/gastown/tree"
    assert "go on with" in told["prompt"] and "stumbled" in told["prompt"] and "STUMBLE" in told["prompt"]
    assert "a worker agent of Gastown" not in told["prompt"], "the whole brief is in a file, and not said again"


def test_rework_and_the_second_review_go_on_each_with_its_own(stage: Stage) -> None:
    town = open_town(stage, review=True)
    bead = town.sling("Paint it", "remembers")
    told = landed(town, bead)
    work, review, rework, again = runs(bead)
    assert [run.purpose for run in (work, review, rework, again)] == ["work", "review", "rework", "review"]
    assert (told["purpose"], told["remembers"]) == ("rework", 1)
    assert "once more, please" in told["prompt"]
    assert rework.resumed in log(work) and again.resumed in log(review) and rework.resumed != again.resumed
    assert again.summary == "fine, remembering 1"


def test_fresh_is_handed_over_in_words(stage: Stage) -> None:
    town = open_town(stage, sessions="fresh")
    told = landed(town, town.sling("Paint it", "STUMBLE"))
    assert told["remembers"] == 0
    assert "a worker agent of Gastown" in told["prompt"] and "What was tried before" in told["prompt"]
    assert "stumbled" in told["prompt"]


def test_a_session_that_is_lost_costs_nothing(town: Stage) -> None:
    """The store is there, and the session in it is not: the same run begins anew, with the whole brief."""
    ledger.set_config(town.rig, configs.validate({"dispatch": {"backoff": ["2s"]}}))
    bead = town.sling("Paint it", "STUMBLE")
    town.until(lambda: Run.objects.filter(bead=bead, state="ended").exists())
    place = sessions.root() / bead.pk / "polecat" / "claude" / "store"
    (kept,) = place.rglob("*.jsonl")
    kept.rename(kept.with_name("another.jsonl"))
    told = landed(town, bead)
    second = runs(bead)[1]
    assert (second.outcome, second.resumed, told["remembers"]) == ("done", "", 0)
    assert "it begins anew" in log(second)
    assert "a worker agent of Gastown" in told["prompt"] and "stumbled" in told["prompt"]


def test_who_fails_going_on_begins_anew_the_next_time(town: Stage) -> None:
    bead = town.sling("Paint it", "REFUSE")
    told = landed(town, bead)
    assert [bool(run.resumed) for run in runs(bead)] == [False, True, False]
    assert told["remembers"] == 0 and "refused" in told["prompt"]


def test_what_is_too_large_is_dropped_and_said(town: Stage) -> None:
    bead = town.sling("Paint it", "STUMBLE HOARD")
    assert landed(town, bead)["remembers"] == 0
    first, second = runs(bead)
    assert "its session is not kept: it is larger than 50 MiB" in log(first)
    assert second.resumed == ""
    assert not list((Path(settings.GASTOWN_HOME) / "sessions" / bead.pk).rglob("hoard"))


def test_who_asks_and_exits_goes_on_with_the_answer_in_its_session(town: Stage) -> None:
    bead = town.sling("Paint it", "ASK")
    question = town.until(lambda: Escalation.objects.filter(about=bead).first())
    town.until(lambda: not Run.objects.live().exists())
    assert runs(bead)[0].outcome == "stopped"
    assert boards.Board(town.town).bead_phase(Bead.objects.get(pk=bead.pk)) == "awaiting_human"
    operators.answer(question, by=WHO, text="Blue")
    told = landed(town, bead)
    assert told["remembers"] == 1 and "answered:\n> Blue" in told["prompt"]
    assert len(runs(bead)) == 2


def test_a_hint_stops_it_at_once_and_the_next_has_what_was_not_committed(town: Stage) -> None:
    bead = town.sling("Paint it", "HANG")
    run = town.until(lambda: Run.objects.filter(bead=bead, status_message="hanging").first())
    steering.hint_run(run_of(run.pk), by=WHO, text="Do not hang")
    told = landed(town, bead)
    first, second = runs(bead)
    assert (first.outcome, first.reason) == ("stopped", f"stopped by {WHO}, to go on with a hint")
    assert first.salvage_ref == f"refs/gastown/salvage/{first.pk}"
    assert (told["remembers"], told["saved"], second.attempt) == (1, "a draft\n", 2)
    assert told["prompt"].index("heed it first\n") < told["prompt"].index("## The task")


def test_a_session_outlives_the_shim_that_was_to_keep_it(town: Stage) -> None:
    bead = town.sling("Paint it", "HANG")
    run = town.until(lambda: Run.objects.filter(bead=bead, status_message="hanging").exclude(session="").first())
    steering.hold_bead(Bead.objects.get(pk=bead.pk), by=WHO)
    os.kill(int((Path(settings.GASTOWN_HOME) / "runs" / run.pk / "pid").read_text()), signal.SIGKILL)
    town.until(lambda: not Run.objects.live().exists())
    town.runner.leftovers.clean()
    assert [path.name for path in sessions.root().rglob("*.jsonl")] == [f"{Run.objects.get(pk=run.pk).session}.jsonl"]


def test_nobody_else_sees_a_session_and_it_goes_with_its_bead(town: Stage) -> None:
    one = town.sling("One", "STUMBLE")
    assert landed(town, one)["remembers"] == 1
    two = town.sling("Two", "STUMBLE")
    assert landed(town, two)["remembers"] == 1
    kept = {path.name: {part.name for part in path.iterdir()} for path in sessions.root().iterdir()}
    assert kept == {one.pk: {"polecat"}, two.pk: {"polecat"}}
    assert runs(one)[1].resumed != runs(two)[1].resumed
    assert {oct(path.stat().st_mode & 0o777) for path in sessions.root().rglob("*") if path.is_file()} == {"0o600"}
    sessions.forget([one.pk])
    assert {path.name for path in sessions.root().iterdir()} == {two.pk}
    shutil.copytree(sessions.root() / two.pk, sessions.root() / "gt-none")
    assert sessions.forget_strays() == 1
    assert os.listdir(sessions.root()) == [two.pk]
