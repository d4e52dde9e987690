"""What agents file waits for a person, and there is an end to it: budgets of a run and of a town's day, and a depth."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail as letters
from django.core.management import call_command
from django.test import Client

from agents.models import Agent as Identity
from agents.models import Mail, Nudge, Run
from beads import config as configs
from beads import ledger, people
from beads.actors import Actor
from beads.models import Bead, BeadEvent, Convoy, Escalation, Fact, TownRole
from refinery.decisions import reviews, towns, work
from refinery.executor import perform
from refinery.models import ReviewEntry
from refinery.pages import boards
from refinery.tick import invariants, reconciler
from tests.db.conftest import SHA, Place
from tests.web.conftest import Agent

BIG = "x" * 200_000


def limits(place: Place, **keys: Any) -> None:
    """Set `[limits]` of the rig."""
    ledger.set_config(place.rig, configs.validate({"limits": keys}))
    place.rig.refresh_from_db()


def file(agent: Agent, title: str = "Idea", **more: Any) -> Bead:
    """A bead that the agent files."""
    answer = agent.call("gt_bead_create", title=title, **more)
    assert answer.status_code == 200, answer.content
    return Bead.objects.get(pk=answer.json()["data"]["id"])


def refused(answer: Any, limit: str, value: int) -> str:
    """That a call was refused for a limit, which the answer names; returns its words."""
    assert answer.status_code == 429, answer.content
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("limit_reached", {"limit": limit, "value": value})
    assert f"{limit} is {value}" in error["message"]
    return str(error["message"])


def agent_on(place: Place, client: Client, bead: Bead) -> Agent:
    """A polecat at work on this bead."""
    place.tick()
    run, token = place.running(bead=bead)
    return Agent(client, run, token)


def mayor(place: Place, client: Client) -> Agent:
    """The mayor at work."""
    agent = Identity.objects.create(town=place.town, rig=place.rig, name="mayor", role="mayor")
    run = Run.objects.create(
        town=place.town, rig=place.rig, bead=place.bead("Plan"), agent=agent, kind="mayor", purpose="work",
        attempt=1, target="main",
    )  # fmt: skip
    return Agent(client, run, place.start(run))


def gastown(*words: str) -> Any:
    """A command's data."""
    out = StringIO()
    call_command(*words, "--json", stdout=out)
    return json.loads(out.getvalue())["data"]


def why(place: Place, bead: Bead) -> str:
    """The plan's own sentence."""
    return next(d.why for d in reconciler.explain(place.town, place.now) if d.subject == f"bead {bead.pk}")


# -- waiting for a person -------------------------------------------------------------------------------------------


def test_p6_a_filed_bead_waits_for_a_person_everywhere_and_is_done_once_released(
    place: Place, polecat: Agent, operator: Client
) -> None:
    answer = polecat.call("gt_bead_create", title="Buy paint").json()["data"]
    assert answer["staged"] is True
    assert "waits until a person releases it" in answer["why"]
    bead = Bead.objects.get(pk=answer["id"])
    agent = polecat.run.agent.name if polecat.run.agent else ""
    said = f"filed by {agent} in run {polecat.run.pk}: waits for a person to release it"
    after = place.bead("Paint it", bead)
    place.tick()
    assert (bead.filed_by, bead.depth, bead.released_at) == (polecat.run.pk, 1, None)
    assert not Run.objects.filter(bead=bead).exists()
    assert (why(place, bead), why(place, after)) == (
        said,
        f"waits for {bead.pk} (open, waits for a person to release it)",
    )
    assert boards.Board(place.town).bead_phase(bead) == "awaiting_human"
    row = next(r for r in gastown("bead", "list") if r["id"] == bead.pk)
    assert (row["staged"], row["phase"], row["reason"]) == (True, "awaiting_human", said)
    shown = gastown("bead", "show", bead.pk)
    assert (shown["staged"], shown["filed_by"], shown["depth"]) == (True, polecat.run.pk, 1)
    assert f"/admin/beads/bead/{bead.pk}/change/" in operator.get("/admin/").content.decode()
    assert bead.title in operator.get("/admin/beads/bead/?now=unreleased").content.decode()
    for path in ("/towns/main/", f"/beads/{bead.pk}/"):
        page = operator.get(path).content.decode()
        assert "waits for a person to release it" in page
        assert f'action="/beads/{bead.pk}/release/"' in page
        assert 'class="chip ready"' not in page
    assert polecat.call("gt_bead_show", bead=bead.pk).json()["data"]["bead"]["staged"] is True

    assert operator.post(f"/beads/{bead.pk}/release/", {"next": "/towns/main/"})["Location"] == "/towns/main/"
    place.tick()
    bead.refresh_from_db()
    assert (bead.status, bead.released_by) == ("in_progress", "web:olga")
    assert BeadEvent.objects.get(bead=bead, kind="released").actor == "web:olga"
    assert Run.objects.filter(bead=bead).exists()
    assert gastown("bead", "show", bead.pk)["staged"] is False
    assert "to release it" not in operator.get(f"/beads/{bead.pk}/").content.decode()


