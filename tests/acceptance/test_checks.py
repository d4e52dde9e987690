"""The gates on the target's own head, real git, real sandbox: nobody is blamed for what does not pass there either."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.models import Run
from beads.models import Bead, Escalation
from refinery.decisions import gatechecks, merge_queue, towns
from refinery.executor import head_poll
from refinery.models import GateResult, ReviewEntry
from refinery.pages import boards, town_context
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.test_told import said

TOOL = f"{sys.executable} -m nosuchtool"  # its own directory is searched, too: a change may bring it


def check_of(stage: Stage) -> ReviewEntry | None:
    return ReviewEntry.objects.filter(rig=stage.rig, kind="check", state="active").first()


def held(stage: Stage) -> ReviewEntry:
    """Wait until the lane's check holds it."""
    found: ReviewEntry = stage.until(lambda: (c := check_of(stage)) and c.held and c)
    return found


def submit(stage: Stage, name: str, **files: str) -> ReviewEntry:
    stage.commit(name, files or {f"{name}.txt": f"{name}\n"})
    return stage.submit(name)


def told(stage: Stage, entry: ReviewEntry) -> boards.Shown:
    return boards.Board(stage.town).entry(ReviewEntry.objects.get(pk=entry.pk))


def excused(stage: Stage, *entries: ReviewEntry) -> None:
    """Wait until all of these wait for the check, outside of the train."""
    stage.until(lambda: all(told(stage, e).stage == "excused" for e in entries))
    assert not ReviewEntry.objects.filter(pk__in=[e.pk for e in entries], admitted_at__isnull=False).exists()


def nobody_blamed() -> None:
    assert not Bead.objects.filter(purpose="rework").exists()
    assert not Run.objects.exclude(kind="gates").exists()


def test_o6_what_is_missing_on_the_target_too_is_one_hold_and_the_change_that_brings_it_lands(stage: Stage) -> None:
    stage.open(gates=[TOOL])
    others = [submit(stage, "one"), submit(stage, "two")]
    check = held(stage)
    excused(stage, *others)
    nobody_blamed()
    assert check.held == "gates_broken"
    assert "gate" in check.held_text and "on main itself" in check.held_text
    assert "module 'nosuchtool' is not installed" in check.held_text
    assert GateResult.objects.get(entry=check).outcome == "error"
    why = told(stage, others[0])
    assert why.phase == "awaiting_human" and not why.needs_person and f"see check {check.pk}" in why.reason
    (need,) = town_context.town(stage.town)["needs"]
    assert (need.key, need.label) == (check.pk, "Check again") and "nosuchtool" in need.why
    assert Escalation.objects.filter(closed_at=None).count() == 1
    cure = submit(stage, "cure", **{"nosuchtool.py": "print('here')\n"})
    stage.await_phase(cure, "merged")
    for entry in others:
        stage.await_phase(entry, "merged")
    stage.until(lambda: check_of(stage) is None)
    check.refresh_from_db()
    assert (check.state, check.reason, check.merge_sha) == ("checked", "gates_sound", "")
    assert not Escalation.objects.filter(closed_at=None).exists()
    nobody_blamed()


@pytest.mark.long
def test_o6_one_s_own_failure_is_ones_own_once_the_target_is_seen_to_pass(stage: Stage) -> None:
    stage.open(agents=False, gates=["test ! -e bad.txt"])
    entry = stage.await_phase(submit(stage, "feature", **{"bad.txt": "b\n"}), "failed")
    assert entry.reason == "gates_failed"
    check = ReviewEntry.objects.get(kind="check")
    assert (check.state, check.head_sha) == ("checked", stage.sha())
    again = stage.await_phase(submit(stage, "again", **{"bad.txt": "c\n"}), "failed")
    assert again.reason == "gates_failed"
    assert ReviewEntry.objects.filter(kind="check").count() == 1  # the target has not moved: it is known


def test_o6_what_a_change_itself_cannot_find_is_its_own_failure(stage: Stage) -> None:
    stage.open(agents=False, gates=[f"{sys.executable} main.py"])
    stage.commit("main", {"main.py": "print('fine')\n"})
    entry = stage.await_phase(submit(stage, "feature", **{"main.py": "import nosuchmodule\n"}), "failed")
    assert entry.reason == "gates_failed"
    result = GateResult.objects.filter(entry=entry).latest("id")
    assert (result.outcome, result.remedy) == ("fail", "")


