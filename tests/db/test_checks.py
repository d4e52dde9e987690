"""Checks of the target itself, on real rows: asked for, in no queue, ended by a pass; and rigs without polecats."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from agents.models import Run
from beads import inbox, ops
from beads.actors import Actor
from beads.errors import Conflict
from beads.models import Bead, Escalation, Heartbeat
from refinery.decisions import gatechecks, merge_queue, reviews, towns, work
from refinery.models import GateResult, ReviewEntry
from refinery.pages import attention, boards, contexts, town_context
from refinery.store import entries, history
from refinery.tick import reconciler, snapshot
from tests.db.conftest import SHA, Place

pytestmark = pytest.mark.django_db
WHO = Actor("test", "alice")


def fetched(place: Place, check: ReviewEntry, head: str = SHA["b"], tree: str = SHA["9"]) -> None:
    """The build effect's answer for a check."""
    check.refresh_from_db()
    told = {"build_no": check.build_no, "result": "built", "head": head, "base": head, "sha": head, "tree": tree}
    inbox.record(place.town, "candidate.built", check.pk, told)
    place.tick()


def answered(place: Place, check: ReviewEntry, code: int, output: str = "") -> None:
    """The check's gates end."""
    run, _ = place.running(bead=check.pk)
    raw = {"exit_code": code, "signal": None, "timed_out": False}
    place.exit(run, code, steps=[{"name": "true", "outcome_raw": raw, "output": output}])
    place.tick()
    check.refresh_from_db()


def check_again(place: Place, check: ReviewEntry) -> None:
    """A person presses the button."""
    place.now = timezone.now()  # as runs have it
    merge_queue.retry_entry(ReviewEntry.objects.get(pk=check.pk), by=WHO)
    place.tick()


def broken(place: Place) -> ReviewEntry:
    """A lane that is held by its check."""
    asked = gatechecks.ask(place.rig, by=WHO)
    assert asked is not None
    place.tick()
    fetched(place, asked.entry)
    answered(place, asked.entry, 1)
    assert asked.entry.held == "gates_broken"
    return asked.entry


def test_o6_a_check_is_in_no_queue_and_counts_for_nothing(place: Place) -> None:
    check = broken(place)
    board = boards.Board(place.town)
    assert board.lanes == {} and board.world.entries == ()
    assert contexts.queued([place.town]) == {"main": 0}
    assert history.of_town(place.town).spans == {}
    assert json.loads(run("mq", "list", "--all"))["data"] == []
    (need,) = attention.of_checks(board.world, {key: s.reason for key, s in board.shown.items()})
    assert (need.key, need.label) == (check.pk, "Check again")
    assert town_context.towns([place.town])["rows"][0]["needs"] == 1
    check_again(place, check)
    fetched(place, check)
    answered(place, check, 0)
    assert (check.state, check.reason, check.merge_sha) == ("checked", "gates_sound", "")
    assert Bead.objects.get(pk=check.pk).resolution == "done"
    assert not Escalation.objects.filter(closed_at=None).exists()
    assert not contexts.queue(place.town, {})["ended"].rows
    assert json.loads(run("mq", "list", "--all"))["data"] == []


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, "--json", stdout=out)
    return out.getvalue()


def test_o6_a_lane_has_one_check_at_a_time_whoever_asks(place: Place) -> None:
    first = gatechecks.ask(place.rig, by=WHO)
    again = gatechecks.ask(place.rig, by=WHO)
    assert first is not None and again is not None
    assert (first.entry.pk, first.new, again.new) == (again.entry.pk, True, False)
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewEntry.objects.create(
            bead=place.bead(), rig=place.rig, kind="check", branch="main", target="main", head_sha=""
        )