def test_a_paused_town_and_a_parked_rig_still_say_that_it_waits_for_a_person(place: Place, polecat: Agent) -> None:
    bead = file(polecat)
    towns.pause(place.town, by=Actor("", "test"), reason="lunch")
    place.town.refresh_from_db()
    assert "waits for a person to release it" in why(place, bead)
    assert [b.id for b in boards.Board(place.town).unreleased] == [bead.pk]


def test_release_takes_many_or_all_of_a_run_and_all_or_none(place: Place, polecat: Agent) -> None:
    one, two, three = file(polecat, "one"), file(polecat, "two"), file(polecat, "three")
    with pytest.raises(SystemExit):
        gastown("bead", "release", one.pk, polecat.run.bead_id)
    assert not Fact.objects.filter(kind="bead.release").exists()
    assert gastown("bead", "release", one.pk, one.pk, "--reason", "good") == {"released": [one.pk]}
    place.tick()
    assert BeadEvent.objects.get(bead=one, kind="released").reason == "good"
    assert gastown("bead", "release", "--all-of", polecat.run.pk) == {"released": [two.pk, three.pk]}
    place.tick()
    assert not Bead.objects.exclude(filed_by="").filter(released_at=None).exists()
    for words in (("--all-of", polecat.run.pk), ("--all-of", "run-none"), (), (one.pk,)):
        with pytest.raises(SystemExit):
            gastown("bead", "release", *words)


def test_a_second_release_of_one_bead_is_told_so_and_changes_nothing(place: Place, polecat: Agent) -> None:
    bead = file(polecat)
    work.release_bead(bead, by=Actor("cli", "ann"))
    work.release_bead(bead, by=Actor("cli", "bob"))
    place.tick()
    assert Bead.objects.get(pk=bead.pk).released_by == "cli:ann"
    late = Fact.objects.filter(kind="bead.release").latest("id")
    assert (late.quarantined_at, "waits for no release" in late.error) == (None, True)


def test_only_an_operator_releases_and_a_bead_can_be_cancelled_instead(
    place: Place, polecat: Agent, reviewer: Client, dispatcher: Client
) -> None:
    bead = file(polecat)
    assert reviewer.post(f"/beads/{bead.pk}/release/").status_code == 403
    assert "/release/" not in reviewer.get("/towns/main/").content.decode()
    assert dispatcher.post(f"/beads/{bead.pk}/no-such-verb/").status_code == 404
    assert dispatcher.post(f"/beads/{bead.pk}/cancel/")["Location"] == f"/beads/{bead.pk}/"
    place.tick()
    bead.refresh_from_db()
    assert (bead.status, bead.resolution) == ("closed", "cancelled")
    assert boards.Board(place.town).unreleased == []
    dispatcher.post(f"/beads/{bead.pk}/release/", {"next": "https://evil.example.org/"})
    assert "waits for no release" in dispatcher.get("/").content.decode()


