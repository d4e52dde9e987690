"""Why something failed, where people look: what gates and agents have said last, in lists, mail and escalations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.core.management import call_command

from agents.models import Mail, Run, ToolCall
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.models import Bead, Escalation
from refinery.console import why
from refinery.decisions import reviews
from refinery.models import GateResult, ReviewEntry
from tests.db.conftest import SHA, Place

pytestmark = pytest.mark.django_db
ROOT = "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons"
LINE = "unit: tests/test_core.py:11 test_sub: assert 8 == 2"
OUTPUT = """\
____ test_sub ____
>       assert sub(5, 3) == 2
E       assert 8 == 2

tests/test_core.py:11: AssertionError
1 failed in 0.02s
make: *** [Makefile:3: test] Error 1
"""


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    capsys.readouterr()
    call_command(*words)
    return capsys.readouterr().out


def dies(place: Place, output: str = ROOT, *, seconds: float = 1, calls: int = 0, code: int = 1, **more: Any) -> Run:
    """The queued agent's run starts, says something, and ends without gt_done; the next one is due."""
    place.tick()
    run, _ = place.running()
    for _ in range(calls):
        ToolCall.objects.create(run=run, tool="gt_status", request_hash="x", status=200)
    place.later(seconds=seconds)
    place.exit(run, code, **{"work": "nothing", "steps": [{"name": "agent", "output": f"{output}\n"}], **more})
    place.tick()
    place.later(minutes=11)
    return Run.objects.get(pk=run.pk)


