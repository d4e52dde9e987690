"""What runs used: one writer, what counts, sums over a bead's whole life, prices, caps, and who is told."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agents import runs, usage
from agents.api import tools
from agents.api.toolset import usage as usage_tools
from agents.lifecycle import Channel, RunKind
from agents.models import Run, Usage
from agents.usage import Reading
from beads import ledger
from beads.actors import Actor
from beads.budget import Price, Spent
from beads.errors import GastownError
from beads.models import Bead, Escalation, Fact
from refinery.decisions import budgets
from refinery.pages import spending
from tests.db.conftest import SHA, Place

PRICES = {"m": Price(input=3, cached=0.3, output=15)}
ONE = Spent(1, 600, 500, 0, 40)
ANN = Actor("web", "ann")
COST = Decimal("0.00255")


def run_of(place: Place, title: str = "Work", **more: Any) -> Run:
    bead = place.bead(title)
    task = runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={}, **more)
    return runs.queue_run(bead, task, agent=None)


def book(run: Run, now: dt.datetime, spent: Spent = ONE, model: str = "m", **more: Any) -> None:
    usage.book(run, Reading(model, spent, **more), PRICES, now)


def test_calls_add_up_in_one_row_for_each_model_day_and_source(place: Place) -> None:
    run = run_of(place)
    for _ in range(3):
        book(run, place.now)
    book(run, place.now, model="m-20260101")  # a dated name has the price of the undated one
    book(run, place.now, model="other")
    book(run, place.now, model="other", told=Decimal("0.5"))
    rows = {(u.model, u.source): (u.calls, u.cost) for u in Usage.objects.all()}
    assert rows == {
        ("m", "priced"): (3, 3 * COST),
        ("m-20260101", "priced"): (1, COST),
        ("other", "unknown"): (1, None),
        ("other", "reported"): (1, Decimal("0.5")),
    }
    whole = usage.total(Usage.objects.all())
    assert (whole.calls, whole.input, whole.cost) == (6, 3600, 4 * COST + Decimal("0.5"))
    assert whole.unpriced == ONE.tokens
    book(run, place.now + dt.timedelta(days=1))
    assert Usage.objects.count() == 5


def test_the_price_of_the_name_that_was_asked_for_is_taken_where_the_answers_has_none(place: Place) -> None:
    book(run_of(place), place.now, model="m-of-the-provider", asked="m")
    assert Usage.objects.get().cost == COST


@pytest.mark.django_db(transaction=True)
def test_bookings_at_once_are_all_there() -> None:
    place = Place()
    run = run_of(place)

    def one(_: int) -> None:
        try:
            book(run, place.now)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    row = Usage.objects.get()
    assert (row.calls, row.input, row.cost) == (40, 24_000, 40 * COST)


def test_a_report_never_lowers_and_counts_once(place: Place) -> None:
    run = run_of(place)

    def report(spent: Spent, now: dt.datetime = place.now, channel: Channel = Channel.TOOL) -> Spent:
        usage.report(run, Reading("m", spent), PRICES, channel, now)
        return usage.total(Usage.objects.all())

    assert report(ONE).input == 600
    assert report(ONE).input == 600
    assert report(Spent(1, 100)).input == 600
    assert report(Spent(2, 1200, 500, 0, 80)).output == 80
    tomorrow = place.now + dt.timedelta(days=1)
    whole = report(Spent(3, 1500, 500, 0, 100), tomorrow)
    assert (whole.calls, whole.input, whole.output) == (3, 1500, 100)
    assert [u.input for u in Usage.objects.order_by("day")] == [1200, 300]


def test_the_doors_books_count_before_a_clis_word_and_that_before_an_agents(place: Place) -> None:
    run, other = run_of(place), run_of(place, "Other")
    usage.report(run, Reading("m", Spent(9, 9000)), PRICES, Channel.TOOL, place.now)
    usage.report(other, Reading("m", Spent(1, 7)), PRICES, Channel.TOOL, place.now)
    assert usage.total(Usage.objects.all()).input == 9007
    usage.report(run, Reading("m", Spent(8, 8000)), PRICES, Channel.STREAM, place.now)
    assert usage.total(Usage.objects.all()).input == 8007
    book(run, place.now)
    assert usage.total(Usage.objects.all()).input == 607
    assert Usage.objects.count() == 4  # the others stay, as a cross-check


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"input": -1}, "input"),
        ({"input": 1.5}, "input"),
        ({"input": "600"}, "input"),
        ({"output": usage_tools.MOST_TOKENS + 1}, "output"),
        ({"cost": -0.1}, "cost"),
        ({"cost": 1e9}, "cost"),
        ({"cost": float("inf")}, "cost"),
        ({"model": ""}, "model"),
        ({"model": "a b"}, "model"),
        ({"tokens": 3}, "tokens"),
    ],
)
def test_an_absurd_report_is_refused_by_field(place: Place, more: dict[str, Any], field: str) -> None:
    place.bead()
    place.tick()
    run, _ = place.running()
    with pytest.raises(GastownError) as caught:
        tools.call("gt_report_usage", run, {"model": "m", **more}, place.now)
    assert caught.value.details["field"] == field
    assert not Usage.objects.exists()


def test_an_agent_reports_what_it_used(place: Place) -> None:
    place.bead()
    place.tick()
    run, _ = place.running()
    told = {"model": "sub", "input": 5, "cached": 6, "output": 7, "calls": 2, "cost": 0.25}
    assert tools.call("gt_report_usage", run, told, place.now)[1] == {"counts": True}
    row = Usage.objects.get()
    assert (row.channel, row.source, row.cost, row.bead_id) == ("tool", "reported", Decimal("0.25"), run.bead_id)
    book(run, place.now)
    assert tools.call("gt_report_usage", run, told, place.now)[1] == {"counts": False}
    assert usage.total(Usage.objects.all()) == Spent(1, 600, 500, 0, 40, COST)


def test_a_beads_money_is_that_of_its_whole_life(reviewed: Place) -> None:
    """An attempt that fails, one that does not, a review that asks for changes, the rework, a review that approves."""
    place = reviewed
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    book(run, place.now)
    place.exit(run, 1)
    place.tick()
    place.later(hours=1)
    place.tick()
    run, _ = place.running(kind="polecat")
    book(run, place.now)
    place.say(run, "run.done")
    place.exit(run, 0, SHA["a"], work="new")
    place.tick()
    entry = bead.entries.get()
    place.built(entry)
    run, _ = place.running(kind="refinery")
    book(run, place.now, Spent(1, 0, 0, 0, 10))
    place.say(run, "run.request_changes", feedback="no", items=[])
    place.exit(run)
    place.tick()
    run, _ = place.running(kind="polecat")
    assert run.bead_id != bead.pk and run.account_id == bead.pk
    book(run, place.now)
    assert [p for (p,), _ in usage.by(usage.of_bead(bead), "run__purpose")] == ["work", "rework", "review"]
    whole = usage.total(usage.of_bead(bead))
    assert (whole.calls, whole.cost) == (4, 3 * COST + Decimal("0.00015"))
    found = spending.report(spending.of_bead(bead))
    assert found["failed"].cost == COST


def test_the_cost_of_what_landed_holds_what_failed_as_well(place: Place) -> None:
    good, bad = run_of(place, "=Good"), run_of(place, "Bad")
    book(good, place.now)
    book(bad, place.now, Spent(1, 1_000_000))
    done = ledger.Transition("closed", resolution="merged", merge_sha=SHA["a"])
    ledger.move(good.bead, "open", done, actor="t", now=place.now)
    ledger.move(bad.bead, "open", ledger.Transition("failed", resolution="gave_up"), actor="t", now=place.now)
    found = spending.report(spending.of_town(place.town))
    assert (found["landed"], found["per_landed"]) == (1, COST + 3)
    assert found["failed"].cost == 3
    for scope in (spending.of_rig(place.rig), spending.of_person(place.town, "test")):
        assert spending.report(scope)["total"] == found["total"]
    assert spending.report(spending.of_person(place.town, "nobody"))["models"] == []
    rows = list(csv.DictReader(io.StringIO("".join(spending.table(spending.of_town(place.town))))))
    assert [row["title"] for row in rows] == ["'=Good", "Bad"]
    assert sum(Decimal(row["cost_usd"]) for row in rows) == found["total"].cost


def test_the_command_says_it_in_words_as_json_and_as_csv(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(place)
    book(run, place.now)
    book(run, place.now, model="free")

    def said(*words: str) -> str:
        call_command("usage", *words)
        return capsys.readouterr().out

    text = said("--bead", run.bead_id)
    assert "0.002550 USD" in text.replace("0.00255 USD", "0.002550 USD")
    assert 'note: free has no price: set [prices] "free" in the config' in text
    data = json.loads(said("--json", "--rig", "proj", "--since", "7d"))["data"]
    assert data["total"]["unpriced_tokens"] == ONE.tokens and Decimal(data["total"]["cost_usd"]) == COST
    assert {row["source"] for row in data["models"]} == {"priced", "unknown"}
    assert json.loads(said("--json", "--since", "2999-01-01"))["data"]["models"] == []
    assert len(said("--csv").strip().splitlines()) == 3
    with pytest.raises(SystemExit):
        call_command("usage", "--since", "soon")


def test_pages_and_metrics_show_it_in_as_many_queries_as_ever(
    place: Place, client: Client, admin_user: Any, django_assert_max_num_queries: Any
) -> None:
    client.force_login(admin_user)
    run = run_of(place)
    places = [f"/towns/{place.town.slug}/", f"/beads/{run.bead_id}/", f"/runs/{run.pk}/"]
    for url in places:
        assert "Models and money" not in client.get(url).content.decode()
    for n in range(30):
        book(run, place.now, model=f"model-{n}<b>")
    for url in places:
        text = client.get(url).content.decode()
        assert "Models and money" in text and "model-7&lt;b&gt;" in text and "unknown: no price" in text
    assert client.get(f"/towns/{place.town.slug}/usage.csv").content.decode().count("\n") == 31
    assert client.get(f"/towns/{place.town.slug}/usage.csv?bead=nobody").content.decode().count("\n") == 1
    assert 'gastown_model_calls{model="model-7<b>"' in client.get("/metrics").content.decode()
    with django_assert_max_num_queries(6):
        spending.shown(spending.of_town(place.town))


# -- caps -----------------------------------------------------------------------------------------------------------


def capped(place: Place, **budget: str) -> None:
    ledger.set_config(place.town, {**place.town.config, "budget": budget})
    place.town.refresh_from_db()


def needs(place: Place) -> list[str]:
    return sorted(Escalation.objects.filter(closed_at=None, key__startswith="budget:").values_list("key", flat=True))


def dear(place: Place, cost: str) -> Spent:
    return Spent(1, int(Decimal(cost) * 1_000_000 / 3))


def stopped(place: Place, run: Run) -> Run:
    """Its grace is over; the shim reports its end."""
    place.later(minutes=1)
    place.tick()
    assert Run.objects.get(pk=run.pk).stop_requested_at is not None
    place.exit(run, 143)
    place.tick()
    return Run.objects.get(pk=run.pk)


def test_a_runs_cap_stops_it_holds_its_bead_and_goes_on_at_a_persons_word(place: Place) -> None:
    capped(place, run="5 USD")
    bead = place.bead()
    place.tick()
    run, _ = place.running()
    book(run, place.now, dear(place, "4.2"))
    place.tick()
    assert needs(place) == [f"budget:near:run:{run.pk}:5"]
    book(run, place.now, dear(place, "1"))
    place.tick()
    run = stopped(place, run)
    assert run.outcome == "stopped" and "has used 5.2" in run.reason
    place.later(hours=1)
    place.tick()
    assert Run.objects.count() == 1 and Bead.objects.get(pk=bead.pk).status == "open"
    assert f"budget:run:{run.pk}:5" in needs(place)
    assert budgets.bead_budget(bead, by=ANN) == f"run {bead.pk}: 5.00 USD"
    place.tick()
    assert needs(place) == []
    again, _ = place.running()
    assert again.attempt == 2
    book(again, place.now, dear(place, "4.9"))
    place.tick()
    assert needs(place) == [f"budget:near:run:{again.pk}:5"]


def test_a_beads_cap_counts_its_reviews_and_holds_them(reviewed: Place) -> None:
    place = reviewed
    capped(place, bead="5 USD")
    bead = place.bead()
    place.tick()
    run, _ = place.running(kind="polecat")
    book(run, place.now, dear(place, "4.5"))
    place.say(run, "run.done")
    place.exit(run, 0, SHA["a"], work="new")
    place.tick()
    entry = bead.entries.get()
    place.built(entry)
    review, _ = place.running(kind="refinery")
    book(review, place.now, dear(place, "0.6"))
    place.tick()
    assert stopped(place, review).outcome == "stopped"
    place.later(hours=1)
    place.tick()
    assert not Run.objects.live().exists()
    assert f"budget:bead:{bead.pk}:5" in needs(place)
    body = Escalation.objects.get(key=f"budget:bead:{bead.pk}:5").bead.body
    assert "work " in body and "4.50 USD" in body and "review " in body
    with pytest.raises(GastownError, match="spent already"):
        budgets.bead_budget(bead, by=ANN, to="5 USD")
    assert budgets.bead_budget(bead, by=ANN, to="8 USD") == f"bead {bead.pk}: 8.00 USD"
    place.tick()
    assert needs(place) == []
    assert Run.objects.live().get().purpose == "review"


def test_a_days_cap_holds_the_town_until_a_person_or_the_next_day(place: Place) -> None:
    capped(place, day="2M tokens")
    place.bead()
    place.tick()
    run, _ = place.running()
    book(run, place.now, Spent(1, 3_000_000))
    place.tick()
    day = str(place.now.astimezone(dt.UTC).date())
    assert needs(place) == [f"budget:day:{day}:2000000"]
    stopped(place, run)
    place.later(hours=1)
    place.tick()
    assert not Run.objects.live().exists()
    place.later(days=1)
    place.tick()
    assert Run.objects.live().count() == 1 and needs(place) == []


def test_a_convoys_cap_is_over_all_its_beads(place: Place) -> None:
    capped(place, convoy="5 USD")
    plan: list[dict[str, Any]] = [
        {"key": k, "title": k, "body": "", "priority": 2, "after": [], "rig": place.rig} for k in ("a", "b")
    ]
    convoy = ledger.create_convoy(place.rig, "Both", "review-and-merge", plan, actor="test")
    ledger.start_convoy(convoy, place.now, actor="test")
    place.tick()
    one, two = Run.objects.filter(state="queued").order_by("pk")
    for run in (one, two):
        book(run, place.now, dear(place, "3"))
    place.tick()
    assert not Run.objects.live().exists()
    assert needs(place) == [f"budget:convoy:{convoy.pk}:5"]
    assert budgets.convoy_budget(convoy, by=ANN) == f"convoy {convoy.pk}: 11.00 USD"
    place.tick()
    assert Run.objects.live().count() == 2 and needs(place) == []


def test_without_a_budget_the_tick_asks_no_more_than_before(place: Place) -> None:
    place.bead()
    place.tick()
    with CaptureQueriesContext(connections["default"]) as seen:
        place.tick()
    assert not [q for q in seen.captured_queries if "agents_usage" in q["sql"] or "allowance" in q["sql"]]


def test_a_person_presses_the_button_of_the_need(place: Place, client: Client, admin_user: Any) -> None:
    home = f"/towns/{place.town.slug}/"
    capped(place, run="1 USD", day="1.5 USD")
    bead = place.bead()
    place.tick()
    run, _ = place.running()
    book(run, place.now, dear(place, "2"))
    place.tick()
    client.force_login(admin_user)
    text = client.get(home).content.decode()
    for words in ("Go on: as much again", "Stop: cancel the bead", "Go on today: as much again"):
        assert words in text
    assert client.post(f"/beads/{bead.pk}/budget/").status_code == 302
    assert Fact.objects.get(kind="budget.set").payload["amount"] == "1 USD"
    assert client.post(f"{home}budget/")["Location"] == home
    assert Fact.objects.filter(kind="budget.set").latest("id").payload["scope"] == "day"
    assert client.post(f"{home}pause/").status_code == 404
