"""A run whose program prints a preset's stream: its page shows the events while it is at work, and its usage is booked.

The program is a script by the name of the preset's, so that everything but the model is real: how it is found and
started, its box, the shim, heartbeats, the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agents.models import Run, Usage
from beads import config as configs
from beads import ledger, people
from beads.models import TownRole
from refinery.pages import contexts, transcripts
from tests.acceptance.conftest import Stage

SCRIPT = """#!/bin/sh
cat > /dev/null
say() {{ cat {signals}/$1; }}
say first
while [ ! -e {signals}/second ]; do sleep 0.1; done
say second
while [ ! -e {release} ]; do sleep 0.1; done
echo 'error: the disk is full' >&2
exit 3
"""


def lines(*rows: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


FIRST = lines(
    {"type": "step_start", "sessionID": "ses_abc"},
    {"type": "text", "part": {"text": "I look <b>around</b>."}},
    {"type": "step_finish", "part": {"tokens": {"input": 700, "output": 40, "cache": {"read": 500}}, "cost": 0.25}},
)
SECOND = lines(
    {"type": "tool_use", "part": {"tool": "write", "callID": "c1", "state": {
        "status": "completed", "input": {"filePath": "notes.txt", "content": "one"}, "output": "Wrote it."}}},
    {"type": "text", "part": {"text": "Shall I go on?"}},
)  # fmt: skip


def open_town(stage: Stage, **more: Any) -> None:
    """A town whose polecat is opencode, which is the script."""
    stage.open(agents=False)
    program = stage.signals / "opencode"
    program.write_text(SCRIPT.format(signals=stage.signals, release=stage.release))
    program.chmod(0o755)
    (stage.signals / "first").write_text(FIRST)
    agents = {"polecat": {"preset": "opencode", "model": "openai/scripted", "network": "none"}}
    box = {"sandbox": {**stage.town.config["sandbox"], "path": [str(stage.signals)]}}
    ledger.set_config(stage.town, configs.validate({**stage.town.config, **box, "agents": agents, **more}))
    stage.rig.refresh_from_db()
    stage.town.refresh_from_db()


@pytest.fixture
def viewer(stage: Stage) -> Client:
    user = User.objects.create_user("vera")
    client = Client()
    client.force_login(user)
    return client


def test_events_are_on_the_page_as_they_come_and_usage_is_booked_meanwhile(stage: Stage, viewer: Client) -> None:
    open_town(stage, dispatch={"max_attempts": 1, "heartbeat": "1s", "lease": "20s"})
    people.grant(User.objects.get(username="vera"), stage.town, TownRole.VIEWER, "test")
    bead = stage.sling("Look around", "")
    run = stage.until(lambda: Run.objects.filter(bead=bead, usage__channel="stream").first())
    row = Usage.objects.get(run=run)
    assert (row.model, row.input, row.cached, row.output, str(row.cost)) == (
        "openai/scripted", 700, 500, 40, "0.250000000",
    )  # fmt: skip
    assert (run.state, run.session) == ("running", "ses_abc")
    page = viewer.get(f"/runs/{run.pk}/").content.decode()
    assert "I look &lt;b&gt;around&lt;/b&gt;." in page and "Wrote it." not in page and "data-follow" in page
    topic = contexts.run_topic(run)
    assert topic is not None
    before = topic.size()
    (stage.signals / "second.part").write_text(SECOND)
    (stage.signals / "second.part").rename(stage.signals / "second")
    stage.until(lambda: "Shall I go on?" in viewer.get(f"/runs/{run.pk}/").content.decode())
    assert topic.size() != before  # the open page is told so
    page = viewer.get(f"/runs/{run.pk}/").content.decode()
    assert "Wrote it." in page and "notes.txt" in page and '<span class="chip closed">edits</span>' in page
    assert '{"type": "text"' in viewer.get(f"/runs/{run.pk}/?view=log").content.decode().replace("&quot;", '"')
    stage.release.touch()
    ended = stage.await_bead(bead, "failed")
    said = 'ended without gt_done (exit code 3): "error: the disk is full"'
    assert said in ended.reason, ended.reason
    run.refresh_from_db()
    assert said in run.reason
    assert (
        viewer.get(f"/runs/{run.pk}/transcript.jsonl").content
        == Path(run.log_path).with_name("transcript").read_bytes()
    )


def test_a_cap_stops_a_run_that_goes_past_the_door_while_it_is_at_work(stage: Stage) -> None:
    open_town(stage, budget={"run": "0.20 USD"}, dispatch={"max_attempts": 1, "heartbeat": "1s", "lease": "20s"})
    bead = stage.sling("Look around", "")
    run = stage.until(lambda: Run.objects.filter(bead=bead, state="ended").first())
    assert run.outcome == "stopped" and "has used 0.25 USD of 0.20 USD" in run.reason
    path = transcripts.file_of(run)
    assert path is not None and [row.kind for row in transcripts.rows(path)] == ["session", "text", "usage"]
