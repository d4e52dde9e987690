"""A list that is cut says so, and how to see the rest: in commands, on pages, to agents."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.test import Client

from agents import mail
from agents.models import Mail, Run
from beads import ledger
from beads.actors import Actor
from refinery.decisions import work
from tests.db.conftest import SHA, Place
from tests.web.conftest import Agent

pytestmark = pytest.mark.django_db
LISTS = ("bead", "convoy", "escalations", "mail", "mq", "runs")


def typed(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def crowd(place: Place) -> Place:
    """Three of each kind."""
    for number in range(3):
        ledger.create_bead(place.town, place.rig, ledger.Draft(f"Bead {number}"), actor="test")
        ledger.create_convoy(place.rig, f"Convoy {number}", "review-and-merge", [], actor="test")
        ledger.escalate(place.town, ledger.Problem(f"key{number}", f"Escalation {number}"), actor="test")
        mail.send(place.town, "alice", "overseer", mail.Letter(f"Mail {number}", ""))
        place.entry(f"branch-{number}", SHA[str(number + 1)])
    return place


@pytest.mark.parametrize(("command", "count"), [("bead", 3), ("convoy", 3), ("escalations", 3), ("mail", 3)])
def test_a_command_says_how_much_of_its_list_it_shows(crowd: Place, command: str, count: int) -> None:
    whole, _ = typed(command, "list")
    assert "shown" not in whole and len(whole.strip().splitlines()) == 1 + count
    cut, _ = typed(command, "list", "--limit", "2")
    assert cut.strip().splitlines()[-1] == f"2 of {count} shown; --limit 0 shows all"
    data, said = typed(command, "list", "--limit", "2", "--json")
    assert len(json.loads(data)["data"]) == 2 and said.strip() == f"2 of {count} shown; --limit 0 shows all"
    data, said = typed(command, "list", "--limit", "0", "--json")
    assert len(json.loads(data)["data"]) == count and not said


@pytest.mark.parametrize("command", LISTS)
def test_every_list_has_a_limit_and_refuses_nonsense(crowd: Place, command: str) -> None:
    typed(command, "list", "--limit", "0")
    with pytest.raises(SystemExit):
        typed(command, "list", "--limit", "-1")


def test_a_convoy_at_work_is_listed_however_many_have_ended_since(place: Place) -> None:
    for number in range(3):
        convoy = ledger.create_convoy(place.rig, f"Convoy {number}", "review-and-merge", [], actor="test")
        if number:
            work.close_convoy(convoy, by=Actor("", "test"))
    place.tick()
    listed, _ = typed("convoy", "list", "--limit", "1")
    assert "Convoy 0" in listed and "shown" not in listed


def test_a_page_says_how_much_it_shows_and_its_link_shows_the_rest(place: Place, viewer: Client) -> None:
    for number in range(101):
        mail.send(place.town, "alice", "overseer", mail.Letter(f"Mail {number:03}", ""))
    cut = viewer.get("/mail/").content.decode()
    assert "100 of 101 mails shown" in cut and 'href="?all=1"' in cut and "Mail 000" not in cut
    whole = viewer.get("/mail/?all=1").content.decode()
    assert "Mail 000" in whole and "shown." not in whole


def test_an_agent_is_told_how_much_is_left(place: Place, polecat: Agent) -> None:
    agent = Run.objects.get().agent
    assert agent is not None
    for number in range(3):
        ledger.create_bead(place.town, place.rig, ledger.Draft(f"Bead {number}"), actor="test")
        mail.send(place.town, "alice", agent.name, mail.Letter(f"Mail {number}", ""))
    listed = polecat.call("gt_bead_list", limit=2, skip=1).json()["data"]
    assert len(listed["beads"]) == 2 and listed["total"] >= 4
    assert polecat.call("gt_prime").json()["data"]["mail_left"] == 0
    checked = polecat.call("gt_mail_check", limit=2).json()["data"]
    assert (len(checked["mail"]), checked["left"]) == (2, 1)
    assert Mail.objects.filter(read_at=None).count() == 1
