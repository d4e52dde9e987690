"""P2: mail is of the work and not of the name, and is told once."""

from __future__ import annotations

import pytest

from agents import mail
from agents.models import Agent, Mail, Run
from beads.errors import Conflict
from beads.models import Bead
from refinery.decisions import work
from tests.db.conftest import SHA, Place
from tests.db.words import RITA, call, hand_in, prompt, review, reworked, reworking, to_review


@pytest.fixture
def town(db: None) -> Place:
    """Gates and a reviewing refinery, one round of rework."""
    return Place(code_review=True, max_rework_cycles=1)


def test_p2_mail_is_of_the_work_not_of_the_name_and_is_told_once(town: Place) -> None:
    entry = hand_in(town)
    author = entry.author
    review(town, to_review(town, entry), feedback="no tests")
    busy = Agent.objects.get(name=author)
    task = Run.objects.get(purpose="rework")
    assert task.agent == busy
    run = reworking(town)
    assert [m["kind"] for m in call(town, run, "gt_prime")["mail"]] == ["REWORK_REQUEST"]
    reworked(town, run, "added", SHA["d"])
    assert not Mail.objects.filter(kind="REWORK_REQUEST", read_at=None).exists()
    mail.send(
        town.town,
        str(RITA),
        author,
        mail.Letter("About that", "for the first bead", about=Bead.objects.get(pk=entry.source_id)),
    )
    other = town.bead("Another")
    town.tick()
    second = town.running(bead=other)[0]
    assert second.agent == busy  # the same name
    assert call(town, second, "gt_prime")["mail"] == []
    assert call(town, second, "gt_mail_check")["mail"] == []
    assert "About that" not in prompt(second)
    mail.send(town.town, str(RITA), author, mail.Letter("Hello", "you, now"))
    assert [m["subject"] for m in call(town, second, "gt_mail_check")["mail"]] == ["Hello"]
    assert call(town, second, "gt_mail_check")["mail"] == []


def test_p2_mail_for_an_attempt_that_failed_is_told_to_the_next_one_and_nudges_to_nobody_else(town: Place) -> None:
    bead = town.bead("First")
    town.tick()
    run, _ = town.running(bead=bead)
    assert run.agent is not None
    mail.send(town.town, str(RITA), run.agent.name, mail.Letter("Use tabs"))
    assert "Use tabs" in prompt(run)
    mail.nudge(run, str(RITA), "hurry", town.now)
    town.exit(run, 1)
    town.tick()
    town.later(minutes=1)
    town.tick()
    again = town.running(bead=bead)[0]
    assert "Use tabs" in prompt(again)
    assert "nudges" not in call(town, again, "gt_status", message="on")
    town.say(again, "run.done", summary="done")
    town.exit(again, head=SHA["d"], work="new")
    town.tick()
    assert not Mail.objects.filter(subject="Use tabs", read_at=None).exists()


def test_p2_what_nobody_would_read_is_refused(town: Place) -> None:
    bead = town.bead("Only")
    town.tick()
    run, _ = town.running(bead=bead)
    assert run.agent is not None
    work.cancel_bead(bead, by=RITA)
    town.tick()
    town.exit(run, 1)
    town.tick()
    with pytest.raises(Conflict, match="nobody would read it"):
        mail.send(town.town, str(RITA), run.agent.name, mail.Letter("Hello"))