def test_whoever_asked_to_hear_of_needs_hears_once_of_what_a_run_files(place: Place, polecat: Agent) -> None:
    user = User.objects.create_user("ann", "ann@example.org")
    people.grant(user, place.town, TownRole.OPERATOR, "test")
    people.set_notices(user, place.town, ["needs_you"])
    file(polecat, "one")
    file(polecat, "two")
    place.tick()
    assert [perform.run_effect(e.pk) for e in place.effects("notify")] == ["done"]
    assert "one" in letters.outbox[0].subject


def test_with_dispatch_it_is_dispatched_at_once_and_says_so(place: Place, polecat: Agent) -> None:
    limits(place, filed_beads="dispatch")
    answer = polecat.call("gt_bead_create", title="Go").json()["data"]
    assert answer["staged"] is False
    place.tick()
    bead = Bead.objects.get(pk=answer["id"])
    assert (bead.status, bead.released_by, bead.depth) == ("in_progress", "limits.filed_beads", 1)
    limits(place, filed_beads="staged")
    assert file(polecat, "Stop").unreleased


def test_the_stricter_of_two_rigs_decides(place: Place, polecat: Agent) -> None:
    limits(place, filed_beads="dispatch", depth=5)
    other = ledger.create_rig(place.town, "other", "/nowhere.git", "main")
    assert file(polecat, rig="other").unreleased
    assert not file(polecat, rig="proj").unreleased
    ledger.set_config(other, configs.validate({"limits": {"depth": 0}}))
    refused(polecat.call("gt_bead_create", title="x", rig="other"), "limits.depth", 0)


# -- budgets --------------------------------------------------------------------------------------------------------


def test_s9_a_run_that_files_and_cries_without_end_is_bounded_and_a_person_hears_once(
    place: Place, polecat: Agent
) -> None:
    before = Bead.objects.filter(type="issue").count()
    answers = [polecat.call("gt_bead_create", title=f"More {n}", body=BIG) for n in range(60)]
    assert [a.status_code for a in answers] == [200] * 5 + [429] * 55
    assert "5 beads were filed in this run" in refused(answers[-1], "limits.beads_per_run", 5)
    place.tick()
    big = [polecat.call("gt_escalate", title=f"Fire {n}", body=BIG, severity="critical") for n in range(60)]
    assert {a.status_code for a in big} == {400}
    assert big[0].json()["error"]["details"]["field"] == "body"
    small = [polecat.call("gt_escalate", title=f"Fire {n}", body="x" * 16_384, severity="critical") for n in range(60)]
    assert [a.status_code for a in small] == [200] * 5 + [429] * 55
    refused(small[-1], "limits.escalations_per_run", 5)
    for _ in range(3):
        place.tick()
    filed = Bead.objects.filter(type="issue").exclude(filed_by="")
    assert (filed.count(), Bead.objects.filter(type="issue").count()) == (5, before + 5)
    assert all(b.unreleased and b.status == "open" for b in filed)
    assert not Run.objects.filter(bead__in=filed).exists()
    raised = Escalation.objects.select_related("bead").order_by("pk")
    assert raised.filter(severity="critical").count() == 5
    notices = [e for e in raised if e.severity == "low"]
    assert {e.key for e in notices} == {
        f"limit:{polecat.run.pk}:limits.beads_per_run",
        f"limit:{polecat.run.pk}:limits.escalations_per_run",
    }
    assert len(notices) == 2 and len(raised) == 7
    assert all(polecat.run.pk in e.bead.body and e.about_id == polecat.run.bead_id for e in notices)
    assert invariants.look(place.town, place.now) == []


def test_mail_and_nudges_share_one_budget_and_long_mail_is_refused(place: Place, polecat: Agent) -> None:
    limits(place, mail_per_run=3)
    me = polecat.run.agent.name if polecat.run.agent else ""
    assert polecat.call("gt_mail_send", to="overseer", subject="s", body="x" * 65_537).status_code == 400
    assert polecat.call("gt_mail_send", to="nobody", subject="s").status_code == 404  # refused: does not count
    assert polecat.call("gt_mail_send", to="overseer", subject="s", body="x" * 65_536).status_code == 200
    assert polecat.call("gt_nudge", to=me, message="on").status_code == 200
    assert polecat.call("gt_mail_send", to="overseer", subject="s").status_code == 200
    refused(polecat.call("gt_mail_send", to="overseer", subject="s"), "limits.mail_per_run", 3)
    refused(polecat.call("gt_nudge", to=me, message="on"), "limits.mail_per_run", 3)
    assert (Mail.objects.count(), Nudge.objects.count()) == (2, 1)


