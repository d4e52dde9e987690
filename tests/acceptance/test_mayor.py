"""The mayor through real runs: a request becomes a plan, a person starts it, it lands; a question; crashes."""

from __future__ import annotations

import json
import sys
import threading
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.db import connection

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead, Convoy
from refinery.tick import invariants
from tests.acceptance.conftest import AGENTS, Stage


def open_town(stage: Stage) -> None:
    """A town with a scripted mayor and scripted polecats."""
    stage.open()
    ledger.set_config(
        stage.rig,
        configs.validate({"agents": {"mayor": {"command": [sys.executable, str(AGENTS / "mayor.py")]}}}),
    )
    stage.rig.refresh_from_db()


class Command(threading.Thread):
    """`gastown mayor …`, as a person types it; the test drives the town meanwhile."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words, self.out, self.code = words, StringIO(), 0
        self.start()

    def run(self) -> None:
        try:
            call_command("mayor", *self.words, "--json", "--timeout", "120", stdout=self.out)
        except SystemExit as end:
            self.code = int(end.code or 0)
        finally:
            connection.close()

    def answer(self, stage: Stage) -> dict[str, Any]:
        stage.until(lambda: not self.is_alive())
        data: dict[str, Any] = json.loads(self.out.getvalue())["data"]
        return data


def asked(stage: Stage, *words: str, code: int = 0) -> dict[str, Any]:
    command = Command(*words)
    told = command.answer(stage)
    assert command.code == code, told
    return told


def start(stage: Stage, key: str) -> Bead:
    """A person starts the plan; returns the convoy's bead when it has ended."""
    call_command("convoy", "start", key, "--json", stdout=StringIO())
    return stage.await_bead(Bead.objects.get(pk=key), "closed", "failed")


def test_a_request_is_planned_started_by_a_person_and_lands(stage: Stage) -> None:
    open_town(stage)
    told = asked(stage, "Make the audit log exportable")
    (convoy,) = told["convoys"]
    assert (told["phase"], convoy["staged"]) == ("planned", True)
    assert told["reason"] == f"planned: convoy {convoy['id']}: two steps, from # Project"
    before = stage.sha()
    stage.step()
    assert not Run.objects.exclude(kind="mayor").exists(), "nothing is begun until a person starts it"
    assert start(stage, convoy["id"]).resolution == "merged"
    assert (stage.file("one.txt"), stage.file("two.txt")) == ("one", "two")
    assert stage.sha() != before
    tree = stage.git("ls-tree", "-r", "--name-only", "main", cwd=stage.remote)
    assert "notes.txt" not in tree, "what the mayor commits lands nowhere"
    why = asked(stage, "WHY is it there?")
    assert why["phase"] == "answered"
    assert why["answer"].startswith("heard: Convoy landed: Export as txt; stands: landed as ")
    assert invariants.look(stage.town, Run.objects.latest("created_at").created_at) == []


def test_a_question_its_answer_and_the_convoy(stage: Stage) -> None:
    open_town(stage)
    told = asked(stage, "Export it. FORMAT is open")
    assert (told["question"], told["convoys"]) == ("CSV or JSON?", [])
    request = Bead.objects.get(pk=told["id"])
    stage.await_bead(request, "open")
    assert not Run.objects.exclude(state="ended").exists(), "it waits for a person, and no run for it"
    told = asked(stage, "CSV", "--answer", told["id"])
    (convoy,) = told["convoys"]
    assert convoy["title"] == "Export as csv"
    assert [run["outcome"] for run in told["runs"]] == ["done", "done"]
    assert start(stage, convoy["id"]).resolution == "merged"
    assert stage.file("two.csv") == "two"


def test_killed_before_it_planned_it_is_tried_again_and_after_it_nothing_is_made_twice(stage: Stage) -> None:
    open_town(stage)
    told = asked(stage, "Export it, and DIE FIRST")
    assert [run["outcome"] for run in told["runs"]] == ["failed", "done"]
    assert len(told["convoys"]) == 1
    told = asked(stage, "Export it, and DIE AFTER")
    assert [run["outcome"] for run in told["runs"]] == ["failed"]
    assert (told["phase"], len(told["convoys"]), Convoy.objects.count()) == ("planned", 1, 2)


def test_it_hears_what_failed_and_says_why_and_idle_it_has_failed_itself(stage: Stage) -> None:
    open_town(stage)
    told = asked(stage, "Export it, in a way that BREAKS")
    key = told["convoys"][0]["id"]
    call_command("convoy", "start", key, "--json", stdout=StringIO())
    stage.until(lambda: Bead.objects.filter(convoy=key, status="failed").exists())
    why = asked(stage, "WHY did it fail?")
    assert "heard: Convoy needs attention: Export as txt" in why["answer"]
    assert "Write it: " in why["answer"]
    told = asked(stage, "IDLE", code=1)
    assert told["status"] == "failed"
    assert 'its last words: "nothing comes to my mind"' in told["reason"]