@pytest.mark.long
def test_o7_a_gate_without_network_is_an_error_that_names_the_remedy(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = f"{sys.executable} -c 'import socket; socket.getaddrinfo(\"registry.example.org\", 443)'"
    stage.open(gates=[{"name": "test", "run": gate}])
    entry = submit(stage, "feature")
    check = held(stage)
    excused(stage, entry)
    nobody_blamed()
    assert set(GateResult.objects.values_list("outcome", flat=True)) == {"error"}
    assert "this gate has no network: `network = true`" in check.held_text
    for key in (check.pk, entry.pk):
        text = said(capsys, "mq", "show", key)
        assert "error" in text and "this gate has no network: `network = true`" in text
    text = said(capsys, "mq", "list")
    assert check.pk not in [line.split()[1] for line in text.splitlines()[1:]]
    table = f"[[refinery.gates]]\nname = 'test'\nrun = '''{gate} || true'''\nnetwork = true\n"
    config = f"[refinery]\ncode_review = false\n{table}"
    towns.set_config(stage.rig, by=WHO, text=config, reason="it needs the network", by_owner=True)
    stage.await_phase(entry, "merged")  # by another gate: what the old one said is past
    stage.until(lambda: check_of(stage) is None)


def test_o6_a_host_that_is_mended_is_checked_again_and_who_waited_is_gated_again(stage: Stage) -> None:
    sign = stage.signals / "installed"
    stage.open(gates=[f"test -e '{sign}'"])
    entry = submit(stage, "feature")
    check = held(stage)
    excused(stage, entry)
    before = ReviewEntry.objects.get(pk=entry.pk).attempts
    merge_queue.retry_entry(check, by=WHO)
    stage.until(lambda: ReviewEntry.objects.get(pk=check.pk).gates_again_at)
    assert held(stage).pk == check.pk  # nothing has changed yet
    assert Escalation.objects.filter(closed_at=None, about=check.pk).count() == 1
    sign.touch()
    asked = gatechecks.ask(stage.rig, by=WHO)
    assert asked is not None and asked.entry.pk == check.pk
    stage.until(lambda: gatechecks.outcome(asked)["ok"])
    stage.await_phase(entry, "merged")
    assert before == 0  # having waited was no attempt
    nobody_blamed()


def test_o6_a_check_whose_gates_are_killed_midway_is_run_again(stage: Stage) -> None:
    sign = stage.signals / "go"
    stage.open(gates=[f"while [ ! -e '{sign}' ]; do sleep 0.1; done; exit 3"])
    asked = gatechecks.ask(stage.rig, by=WHO)
    assert asked is not None

    def running() -> Any:
        return Run.objects.filter(bead=asked.entry.pk, state="running").first()

    run = stage.until(running)
    pid = int((Path(stage.runner.home) / "runs" / run.pk / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    run.refresh_from_db()
    Run.objects.filter(pk=run.pk).update(lease_until=run.created_at)  # time passes
    stage.until(lambda: (again := running()) and again.pk != run.pk)
    sign.touch()
    assert held(stage).held == "gates_broken"
    assert Run.objects.filter(bead=asked.entry.pk).count() == 2


@pytest.mark.long
def test_o6_somebody_who_mends_the_target_outside_ends_the_hold(stage: Stage) -> None:
    stage.open(gates=["test -e needed.txt"])
    entry = submit(stage, "feature")
    check = held(stage)
    excused(stage, entry)
    stage.commit("main", {"needed.txt": "n\n"})
    assert head_poll.look() == 1
    stage.await_phase(entry, "merged")
    check.refresh_from_db()
    assert check.state == "checked"


def test_o6_every_gate_is_run_on_the_target_and_all_that_fail_are_named(stage: Stage) -> None:
    gates = [
        {"name": "first", "run": "exit 1"},
        {"name": "docs", "run": "true", "paths": ["docs/**"]},
        {"name": "last", "run": "exit 2", "when": "entry"},
    ]
    stage.open(gates=gates)
    asked = gatechecks.ask(stage.rig, by=WHO)
    assert asked is not None
    data = stage.until(lambda: (found := gatechecks.outcome(asked))["ok"] is not None and found)
    assert not data["ok"]
    assert {g["gate"]: g["outcome"] for g in data["gates"]} == {"first": "fail", "docs": "pass", "last": "fail"}
    assert "'first' fails on main itself" in data["reason"] and "'last'" in data["reason"]
    nobody_blamed()