def test_a_repeat_under_its_key_counts_once_and_is_answered_above_the_limit(place: Place, polecat: Agent) -> None:
    limits(place, beads_per_run=1, escalations_per_run=1)
    for tool, body in (("gt_bead_create", {"title": "Once"}), ("gt_escalate", {"title": "Once"})):
        first, again = (polecat.post(f"/api/tools/{tool}", body, **{"Idempotency-Key": tool}) for _ in range(2))
        assert (first.status_code, again.json()) == (200, first.json())
        assert polecat.post(f"/api/tools/{tool}", body, **{"Idempotency-Key": "new"}).status_code == 429
    assert Bead.objects.filter(title="Once", type="issue").count() == 1


def test_the_towns_day_is_shared_by_all_agents_and_ends(place: Place, polecat: Agent, client: Client) -> None:
    limits(place, beads_per_day=3)
    other = agent_on(place, client, place.bead("Another"))
    file(polecat)
    file(polecat)
    file(other)
    for agent in (polecat, other):
        refused(agent.call("gt_bead_create", title="x"), "limits.beads_per_day", 3)
    assert place.bead("A person's does not count").depth == 0
    Bead.objects.exclude(filed_by="").update(created_at=place.now - dt.timedelta(hours=25))
    file(other)


def test_bad_arguments_cost_nothing(place: Place, polecat: Agent) -> None:
    limits(place, beads_per_run=1)
    assert polecat.call("gt_bead_create", title="x", after=["gt-missing"]).status_code == 404
    assert polecat.call("gt_bead_create", title="x", rig="missing").status_code == 404
    file(polecat)


def test_a_config_that_cannot_be_used_means_the_defaults(place: Place, polecat: Agent) -> None:
    type(place.rig).objects.filter(pk=place.rig.pk).update(config={"limits": {"filed_beads": "whatever"}})
    assert file(polecat).unreleased
    assert polecat.call("gt_escalate", title="Help").status_code == 200


# -- depth ----------------------------------------------------------------------------------------------------------


def test_s9_a_chain_of_released_beads_ends_at_the_depth(place: Place, polecat: Agent, client: Client) -> None:
    agent, depths = polecat, []
    while (answer := agent.call("gt_bead_create", title="Deeper")).status_code == 200:
        bead = Bead.objects.get(pk=answer.json()["data"]["id"])
        depths.append(bead.depth)
        work.release_bead(bead, by=Actor("cli", "ann"))
        agent = agent_on(place, client, bead)
    assert depths == [1, 2]
    assert "at depth 2" in refused(answer, "limits.depth", 2)
    place.tick()
    assert Escalation.objects.get(severity="low").key == f"limit:{agent.run.pk}:limits.depth"


def test_reviews_and_rework_are_as_deep_as_what_they_are_of(place: Place, polecat: Agent, client: Client) -> None:
    bead = file(polecat)
    work.release_bead(bead, by=Actor("cli", "ann"))
    agent = agent_on(place, client, bead)
    agent.call("gt_done")
    place.exit(agent.run, 0, SHA["a"])
    place.tick()
    entry = ReviewEntry.objects.get(source=bead)
    assert entry.bead.depth == 1
    reviews.request_changes(entry, by=Actor("web", "rita"), body="not like this")
    place.tick()
    task = Bead.objects.get(purpose="rework")
    assert (task.depth, task.unreleased, task.filed_by) == (1, False, "")
    worker = Agent(client, *place.running(bead=task))
    assert file(worker).depth == 2


# -- the mayor ------------------------------------------------------------------------------------------------------