def test_o6_a_check_can_neither_be_admitted_nor_land(place: Place) -> None:
    check, _ = entries.open_check(place.rig, "main", str(WHO))
    rows = ReviewEntry.objects.filter(pk=check.pk)
    for change in (
        {"admitted_at": place.now, "slot": 1.0},
        {"state": "merged", "reason": "merged", "merge_sha": SHA["b"]},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    entry = place.entry()
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewEntry.objects.filter(pk=entry.pk).update(state="checked", reason="gates_sound")
    for act in (
        lambda: reviews.approve(check, by=WHO),
        lambda: reviews.request_changes(check, by=WHO, body="no"),
        lambda: merge_queue.reject(check, by=WHO, reason="no"),
        lambda: merge_queue.promote(check, by=WHO),
        lambda: merge_queue.requeue(check, by=WHO),
        lambda: merge_queue.land_now(check, by=WHO, reason="now", skip_gates=True),
        lambda: merge_queue.retry_entry(check, by=WHO),  # it is not held
    ):
        with pytest.raises(Conflict):
            act()


def test_o6_the_same_failure_waits_unblamed_and_is_gated_again_when_the_check_has_passed(place: Place) -> None:
    check = broken(place)
    entry = place.entry()
    place.tick()
    place.built(entry)
    first, _ = place.running(bead=entry.pk)
    raw = {"exit_code": 1, "signal": None, "timed_out": False}
    place.exit(first, 1, steps=[{"name": "true", "outcome_raw": raw, "output": ""}])
    place.tick()
    entry.refresh_from_db()
    assert (entry.admitted_at, entry.attempts, entry.held, entry.rework_count) == (None, 0, "", 0)
    told = json.loads(run("mq", "show", entry.pk))["data"]
    assert told["stage"] == "excused" and f"see check {check.pk}" in told["detail"]
    assert told["estimate"] == f"waits for check {check.pk}"
    check_again(place, check)
    entry.refresh_from_db()
    assert entry.admitted_at is None  # it is being checked again: nothing else is known so far
    fetched(place, check)
    answered(place, check, 0)
    place.built(entry)  # its turn has come; on the same tree
    assert Run.objects.filter(bead=entry.pk, state="queued", kind="gates").exists()
    place.gated(0)
    assert place.effects("land")


def test_o6_results_of_gates_that_the_config_has_replaced_are_past(place: Place) -> None:
    check = broken(place)
    text = '[refinery]\ncode_review = false\n[[refinery.gates]]\nname = "true"\nrun = "better"\n'
    towns.set_config(place.rig, by=WHO, text=text, by_owner=True)
    place.rig.refresh_from_db()
    place.tick()
    check.refresh_from_db()
    assert check.held == ""
    fetched(place, check)
    (past,) = boards.entry_detail(boards.Board(place.town), ReviewEntry.objects.get(pk=check.pk))["gates"]
    assert (past["outcome"], past["past"]) == ("fail", True)
    answered(place, check, 0)
    assert check.state == "checked"
    (now,) = boards.entry_detail(boards.Board(place.town), ReviewEntry.objects.get(pk=check.pk))["gates"]
    assert (now["outcome"], now["past"]) == ("pass", False)  # what counts leaves nothing of what is past


def test_o7_what_needs_the_network_is_an_error_with_its_remedy_only_in_a_box_without_one(place: Place) -> None:
    said = "npm error code EAI_AGAIN\nnpm error getaddrinfo EAI_AGAIN registry.npmjs.org\n"
    entry = place.entry()
    place.tick()
    place.built(entry)
    gates, _ = place.running(kind="gates")
    Run.objects.filter(pk=gates.pk).update(sandbox="bubblewrap")
    raw = {"exit_code": 1, "signal": None, "timed_out": False}
    place.exit(gates, 1, steps=[{"name": "true", "outcome_raw": raw, "output": said}])
    place.tick()
    result = GateResult.objects.get()
    assert (result.outcome, result.exit_code) == ("error", 1)
    assert result.remedy.startswith("this gate has no network: `network = true`")
    assert "network = true" in boards.Board(place.town).entry(ReviewEntry.objects.get(pk=entry.pk)).reason


def test_a_target_that_has_moved_is_checked_again_and_the_need_is_told_once(place: Place) -> None:
    check = broken(place)
    (told,) = Escalation.objects.filter(closed_at=None)
    entry = place.entry(head=SHA["d"])
    place.tick()
    place.built(entry, base=SHA["7"])  # somebody has pushed to main
    check.refresh_from_db()
    assert (check.held, check.build_no) == ("", 2)
    assert snapshot.load(place.town, place.now).known[place.rig.pk, "main"].broken  # the last that is known
    fetched(place, check, SHA["7"], SHA["8"])
    answered(place, check, 1)
    assert check.held == "gates_broken" and SHA["7"][:12] in check.held_text
    (now,) = Escalation.objects.filter(closed_at=None)
    assert now.pk != told.pk and SHA["7"][:12] in now.bead.body


def test_rig_check_says_that_it_needs_a_runner(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("rig", "check", "proj")
    assert "no runner is up: start `gastown up`" in capsys.readouterr().err
    assert not ReviewEntry.objects.exists()
    towns.set_config(place.rig, by=WHO, text="[refinery]\ngates = []\nallow_no_gates = true\n", by_owner=True)
    call_command("rig", "check", "proj")
    assert "no gates are configured" in capsys.readouterr().out


def test_a_config_is_accepted_and_its_gates_are_checked_once_there_is_a_runner(
    place: Place, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rig.toml").write_text('[refinery]\ngates = ["make test"]\n')
    call_command("rig", "config", "proj", "--config", str(tmp_path / "rig.toml"), "--json")
    told = capsys.readouterr()
    assert "warning: the gates have not been run, for no runner is up" in told.err
    check = json.loads(told.out)["data"]["check"]
    assert check["ok"] is None and ReviewEntry.objects.get(kind="check").pk == check["id"]


def test_a_runner_that_was_not_heard_of_for_long_is_not_up(place: Place) -> None:
    assert not gatechecks.runner_up()
    ops.beat("runner")
    assert gatechecks.runner_up()
    Heartbeat.objects.update(at=place.now - gatechecks.FRESH * 2)
    assert not gatechecks.runner_up()


# -- O8 --


def test_o8_sling_says_that_nobody_works_in_the_rig_and_the_need_closes_when_somebody_does(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    towns.set_config(place.town, by=WHO, text='[refinery]\ngates = ["true"]\n', by_owner=True)
    place.town.refresh_from_db()
    call_command("sling", "proj", "--title", "Work", "--json")
    told = capsys.readouterr()
    data = json.loads(told.out)["data"]
    (warning,) = data["warnings"]
    assert "rig proj has no agents.polecat.command" in warning and "rig config proj --config" in warning
    assert f"warning: {warning}" in told.err
    place.tick()
    (need,) = town_context.town(place.town)["needs"]
    assert "rig config proj --config" in need.why
    assert Escalation.objects.filter(closed_at=None).count() == 1
    config = '[refinery]\ngates = ["true"]\n[agents.polecat]\ncommand = ["polecat"]\n'
    towns.set_config(place.rig, by=WHO, text=config, by_owner=True)
    place.tick()
    assert not Escalation.objects.filter(closed_at=None).exists()
    assert Run.objects.filter(bead=data["id"]).exists()
    call_command("sling", "proj", "--title", "More", "--json")
    assert json.loads(capsys.readouterr().out)["data"]["warnings"] == []


def test_o8_a_convoy_for_such_a_rig_says_so_and_closing_the_work_closes_the_need(
    place: Place, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    towns.set_config(place.town, by=WHO, text='[refinery]\ngates = ["true"]\n', by_owner=True)
    place.town.refresh_from_db()
    (tmp_path / "plan.toml").write_text('[[beads]]\nkey = "a"\ntitle = "A"\n')
    words = ("--title", "C", "--file", str(tmp_path / "plan.toml"), "--merge-mode", "review-and-merge", "--json")
    call_command("convoy", "create", "proj", *words)
    told = capsys.readouterr()
    assert len(json.loads(told.out)["data"]["warnings"]) == 1 and "warning: rig proj has no" in told.err
    place.tick()
    assert Escalation.objects.filter(closed_at=None, key=f"unmanned:{place.rig.pk}").exists()
    work.cancel_bead(Bead.objects.get(plan_key="a"), by=WHO)
    place.tick()
    assert not Escalation.objects.filter(closed_at=None, key=f"unmanned:{place.rig.pk}").exists()


def test_a_check_says_why_it_stands_where_it_stands(place: Place) -> None:
    check = broken(place)
    told = {d.subject: d for d in reconciler.explain(place.town)}
    assert told[f"entry {check.pk}"].rule == "held"