def test_o9_the_same_set_up_error_twice_is_no_third_attempt(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    bead = place.bead()
    first = dies(place)
    assert first.reason == f'ended without gt_done (exit code 1): "{ROOT}"'
    place.tick()
    assert Run.objects.get(state="queued").brief["previous"]["reason"] == first.reason
    last = dies(place, f"{ROOT}\n")
    bead.refresh_from_db()
    assert (bead.status, bead.resolution, Run.objects.count()) == ("failed", "gave_up", 2)
    assert bead.reason == f"the same set-up error twice: {last.reason}"
    told = Escalation.objects.get(about=bead).bead
    assert ROOT in told.body and f"bead retry {bead.pk}" in told.body and "agents.polecat" in told.body
    assert f"/runs/{last.pk}/" in told.body
    for text in (said(capsys, "bead", "show", bead.pk), said(capsys, "escalations", "list", "--json")):
        assert ROOT in text
    with pytest.raises(SystemExit) as ended:
        said(capsys, "wait", "--bead", bead.pk, "--json")
    assert ended.value.code == 1
    assert ROOT in json.loads(capsys.readouterr().out)["data"]["reason"]
    assert any(ROOT in sentence.text for sentence in why.of_whatever(bead))


ELSE: Sequence[dict[str, Any]] = [
    {"output": "another error"},
    {"seconds": 40},
    {"calls": 1},
    {"code": 2},
    {"work": "uncommitted"},
    {"output": ""},
    {"result": "done"},
]


@pytest.mark.parametrize("second", ELSE, ids=lambda one: str(next(iter(one))))
def test_o9_what_got_to_work_or_ended_otherwise_is_tried_again(place: Place, second: dict[str, Any]) -> None:
    bead = place.bead()
    dies(place, "" if second.get("output") == "" else ROOT)
    if "result" in second:
        place.tick()
        run, _ = place.running()
        place.say(run, "run.done", summary="fine")
        place.exit(run, 0, SHA["d"], work="new")
        place.tick()
        assert Bead.objects.get(pk=bead.pk).status == "in_review"
        return
    dies(place, **second)
    place.tick()
    assert Run.objects.filter(state="queued").exists()


def test_o9_numbers_and_times_do_not_make_it_another_error(place: Place) -> None:
    bead = place.bead()
    dies(place, "10:11:12 [4711] no API key after 31 ms")
    dies(place, "10:13:55 [52] no API key after 1207 ms")
    assert Bead.objects.get(pk=bead.pk).status == "failed"


def test_o9_what_the_host_did_in_between_does_not_count(place: Place) -> None:
    bead = place.bead()
    dies(place)
    place.tick()
    run, _ = place.running()
    place.exit(run, 0, error="the workspace could not be made")
    place.tick()
    place.later(minutes=11)
    dies(place)
    assert Bead.objects.get(pk=bead.pk).status == "failed"


def test_o9_a_question_is_the_reason(place: Place) -> None:
    bead = place.bead()
    event = {"type": "result", "result": "There are two formats.\nShould I keep the old one?"}
    run = dies(place, json.dumps(event), seconds=90, code=0)
    assert run.reason == 'ended without gt_done (exit code 0): "Should I keep the old one?"'
    assert "Should I keep the old one?" in Bead.objects.get(pk=bead.pk).reason


def test_o9_a_reviewer_that_cannot_start_holds_the_entry(reviewed: Place, capsys: pytest.CaptureFixture[str]) -> None:
    entry = reviewed.entry()
    reviewed.tick()
    reviewed.built(entry)
    for _ in range(2):
        dies(reviewed, "Invalid API key · Please run /login", work="")
    entry.refresh_from_db()
    assert entry.held == "review_gave_up"
    assert "the same set-up error twice" in entry.held_text and "Please run /login" in entry.held_text
    assert "Please run /login" in said(capsys, "mq", "list")


# -- gates ----------------------------------------------------------------------------------------------------------


def gated(place: Place, output: str = OUTPUT, code: int = 1) -> Run:
    """The live gates run ends; its gate is called unit. On the target itself it is known to pass."""
    run, _ = place.running(kind="gates")
    if code:
        place.vouch()
    raw = {"exit_code": code, "signal": None, "timed_out": False}
    place.exit(run, code, steps=[{"name": run.steps[0]["name"], "outcome_raw": raw, "output": output}])
    place.tick()
    return run


def unit(place: Place, run: str = "make test", **refinery: Any) -> None:
    """The config's one gate."""
    gates = [{"name": "unit", "run": run}]
    told = {**place.town.config, "refinery": {**place.town.config["refinery"], "gates": gates, **refinery}}
    ledger.set_config(place.town, configs.validate(told))
    place.town.refresh_from_db()


def failed(place: Place, author: str = "test", **refinery: Any) -> tuple[ReviewEntry, Run]:
    """An entry whose gate has failed."""
    unit(place, **refinery)
    entry = place.entry()
    place.tick()
    place.built(entry)
    return entry, gated(place)


def test_item4_a_failed_gate_is_told_everywhere(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocked by its rework, the entry still says why; so do mail, lists, history and *why is this stuck?*."""
    entry, run = failed(place)
    assert GateResult.objects.get(outcome="fail").telling == LINE
    for words in (("mq", "show", entry.pk), ("mq", "list"), ("tick", "--explain", "--dry-run")):
        text = said(capsys, *words)
        assert LINE in text and run.pk in text, words
    assert f"/runs/{run.pk}/" in said(capsys, "mq", "show", entry.pk)
    mail = Mail.objects.get(kind="REWORK_REQUEST")
    assert LINE in mail.subject and LINE in mail.body and f"/runs/{run.pk}/" in mail.body
    assert any(LINE in sentence.text for sentence in why.of_entry(ReviewEntry.objects.get(pk=entry.pk)))
    with pytest.raises(SystemExit) as ended:
        said(capsys, "wait", "--mq", entry.pk, "--timeout", "0.1", "--json")
    assert ended.value.code == 3
    assert LINE in json.loads(capsys.readouterr().out)["data"]["detail"]


def test_item4_so_is_the_end_of_its_bead_where_nobody_may_mend_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    unit(place)
    told = {**place.town.config, "agents": {}}
    ledger.set_config(place.town, configs.validate(told))
    bead = place.bead()
    entry = place.entry(source=bead)
    place.tick()
    place.built(entry)
    run = gated(place)
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("failed", "gates_failed")
    assert LINE in entry.reason_text and run.pk in entry.reason_text
    for words in (("bead", "show", bead.pk), ("mq", "list", "--all"), ("mq", "show", entry.pk)):
        assert LINE in said(capsys, *words), words


def test_item4_a_gate_that_could_not_run_holds_with_the_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    unit(place)
    entry = place.entry()
    place.tick()
    place.built(entry)
    run = gated(place, "sh: 1: pytest: not found\n", 127)
    line = "unit: exit 127 (command not found): sh: 1: pytest: not found"
    entry.refresh_from_db()
    assert entry.held == "gate_error" and line in entry.held_text
    body = Escalation.objects.get(about=entry.bead).bead.body
    assert line in body and f"/runs/{run.pk}/" in body and f"mq retry {entry.pk}" in body
    assert line in said(capsys, "mq", "list")


def test_p9_what_a_replaced_gate_has_said_is_past(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    entry, _ = failed(place, max_rework_cycles=0)
    entry.refresh_from_db()
    assert entry.held == "rework_limit"
    unit(place, "make check", max_rework_cycles=0)
    entry = ReviewEntry.objects.get(pk=entry.pk)
    listed = said(capsys, "mq", "list")
    assert LINE not in listed and f"the config has replaced unit: mq retry {entry.pk}" in listed
    shown = said(capsys, "mq", "show", entry.pk)
    assert "gate unit: fail" in shown and "past: the config has replaced it" in shown
    assert LINE not in shown.partition("past: the config")[0].splitlines()[1]  # no reason
    reviews.approve(entry, by=Actor("cli", "ann"))  # lifts the hold
    place.tick()
    place.built(entry)
    gated(place, "", 0)
    data = json.loads(said(capsys, "mq", "show", entry.pk, "--json"))["data"]
    assert [(g["gate"], g["outcome"], g["past"]) for g in data["gates"]] == [("unit", "pass", False)]
    assert LINE not in data["detail"]


def test_p9_agents_are_not_told_of_it(place: Place) -> None:
    """A gate that the config no longer has is in no brief; with the gate back, its result counts again."""
    from refinery.store.results import gate_results

    entry, _ = failed(place)
    entry = ReviewEntry.objects.select_related("rig__town").get(pk=entry.pk)
    candidate = entry.candidates.get()
    assert [g["outcome"] for g in gate_results(entry, candidate)] == ["fail"]
    told = {**place.town.config, "refinery": {**place.town.config["refinery"], "gates": [], "allow_no_gates": True}}
    ledger.set_config(place.town, configs.validate(told))
    entry = ReviewEntry.objects.select_related("rig__town").get(pk=entry.pk)
    assert gate_results(entry, candidate) == []
    assert [g["past"] for g in gate_results(entry, candidate, past=True)] == [True]
    unit(place)
    entry = ReviewEntry.objects.select_related("rig__town").get(pk=entry.pk)
    assert [g["past"] for g in gate_results(entry, candidate, past=True)] == [False]