def plan(size: int) -> list[dict[str, Any]]:
    """A plan of so many beads."""
    return [{"key": str(n), "title": f"Part {n}"} for n in range(size)]


def test_a_mayors_convoy_is_staged_whatever_it_says_and_a_person_starts_it(
    place: Place, client: Client, operator: Client
) -> None:
    agent = mayor(place, client)
    answer = agent.call("gt_convoy_create", title="Fair", beads=plan(2), staged=False).json()["data"]
    assert answer["staged"] is True and "waits until a person" in answer["why"]
    place.tick()
    convoy = Convoy.objects.get(pk=answer["id"])
    assert convoy.started_at is None
    assert {(b.filed_by, b.depth, b.unreleased) for b in convoy.beads.all()} == {(agent.run.pk, 1, True)}
    start = agent.call("gt_convoy_start", convoy=convoy.pk)
    assert (start.status_code, start.json()["error"]["code"]) == (409, "conflict")
    assert "a person starts it" in start.json()["error"]["message"]
    first = convoy.beads.order_by("created_at")[0]
    assert why(place, first) == "its convoy is staged: start it"
    assert boards.Board(place.town).bead_phase(first) == "waiting"
    with pytest.raises(SystemExit):
        gastown("bead", "release", first.pk)
    page = operator.get("/towns/main/").content.decode()
    assert (
        "planned by mayor in run" in page
        and f"/runs/{agent.run.pk}/" in page
        and f"/convoys/{convoy.pk}/start/" in page
    )
    operator.post(f"/convoys/{convoy.pk}/start/")
    place.tick()
    assert {b.released_by for b in convoy.beads.all()} == {"web:olga"}
    assert not Bead.objects.get(pk=convoy.pk).unreleased
    assert Convoy.objects.get(pk=convoy.pk).started_at is not None


def test_with_dispatch_the_mayor_starts_its_own_convoys(place: Place, client: Client) -> None:
    limits(place, filed_beads="dispatch")
    agent = mayor(place, client)
    answer = agent.call("gt_convoy_create", title="Fair", beads=plan(1), staged=False).json()["data"]
    assert answer["staged"] is False
    later = agent.call("gt_convoy_create", title="Later", beads=plan(1), staged=True).json()["data"]
    assert later["staged"] is True
    assert agent.call("gt_convoy_start", convoy=later["id"]).status_code == 200
    place.tick()
    assert not Convoy.objects.filter(started_at=None).exists()


def test_a_persons_staged_convoy_is_the_mayors_to_start(place: Place, client: Client) -> None:
    agent = mayor(place, client)
    items = [{"key": "a", "rig": place.rig, "title": "A", "body": "", "priority": 2, "after": []}]
    convoy = ledger.create_convoy(place.rig, "Mine", "review-and-merge", items, actor="cli:ann")
    assert agent.call("gt_convoy_start", convoy=convoy.pk).status_code == 200


def test_a_plan_may_be_larger_than_what_is_filed_one_by_one(place: Place, client: Client) -> None:
    limits(place, beads_per_run=1, beads_per_plan=5)
    agent = mayor(place, client)
    assert agent.call("gt_convoy_create", title="Half", beads=plan(3)).status_code == 200
    answer = agent.call("gt_convoy_create", title="Big", beads=plan(3))
    assert "3 beads were planned in this run, and 3 more are asked for" in refused(answer, "limits.beads_per_plan", 5)
    assert agent.call("gt_sling", title="Single").json()["data"]["staged"] is True
    refused(agent.call("gt_sling", title="More"), "limits.beads_per_run", 1)
    limits(place, filed_beads="dispatch")  # nobody has to start it: it counts as all else does
    answer = agent.call("gt_convoy_create", title="Big", beads=plan(2))
    assert "4 beads were filed in this run, and 2 more" in refused(answer, "limits.beads_per_run", 5)
    assert Convoy.objects.count() == 1


def test_what_was_there_before_is_released(place: Place) -> None:
    assert not place.bead().unreleased
    assert work.sling(place.rig, ledger.Draft("x"), by=Actor("cli", "ann")).depth == 0
