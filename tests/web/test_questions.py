"""An agent asks a person: the box on the pages, the command, the way back of the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from agents import mail
from agents.models import Mail, Run
from beads import people, questions
from beads.models import Bead, Effect, Escalation, Fact, TownRole
from tests.db.conftest import Place
from tests.web.conftest import Agent

Cast = Callable[[str, TownRole], Client]


def test_a_person_answers_on_the_page_and_the_agent_hears(place: Place, polecat: Agent, cast: Cast) -> None:
    question = polecat.call("gt_ask", text="Which colour?").json()["data"]["id"]
    place.tick()
    alice, bob = cast("alice", TownRole.OPERATOR), cast("bob", TownRole.VIEWER)
    for page in (f"/runs/{polecat.run.pk}/", f"/towns/{place.town.slug}/"):
        assert f"/escalations/{question}/answer/" in alice.get(page).content.decode()
        assert "Which colour?" in (text := bob.get(page).content.decode())
        assert "<textarea" not in text
    assert bob.post(f"/escalations/{question}/answer/", {"text": "red"}).status_code == 403
    alice.post(f"/escalations/{question}/answer/", {"text": "  "})
    place.tick()
    assert polecat.call("gt_ask", text="Which colour?").json()["data"]["state"] == "open"
    alice.post(f"/escalations/{question}/answer/", {"text": "green"})
    place.tick()
    told = polecat.call("gt_ask", text="Which colour?").json()["data"]
    assert (told["state"], told["answer"], told["by"]) == ("answered", "green", "web:alice")
    assert "your question" in told["nudges"][0]
    letter = Mail.objects.get(kind="ANSWER")
    assert (letter.subject, letter.body, letter.run_id) == ("Answered: Which colour?", "green", polecat.run.pk)
    assert Bead.objects.get(pk=question).status == "closed"
    assert not Fact.objects.exclude(error="").exists()
    assert f"/escalations/{question}/answer/" not in alice.get(f"/runs/{polecat.run.pk}/").content.decode()


def test_an_answer_by_command_and_one_that_comes_too_late(place: Place, polecat: Agent) -> None:
    with pytest.raises((CommandError, SystemExit)):
        call_command("runs", "answer", polecat.run.pk, "green")
    polecat.call("gt_ask", text="Which colour?")
    call_command("runs", "answer", polecat.run.pk, "green")
    place.tick()
    assert questions.standing(Escalation.objects.get()).answer == "green"
    with pytest.raises((CommandError, SystemExit)):
        call_command("escalations", "answer", Escalation.objects.get().pk, "red")


def test_the_next_attempt_knows_the_answer(place: Place, polecat: Agent) -> None:
    polecat.call("gt_ask", text="Which colour?")
    place.exit(polecat.run, 1)
    place.tick()
    question = Escalation.objects.get(key__startswith=questions.PREFIX)
    call_command("escalations", "close", question.pk, "--reason", "green, as ever")
    place.tick()
    assert questions.standing(question).answer == "green, as ever"
    place.later(minutes=2)
    place.tick()
    again = Run.objects.filter(bead=polecat.run.bead_id).latest("created_at")
    assert again.pk != polecat.run.pk
    assert [one.body for one in mail.for_run(again)] == ["green, as ever"]


def test_people_who_asked_to_hear_what_needs_them_hear_of_a_question(
    place: Place, polecat: Agent, cast: Cast, django_user_model: type[User]
) -> None:
    cast("alice", TownRole.OPERATOR)
    alice = django_user_model.objects.get(username="alice")
    alice.email = "alice@example.org"
    alice.save()
    people.set_notices(alice, place.town, ["needs_you"])
    polecat.call("gt_ask", text="Which colour?")
    place.tick()
    (notice,) = Effect.objects.filter(kind="notify")
    assert notice.payload["title"].endswith("asks: Which colour?")
