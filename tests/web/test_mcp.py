"""One definition of a tool: HTTP, OpenAPI, MCP and `gt` have the same tools; a call is the same by whichever door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.test import Client as Browser
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agents.api import commands, tools
from agents.models import Run, ToolCall
from beads.models import Bead, Fact
from gastown_site.asgi import application
from tests.db.conftest import Place
from tests.web.conftest import Agent

URL = "http://testserver/mcp"


def speak(token: str, story: Callable[[Client], Awaitable[Any]]) -> Any:
    """A conversation of the real client with the server, in this process."""

    async def talk() -> Any:
        transport = httpx2.ASGITransport(app=application)  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(transport=transport, headers=headers, timeout=60) as http,
            Client(streamable_http_client(URL, http_client=http)) as client,
        ):
            return await story(client)

    return async_to_sync(talk)()


def knock(token: str | None, method: str = "POST") -> httpx2.Response:
    """One bare request."""

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=application)  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=60) as http:
            return await http.request(method, URL, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

    return async_to_sync(ask)()


def test_http_openapi_mcp_and_gt_have_the_same_tools(polecat: Agent, client: Browser) -> None:
    headers = {"Authorization": f"Bearer {polecat.token}"}
    listed = {one["name"]: one for one in client.get("/api/tools", headers=headers).json()["data"]["tools"]}
    paths = client.get("/api/schema/?format=json", headers=headers).json()["paths"]
    table = {one["name"]: one for one in commands.table()}
    assert set(listed) == set(tools.REGISTRY) == set(table)
    assert {path.rpartition("/")[2] for path in paths if path.startswith("/api/tools/gt_")} == set(table)

    async def ask(mcp: Client) -> Any:
        return (await mcp.list_tools()).tools

    told = {one.name: one for one in speak(polecat.token, ask)}
    assert set(told) == {name for name, one in listed.items() if "polecat" in one["roles"]}
    for name, one in told.items():
        assert (one.input_schema, one.description) == (listed[name]["input_schema"], listed[name]["description"])
        arguments = {field["name"] for field in table[name]["args"]}
        assert arguments == set(one.input_schema.get("properties") or ())
    assert "gt_sling" not in told
    assert "gt_run_gates" not in told


def test_every_command_has_words_of_its_own_and_says_what_it_is_for() -> None:
    table = commands.table()
    words = [one["words"] for one in table]
    assert len(set(words)) == len(words)
    assert {"done", "request-changes", "mail send", "bead create", "run-gates", "ask"} <= set(words)
    assert all(one["doc"].strip() for one in table)


def test_a_call_by_mcp_is_one_by_http(place: Place, polecat: Agent) -> None:
    async def story(mcp: Client) -> list[Any]:
        prime = await mcp.call_tool("gt_prime")
        made = await mcp.call_tool("gt_bead_create", {"title": "Buy paint"})
        wrong = await mcp.call_tool("gt_status", {"message": "x" * 281})
        role = await mcp.call_tool("gt_sling", {"title": "x"})
        missing = await mcp.call_tool("gt_no_such")
        return [prime, made, wrong, role, missing]

    prime, made, wrong, role, missing = speak(polecat.token, story)
    assert prime.structured_content["bead"]["title"] == "Paint the fence"
    assert Bead.objects.get(pk=made.structured_content["id"]).filed_by == polecat.run.pk
    assert [one.is_error for one in (prime, made, wrong, role, missing)] == [False, False, True, True, True]
    assert "message" in wrong.content[0].text
    assert wrong.structured_content["error"]["code"] == "invalid"
    assert role.content[0].text == "gt_sling is not a tool of a polecat"
    assert "gt_no_such" in missing.content[0].text
    kept = ToolCall.objects.filter(run=polecat.run).values_list("tool", flat=True)
    assert sorted(kept) == ["gt_bead_create", "gt_prime"]


def test_limits_hold_by_mcp_too(place: Place, polecat: Agent) -> None:
    async def story(mcp: Client) -> list[Any]:
        return [await mcp.call_tool("gt_bead_create", {"title": f"Bead {number}"}) for number in range(6)]

    *made, over = speak(polecat.token, story)
    assert not any(one.is_error for one in made)
    assert over.is_error
    assert "limits.beads_per_run is 5" in over.content[0].text
    assert Fact.objects.filter(kind="limit.reached").count() == 1


def test_a_token_that_opens_nothing_is_told_nothing(place: Place, polecat: Agent) -> None:
    answers = [knock(token) for token in (None, "nonsense", polecat.secret)]
    place.exit(polecat.run, 1)
    place.tick()
    assert Run.objects.get(pk=polecat.run.pk).state == "ended"
    answers.append(knock(polecat.token))
    assert [one.status_code for one in answers] == [401] * 4
    assert len({one.text for one in answers}) == 1
    assert answers[0].json()["error"]["message"] == "this token opens nothing here: it is unknown, or its run has ended"
    assert knock(None, "GET").status_code == 405


@pytest.mark.parametrize("words", ["Which colour?", "  Which\n colour? "])
def test_a_question_is_asked_once_and_its_answer_comes_back(place: Place, polecat: Agent, words: str) -> None:
    asked = polecat.call("gt_ask", text="Which colour?").json()["data"]
    assert asked["state"] == "open"
    again = polecat.call("gt_ask", text=words).json()["data"]
    assert again["id"] == asked["id"]
    assert Bead.objects.get(pk=asked["id"]).title == "Which colour?"
    empty = polecat.call("gt_ask", text=" \n")
    assert (empty.status_code, empty.json()["error"]["details"]["field"]) == (400, "text")


def test_questions_count_as_escalations(polecat: Agent) -> None:
    for number in range(5):
        assert polecat.call("gt_ask", text=f"Question {number}?").status_code == 200
    assert polecat.call("gt_ask", text="Question 0?").status_code == 200
    assert polecat.call("gt_ask", text="One more?").json()["error"]["code"] == "limit_reached"
    assert polecat.call("gt_escalate", title="Help").json()["error"]["code"] == "limit_reached"
