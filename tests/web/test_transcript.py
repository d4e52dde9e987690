"""A run's page with its transcript: what people see, look for and take away; and the doors that it came by."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from agents.models import Run, Usage
from agents.presets import PRESETS
from agents.runtime.transcript import NAME, Transcript
from beads import ledger
from refinery.core.telling import of_steps, of_transcript
from refinery.pages.render import HEADER
from tests.db.conftest import Place
from tests.web.conftest import Agent

STREAMS = Path(__file__).parents[1] / "unit" / "streams"
LIVE: Any = {HEADER: "1"}


class Told:
    """A run with a transcript, from what opencode prints."""

    def __init__(self, place: Place, root: Path, name: str = "opencode") -> None:
        place.bead("Paint the fence")
        place.tick()
        self.run, _ = place.running(kind="polecat")
        self.log = root / "log"
        self.log.write_text("the raw log\n")
        Run.objects.filter(pk=self.run.pk).update(log_path=str(self.log))
        self.made = Transcript(root / NAME, PRESETS[name], str, lambda text: None, "/home/agent/tree")
        self.path = f"/runs/{self.run.pk}/"

    def says(self, *rows: dict[str, Any]) -> None:
        for row in rows:
            self.made.feed(json.dumps(row).encode() + b"\n")


@pytest.fixture
def told(place: Place, tmp_path: Path) -> Any:
    made = Told(place, tmp_path)
    yield made
    made.made.end()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "part": {"text": words}}


def call(tool: str, given: dict[str, Any], output: str, status: str = "completed") -> dict[str, Any]:
    state = {"status": status, "input": given, "output": output}
    return {"type": "tool_use", "part": {"tool": tool, "callID": f"c{output}", "state": state}}


def seen(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.django_db
def test_the_transcript_comes_first_and_the_log_is_beside_it(told: Told, viewer: Client) -> None:
    assert "the raw log" in seen(viewer, told.path) and 'id="transcript"' not in seen(viewer, told.path)
    told.made.feed((STREAMS / "opencode-edits.txt").read_bytes())
    page = seen(viewer, told.path)
    assert "I write it." in page and "the raw log" not in page and "data-follow" in page
    assert page.count("<details>") == 2 and "Could not find oldString" in page
    assert '<span class="chip failed">failed</span>' in page and "notes/new.txt" in page
    assert "In all 2400 in, 1500 from the cache, 120 out, says its CLI." in page
    log = seen(viewer, f"{told.path}?view=log")
    assert "the raw log" in log and "I write it." not in log
    assert "I write it." in viewer.get(told.path, headers=LIVE).content.decode()


@pytest.mark.django_db
def test_what_is_looked_for_is_found_and_seen_in_its_place(told: Told, viewer: Client) -> None:
    told.says(*(text(f"line {n}") for n in range(300)), call("bash", {"command": "make needle"}, "<b>done</b>"))
    told.says(*(text(f"more {n}") for n in range(300)))
    found = seen(viewer, f"{told.path}?q=NEEDLE")
    assert found.count("<details>") == 1 and "data-follow" not in found
    place = found.partition('href="?after=')[2].partition('"')[0]
    here = seen(viewer, f"{told.path}?after={place.partition('#')[0]}")
    assert f'id="{place.partition("#")[2]}"' in here and "more 0<" in here and "line 299" not in here
    assert "Nothing here has “&lt;b&gt;nowhere”" in seen(viewer, f"{told.path}?q=<b>nowhere")
    assert "Nothing here has" in seen(viewer, f"{told.path}?q={'x' * 5000}")


@pytest.mark.django_db
def test_a_long_one_comes_in_pages_each_of_bounded_size(told: Told, viewer: Client) -> None:
    told.says(*(text(f"line {n} {'z' * 15_000}") for n in range(400)))
    page = seen(viewer, told.path)
    assert "line 399" in page and "line 300" not in page and len(page) < 400_000
    earlier = page.partition('href="?before=')[2].partition('"')[0]
    before = seen(viewer, f"{told.path}?before={earlier}")
    assert "line 399" not in before and ">Later</a>" in before and "data-follow" not in before
    assert seen(viewer, f"{told.path}?before=nonsense&after=-4").count("line 399") == 1


@pytest.mark.django_db
def test_what_an_agent_wrote_does_nothing(told: Told, viewer: Client) -> None:
    bad = "<script>alert(1)</script>\u202e\u200b\x1b]0;title\x07\x1b[31mred\x00"
    told.says(text(bad), call(bad, {bad: bad}, bad), {"type": "error", "error": {"name": bad}})
    told.says(call("write", {"filePath": bad, "content": "javascript:alert(1)"}, "ok"))
    for path in (told.path, f"{told.path}?q=alert"):
        page = seen(viewer, path).partition("<main")[2]
        assert "<script>alert" not in page and "&lt;script&gt;" in page
        assert "\u202e" not in page and "\u200b" not in page and "\x1b" not in page and "\x00" not in page
        assert '<span class="a-red">red' in page and "style=" not in page


@pytest.mark.django_db
def test_both_are_taken_away_as_files_by_who_may_see_the_run(told: Told, viewer: Client, client: Client) -> None:
    told.says(text("words"))
    answer = viewer.get(f"{told.path}transcript.jsonl")
    assert json.loads(answer.content)["text"] == "words"
    assert answer["Content-Type"] == "application/x-ndjson"
    assert answer["Content-Disposition"] == f'attachment; filename="{told.run.pk}-transcript.jsonl"'
    assert viewer.get(f"{told.path}log.txt").content == b"the raw log\n"
    Run.objects.filter(pk=told.run.pk).update(log_path="")
    assert viewer.get(f"{told.path}transcript.jsonl").status_code == 404
    assert viewer.get(f"{told.path}log.txt").status_code == 404
    assert Client().get(f"{told.path}log.txt").status_code == 302


@pytest.mark.django_db
def test_the_command_says_the_same(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    told.made.feed((STREAMS / "opencode-edits.txt").read_bytes())
    told.says(text("\x1b[2J\u202ehidden"))
    call_command("runs", "transcript", told.run.pk)
    said = capsys.readouterr().out
    assert "> write notes/new.txt" in said and "< Could not find oldString" in said
    assert "\x1b" not in said and "\u202e" not in said
    call_command("runs", "transcript", told.run.pk, "--json")
    events = json.loads(capsys.readouterr().out)["data"]["events"]
    assert [e["kind"] for e in events][:4] == ["session", "text", "call", "result"]


# -- the shim's doors -------------------------------------------------------------------------------------------------

USED = {"model": "m", "input": 600, "cached": 500, "output": 40, "cost": "0.5"}


@pytest.mark.django_db
def test_usage_and_session_are_noted_with_the_heartbeat_and_the_exit(polecat: Agent, place: Place) -> None:
    ledger.set_config(place.town, {"prices": {"n": {"input": 3, "cached": 0.3, "output": 15}}})
    door = f"/api/runs/{polecat.run.pk}"
    told = {"session": "ses_1.a:b-c", "usage": [USED, {**USED, "model": "n", "cost": None}]}
    assert polecat.post(f"{door}/heartbeat", told).status_code == 200
    polecat.run.refresh_from_db()
    assert polecat.run.session == "ses_1.a:b-c"
    rows = {(u.model, u.source, u.channel): (u.input, u.cached, u.output, u.cost) for u in Usage.objects.all()}
    assert rows == {
        ("m", "reported", "stream"): (600, 500, 40, Decimal("0.5")),
        ("n", "priced", "stream"): (600, 500, 40, Decimal("0.00255")),
    }
    before = list(Usage.objects.values_list("updated_at", flat=True))
    for again in (told, {}):  # which say nothing new: a run at its cap is stopped so long after its last use
        assert polecat.post(f"{door}/heartbeat", again).status_code == 200
    assert list(Usage.objects.values_list("updated_at", flat=True)) == before
    more = {"exit_code": 1, "usage": [{**USED, "input": 900, "cost": "0.75"}], "steps": [step("I give up.")]}
    for _ in range(2):
        assert polecat.post(f"{door}/exit", more).status_code == 200
    polecat.run.refresh_from_db()
    assert polecat.run.session == "ses_1.a:b-c"
    row = Usage.objects.get(model="m")
    assert (row.input, row.cost) == (900, Decimal("0.75"))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body",
    [
        {"usage": [{**USED, "input": -1}]}, {"usage": [{**USED, "input": 10**11}]}, {"usage": [{**USED, "input": "7"}]},
        {"usage": [{**USED, "cost": "NaN"}]}, {"usage": [{**USED, "cost": -1}]}, {"usage": [USED] * 21},
        {"usage": [{**USED, "model": "x" * 301}]}, {"session": "--resume"}, {"session": "a b"}, {"session": "a\n"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_door_and_changes_nothing(polecat: Agent, body: dict[str, Any]) -> None:
    answer = polecat.post(f"/api/runs/{polecat.run.pk}/heartbeat", body)
    assert answer.status_code == 400 and next(iter(body)) in answer.content.decode()
    assert not Usage.objects.exists() and not Run.objects.exclude(session="").exists()


@pytest.mark.django_db
def test_a_cost_that_is_told_at_last_is_that_of_what_had_no_price(polecat: Agent) -> None:
    door = f"/api/runs/{polecat.run.pk}/heartbeat"
    polecat.post(door, {"usage": [{**USED, "output": 1, "cost": None}]})
    assert Usage.objects.get().source == "unknown"
    polecat.post(door, {"usage": [USED]})
    row = Usage.objects.get()
    assert (row.source, row.input, row.output, row.cost) == ("reported", 600, 40, Decimal("0.5"))


@pytest.mark.django_db
def test_a_cap_is_seen_while_a_run_that_goes_past_the_door_is_at_work(
    polecat: Agent, place: Place, operator: Client
) -> None:
    ledger.set_config(place.town, {**place.town.config, "budget": {"run": "1000 tokens"}})
    door = f"/api/runs/{polecat.run.pk}/heartbeat"
    assert polecat.post(door, {"usage": [USED]}).json()["data"]["stop"] is False
    place.later(seconds=60)
    place.tick()
    assert polecat.post(door, {}).json()["data"]["stop"] is True
    polecat.run.refresh_from_db()
    assert "the budget is used up" in polecat.run.stop_reason
    assert "told by its CLI" in seen(operator, f"/runs/{polecat.run.pk}/")


# -- reasons ----------------------------------------------------------------------------------------------------------


def step(words: str, output: str = '{"type":"noise"}\n') -> dict[str, Any]:
    raw = {"exit_code": 1, "signal": None, "timed_out": False, "limit": ""}
    return {"name": "agent", "outcome_raw": raw, "output": output, "words": words}


def test_last_words_are_the_transcripts_and_else_the_outputs() -> None:
    assert of_steps([step("I looked.\nI give up.")]) == "I give up."
    assert of_steps([step("", "fatal: no model\n")]) == "fatal: no model"
    assert of_transcript([step("", "fatal: no model\n")]) == "" == of_transcript([])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({}, 'ended without gt_done (exit code 1): "Shall I use tabs?"'),
        ({"stop": True}, 'stopped by ann: "Shall I use tabs?"'),
        ({"lies": True}, 'it said gt_done, but it changed nothing that it committed: "Shall I use tabs?"'),
    ],
)
def test_the_reason_of_an_end_says_what_the_agent_has_said_last(
    polecat: Agent, place: Place, how: dict[str, bool], reason: str
) -> None:
    run = polecat.run
    if how.get("stop"):
        Run.objects.filter(pk=run.pk).update(stop_requested_at=place.now, stop_reason="stopped by ann")
    more: dict[str, Any] = {"work": "nothing"}
    if how.get("lies"):
        polecat.call("gt_done", summary="all done")
        place.tick()
        more = {"work": "uncommitted", "work_text": "it changed nothing that it committed"}
    place.exit(run, 1, steps=[step("I see two ways.\nShall I use tabs?")], **more)
    place.tick()
    run.refresh_from_db()
    assert run.reason == reason


@pytest.mark.django_db
def test_of_a_cli_that_tells_of_all_of_its_session_a_run_is_booked_its_own_part(polecat: Agent, place: Place) -> None:
    run = polecat.run
    steps = [{"name": "agent", "preset": "codex", "model": "m"}]
    own = {"town": place.town, "rig": place.rig, "bead": run.bead, "account": run.account, "kind": "polecat"}
    before = Run.objects.create(**own, attempt=9, state="ended", outcome="done", session="s1", target="main")
    Usage.objects.create(
        run=before, town=place.town, bead=run.bead, day=place.now.date(), model="m", source="unknown",
        channel="stream", input=400, cached=500, output=30,
    )  # fmt: skip
    Run.objects.filter(pk=run.pk).update(steps=steps, resumed="s1")
    told = {**USED, "cost": None}
    assert polecat.post(f"/api/runs/{run.pk}/heartbeat", {"session": "s1", "usage": [told]}).status_code == 200
    row = Usage.objects.get(run=run)
    assert (row.input, row.cached, row.output) == (200, 0, 10)
    more = {"exit_code": 0, "session": "s2", "usage": [{**told, "input": 650}], "session_lost": True}
    assert polecat.post(f"/api/runs/{run.pk}/exit", more).status_code == 200
    row.refresh_from_db()
    assert (row.input, row.cached, row.output) == (650, 500, 40), "it has begun another one: all of it is this run's"
