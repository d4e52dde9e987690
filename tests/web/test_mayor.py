"""The mayor's page: the conversation, who may ask, a form that is sent twice, the plan and its Start button."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from beads import config as configs
from beads import ledger
from beads.models import Bead, Convoy, Fact
from refinery.pages import mayor as pages
from tests.db.conftest import Place
from tests.web.conftest import Agent

PAGE = "/towns/main/mayor/"
PLAN = [
    {"key": "a", "title": "Add <b>table</b>", "files": ["log.py"], "estimate": "2 h"},
    {"key": "b", "title": "Export", "files": ["log.py"]},
]


@pytest.fixture
def town(place: Place) -> Place:
    """A town with a mayor."""
    ledger.set_config(place.rig, configs.validate({"agents": {"mayor": {"command": ["mayor"]}}}))
    place.rig.refresh_from_db()
    return place


def once(client: Client) -> str:
    found = re.search(r'name="once" value="([^"]+)"', client.get(PAGE).content.decode())
    assert found is not None
    return found[1]


def ask(client: Client, text: str = "Make it exportable", **more: Any) -> Any:
    return client.post(f"{PAGE}ask/", {"text": text, **more}, follow=True)


def at_work(place: Place, client: Client) -> Agent:
    place.tick()
    run, token = place.running(kind="mayor")
    return Agent(client, run, token)


def test_asked_planned_shown_and_started(town: Place, operator: Client, client: Client) -> None:
    assert "Make it exportable" in ask(operator, once=once(operator)).content.decode()
    request = Bead.objects.get(type="message")
    assert request.created_by == "web:olga"
    agent = at_work(town, client)
    assert "the mayor is at it" in operator.get(PAGE).content.decode()
    made = agent.call("gt_convoy_create", title="Export", beads=PLAN).json()["data"]
    assert made["conflicts"] == [{"beads": ["a", "b"], "files": ["log.py"]}]
    assert agent.call("gt_done", summary="Two steps").status_code == 200
    town.exit(agent.run)
    town.tick()
    shown = operator.get(PAGE).content.decode()
    for words in ("planned: convoy", "Two steps", "2 h", "no estimate", "May conflict", "Start it", "Drop it"):
        assert words in shown, words
    assert "<b>table" not in shown
    assert f'action="/convoys/{made["id"]}/start/"' in shown
    assert operator.post(f"/convoys/{made['id']}/start/").status_code == 302
    town.tick()
    assert Convoy.objects.get().started_at is not None
    assert "Start it" not in operator.get(PAGE).content.decode()
    assert operator.get(f"/beads/{request.pk}/")["Location"] == f"{PAGE}#request-{request.pk}"


def test_a_question_is_a_need_with_a_box_for_its_answer(
    town: Place, operator: Client, viewer: Client, client: Client
) -> None:
    ask(operator)
    agent = at_work(town, client)
    assert agent.call("gt_ask", text="CSV or <i>JSON</i>?").status_code == 200
    town.exit(agent.run)
    town.tick()
    request = Bead.objects.get(type="message")
    home = operator.get("/towns/main/").content.decode()
    assert "The mayor asks: Make it exportable" in home
    assert "Answer it" in home
    assert "CSV or &lt;i&gt;JSON" in operator.get(PAGE).content.decode()
    seen = viewer.get(PAGE).content.decode()
    assert "CSV or" in seen
    assert '<form class="ask"' not in seen
    form = {"text": "CSV", "next": PAGE}
    assert viewer.post(f"/beads/{request.pk}/answer/", form).status_code == 403
    for said in ("The mayor goes on with your answer.", "It had this answer before."):
        answer = operator.post(f"/beads/{request.pk}/answer/", form, follow=True)
        assert (answer.redirect_chain[0][0], said in answer.content.decode()) == (PAGE, True)
    assert Fact.objects.filter(kind="mayor.answer").count() == 1
    town.tick()
    assert "The mayor asks" not in operator.get("/towns/main/").content.decode()
    assert "asks nothing" in operator.post(f"/beads/{request.pk}/answer/", form, follow=True).content.decode()


def test_who_may_ask(town: Place, viewer: Client, reviewer: Client, stranger: Client, dispatcher: Client) -> None:
    assert [c.get(PAGE).status_code for c in (viewer, reviewer, stranger, dispatcher)] == [200, 200, 404, 200]
    form = {"text": "Please"}
    assert [c.post(f"{PAGE}ask/", form).status_code for c in (viewer, reviewer, stranger)] == [403, 403, 403]
    assert not Bead.objects.exists()
    assert dispatcher.post(f"{PAGE}ask/", form).status_code == 302
    assert Client().get(PAGE).status_code == 302
    assert dispatcher.post("/towns/none/mayor/ask/", form).status_code == 404


def test_a_form_sent_twice_is_one_request_and_two_people_are_two(
    town: Place, operator: Client, dispatcher: Client
) -> None:
    mark = once(operator)
    for _ in range(2):
        ask(operator, once=mark)
    assert Bead.objects.filter(type="message").count() == 1
    ask(operator, "Something else", once=mark)
    ask(dispatcher, once=mark)
    assert Bead.objects.filter(type="message").count() == 3


@pytest.mark.parametrize(
    ("form", "said"),
    [({"text": ""}, "text"), ({"text": "x", "rig": "none"}, "no rig none"), ({"text": "a\x00b"}, "null characters")],
)
def test_what_cannot_be_asked_is_said_on_the_page(
    town: Place, operator: Client, form: dict[str, str], said: str
) -> None:
    answer = operator.post(f"{PAGE}ask/", form, follow=True)
    assert (answer.status_code, said in answer.content.decode().lower()) == (200, True)
    assert not Bead.objects.exists()


def test_without_a_mayor_the_page_says_what_to_add(place: Place, operator: Client) -> None:
    shown = operator.get(PAGE).content.decode()
    assert "nobody plans for rig proj: put [agents.mayor]" in shown
    assert "Ask the mayor</button>" not in shown
    assert "nobody plans" in ask(operator).content.decode()


def test_its_queries_do_not_grow_with_the_requests(
    town: Place, operator: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        ask(operator, f"Number {number}")
    town.tick()
    with django_assert_max_num_queries(40):
        shown = pages.context(town.town)
    assert len(shown["rows"]) == 12


def test_a_convoys_page_shows_its_plan_and_leads_to_a_question_about_it(
    town: Place, operator: Client, client: Client
) -> None:
    ask(operator)
    agent = at_work(town, client)
    key = agent.call("gt_convoy_create", title="Export", beads=PLAN).json()["data"]["id"]
    shown = operator.get(f"/convoys/{key}/").content.decode()
    assert "2 h" in shown and "May conflict" in shown
    assert f'href="{PAGE}?about={key}"' in shown
    assert f"About convoy {key} (Export): </textarea>" in operator.get(f"{PAGE}?about={key}").content.decode()
    assert "></textarea>" in operator.get(f"{PAGE}?about=gt-none").content.decode()


def test_a_bead_of_a_plan_is_edited_on_its_page(place: Place, operator: Client) -> None:
    bead = place.bead("Old <title>")
    shown = operator.get(f"/beads/{bead.pk}/").content.decode()
    assert 'value="Old &lt;title&gt;"' in shown
    form = {"title": "New", "body": "All of it", "priority": "1", "reason": ""}
    assert operator.post(f"/beads/{bead.pk}/edit/", form).status_code == 302
    ledger.pause_town(place.town, "so that nobody begins it")
    place.tick()
    bead.refresh_from_db()
    assert (bead.title, bead.body, bead.priority) == ("New", "All of it", 1)
