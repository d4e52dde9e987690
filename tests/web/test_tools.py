"""Tool calls over HTTP: what they record, whom they refuse, and that bad input changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from agents import runs
from agents.models import Mail, Run
from beads.models import Bead, Fact
from refinery.models import ReviewEntry
from tests.db.conftest import SHA, Place
from tests.web.conftest import Agent


def test_prime_tells_the_agent_what_it_needs(polecat: Agent) -> None:
    data = polecat.call("gt_prime").json()["data"]
    assert data["bead"]["title"] == "Paint the fence"
    assert data["branch"] == polecat.run.branch
    assert data["target"] == "main"
    assert data["gates"] == [{"name": "true", "run": "true", "timeout": 600.0}]


def test_done_is_recorded_once_and_becomes_a_review_entry(place: Place, polecat: Agent) -> None:
    assert polecat.call("gt_done", summary="painted").json() == {"ok": True, "data": {"repeat": False}}
    assert polecat.call("gt_done", summary="painted").json()["data"]["repeat"] is True
    place.exit(polecat.run, 0, SHA["a"])
    place.tick()
    entry = ReviewEntry.objects.get()
    assert (entry.source_id, entry.head_sha) == (polecat.run.bead_id, SHA["a"])


def test_after_the_exit_every_call_is_superseded(place: Place, polecat: Agent) -> None:
    place.exit(polecat.run, 1)
    late = polecat.call("gt_done")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "run_superseded")
    place.tick()
    late = polecat.call("gt_done")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "run_superseded")
    assert not Fact.objects.filter(kind="run.done").exists()


def test_heartbeat_tells_finish_stop_and_nudges(place: Place, polecat: Agent) -> None:
    path = f"/api/runs/{polecat.run.pk}/heartbeat"
    assert polecat.post(path).json()["data"]["finish"] is False
    polecat.call("gt_nudge", to=polecat.run.agent.name if polecat.run.agent else "", message="hurry")
    polecat.call("gt_done")
    runs.request_stop(polecat.run.pk, "enough", place.now)
    data = polecat.post(path, {"activity_at": "2026-01-01T00:00:00Z"}).json()["data"]
    assert (data["finish"], data["stop"]) == (True, True)


def test_mail_status_checkpoint_and_beads(place: Place, polecat: Agent) -> None:
    assert polecat.call("gt_mail_send", to="overseer", subject="Hello", body="there").status_code == 200
    assert polecat.call("gt_mail_send", to="nobody", subject="Hello").status_code == 404
    assert polecat.call("gt_status", message="painting").status_code == 200
    assert polecat.call("gt_checkpoint", data={"coat": 1}).status_code == 200
    made = polecat.call("gt_bead_create", title="Buy paint", priority=1).json()["data"]["id"]
    assert polecat.call("gt_bead_show", bead=made).json()["data"]["bead"]["title"] == "Buy paint"
    assert {b["id"] for b in polecat.call("gt_bead_list").json()["data"]["beads"]} == {made, polecat.run.bead_id}
    run = Run.objects.get(pk=polecat.run.pk)
    assert (run.status_message, run.checkpoint) == ("painting", {"coat": 1})
    assert Mail.objects.get().recipient == "overseer"


def test_an_idempotency_key_gives_the_same_answer_again(polecat: Agent) -> None:
    first = polecat.post("/api/tools/gt_bead_create", {"title": "Once"}, **{"Idempotency-Key": "k1"})
    again = polecat.post("/api/tools/gt_bead_create", {"title": "Once"}, **{"Idempotency-Key": "k1"})
    assert first.json() == again.json()
    assert Bead.objects.filter(title="Once").count() == 1
    other = polecat.post("/api/tools/gt_bead_create", {"title": "Twice"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("tool", "body", "field"),
    [
        ("gt_status", {"message": "x" * 281}, "message"),
        ("gt_status", {"message": 5}, "message"),
        ("gt_status", {}, "message"),
        ("gt_status", {"message": "a\x00b"}, "message"),
        ("gt_status", {"message": "ok", "colour": "red"}, "colour"),
        ("gt_bead_create", {"title": "ok", "priority": 9}, "priority"),
        ("gt_bead_create", {"title": ""}, "title"),
        ("gt_checkpoint", {"data": "x" * 70000}, "data"),
        ("gt_prime", [1], "body"),
        ("gt_prime", '"text"', "body"),
    ],
)
def test_bad_arguments_name_the_field_and_change_nothing(polecat: Agent, tool: str, body: Any, field: str) -> None:
    beads = Bead.objects.count()
    answer = polecat.post(f"/api/tools/{tool}", body)
    assert answer.status_code == 400, answer.content
    error = answer.json()["error"]
    assert (error["code"], error["details"].get("field")) == ("invalid", field)
    assert Bead.objects.count() == beads


def test_other_refusals(place: Place, polecat: Agent, client: Client) -> None:
    assert polecat.call("gt_no_such").status_code == 404
    assert polecat.call("gt_request_changes", feedback="no").status_code == 403
    assert polecat.call("gt_sling", title="x").status_code == 403
    assert polecat.call("gt_bead_show", bead="gt-missing").status_code == 404
    big = client.post(
        "/api/tools/gt_status", b"x" * (10 * 1024 * 1024), content_type="application/json",
        headers={"Authorization": f"Bearer {polecat.token}"},
    )  # fmt: skip
    assert big.status_code == 413
    bad = client.post(
        "/api/tools/gt_status", b"{", content_type="application/json",
        headers={"Authorization": f"Bearer {polecat.token}"},
    )  # fmt: skip
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid")
    assert client.get("/api/tools/gt_status", headers={"Authorization": f"Bearer {polecat.token}"}).status_code == 405
    unknown = client.post("/api/tools/gt_prime", {}, headers={"Authorization": "Bearer nonsense"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "unauthenticated")
    assert client.post("/api/tools/gt_prime").status_code == 401
    other = client.post(
        "/api/runs/run-other/heartbeat", {}, content_type="application/json",
        headers={"Authorization": f"Bearer {polecat.token}"},
    )  # fmt: skip
    assert other.status_code == 403


def test_a_shim_of_the_last_release_speaks_with_its_runs_one_token(place: Place, client: Client) -> None:
    """It was started before the upgrade and claims after it: it knows of no secret of its own."""
    place.bead("Paint the fence")
    place.tick()
    run, claim = runs.pick("runner", place.now) or (None, "")
    assert run is not None

    def post(path: str, secret: str, **body: Any) -> Any:
        return client.post(path, body, content_type="application/json", headers={"Authorization": f"Bearer {secret}"})

    door = f"/api/runs/{run.pk}"
    token = post(f"{door}/claim", claim, pid=1, host="here").json()["data"]["token"]
    assert post(f"{door}/heartbeat", token).status_code == 200
    assert post("/api/tools/gt_done", token).status_code == 200
    assert post(f"{door}/heartbeat", token).json()["data"]["finish"] is True
    assert post(f"{door}/exit", token, exit_code=0, head_sha="", salvage_ref="").status_code == 200
    assert Run.objects.get(pk=run.pk).exited_at is not None


def test_the_registry_and_the_schema_name_every_tool(polecat: Agent, client: Client) -> None:
    headers = {"Authorization": f"Bearer {polecat.token}"}
    names = {t["name"] for t in client.get("/api/tools", headers=headers).json()["data"]["tools"]}
    wanted = (
        "gt_prime gt_done gt_request_changes gt_mail_send gt_mail_check gt_nudge gt_status gt_checkpoint gt_escalate "
        "gt_bead_show gt_bead_list gt_bead_create gt_sling gt_convoy_create gt_convoy_start gt_convoy_status "
        "gt_run_gates gt_queue gt_ask gt_report_usage gt_mayor_answer"
    )
    assert names == set(wanted.split())
    schema = client.get("/api/schema/", headers={**headers, "Accept": "application/vnd.oai.openapi+json"})
    assert schema.status_code == 200
    assert {f"/api/tools/{n}" for n in names} <= set(schema.json()["paths"])
