"""Amounts, prices and caps: what they may be, and what follows from a cap that is reached. No database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from beads import config as configs
from beads.budget import Amount, Cap, CapScope, Price, Spent, Unit, format_amount, money, parse_amount, price_of
from beads.errors import Forbidden, Invalid
from beads.owner import Allow, check, refused
from refinery.core.beadviews import BeadView, RunView
from refinery.core.budgets import Budgets, RunCap
from refinery.core.rules import plan
from refinery.core.rules.runs import BUDGET_GRACE
from refinery.core.world import World
from tests.unit.test_rules import NOW, RIG

FIVE = Amount(Decimal(5), Unit.USD)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5 USD", "5", Unit.USD),
        ("0.50USD", "0.50", Unit.USD),
        ("2M tokens", "2000000", Unit.TOKENS),
        ("1.5k tokens", "1500", Unit.TOKENS),
        ("1 token", "1", Unit.TOKENS),
    ],
)
def test_an_amount(text: str, value: str, unit: Unit) -> None:
    found = parse_amount(text)
    assert found == Amount(Decimal(value), unit)
    assert parse_amount(format_amount(found)) == found


@pytest.mark.parametrize(
    "text", ["5", "USD", "-5 USD", "0 USD", "0.5 tokens", "5 EUR", "1e3 USD", "nan USD", 5, ["5 USD"], "5 M USD"]
)
def test_what_is_no_amount(text: object) -> None:
    with pytest.raises(ValueError):
        parse_amount(text)
    with pytest.raises(Invalid, match=r"budget\.run"):
        configs.validate({"budget": {"run": text}})


def test_no_budget_is_none() -> None:
    for told in ({}, {"budget": {"run": ""}}):
        assert not configs.effective(configs.validate(told), {}).budget.any
    town = configs.validate({"budget": {"run": "5 USD", "bead": "9 USD"}})
    both = configs.effective(town, configs.validate({"budget": {"run": ""}})).budget
    assert (both.run, both.bead) == (None, Amount(Decimal(9), Unit.USD))


@pytest.mark.parametrize(
    "told",
    [{"input": -1, "output": 1}, {"input": 1}, {"input": 1, "output": 1, "inputs": 1}, {"input": "1", "output": 1}],
)
def test_an_absurd_price_is_refused_by_name(told: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"prices\.m"):
        configs.validate({"prices": {"m": told}})


def test_prices_are_exact_and_of_the_name_or_its_dated_one() -> None:
    prices = {"m": Price(input=3, cached=0.3, output=15), "m-2": Price(input=1, output=1)}
    spent = Spent(1, 2600, 2000, 0, 160)
    assert prices["m"].cost(spent) == Decimal("0.0108")
    assert prices["m-2"].cost(Spent(1, 1, 1, 1, 1)) == Decimal("0.000004")  # what is not said apart is input
    assert price_of(prices, "m-20260101") is prices["m"] and price_of(prices, "m-2026-01-01") is prices["m"]
    assert price_of(prices, "m-2") is prices["m-2"] and price_of(prices, "other", "m") is prices["m"]
    assert price_of(prices, "m-3", "") is None
    assert [money(Decimal(v)) for v in ("0", "5", "0.0108", "0.1")] == [
        "0.00 USD",
        "5.00 USD",
        "0.0108 USD",
        "0.10 USD",
    ]


def test_tokens_without_a_price_are_said_where_a_cap_is_in_money() -> None:
    cap = Cap(CapScope.BEAD, "gt-b", FIVE, Spent(2, 1000, 0, 0, 0, Decimal("4.5"), 1000))
    assert cap.near and not cap.reached
    assert str(cap) == "bead gt-b has used 4.50 USD of 5.00 USD (1k tokens have no price and are not in it)"


# -- rules ----------------------------------------------------------------------------------------------------------

RUN = RunView(
    "run-1", "gt-b", "polecat", "running", 1, NOW, rig=1, account="gt-b", lease_until=NOW + dt.timedelta(minutes=1)
)
BEAD = BeadView("gt-b", "in_progress", NOW, 1, runs=(RUN,))
MUCH, SOME = Spent(1, cost=Decimal(6)), Spent(1, cost=Decimal("4.2"))


def cap(spent: Spent, scope: CapScope = CapScope.RUN, subject: str = "run-1") -> Cap:
    return Cap(scope, subject, FIVE, spent, (("work", spent),))


def decided(budgets: Budgets, bead: BeadView = BEAD, **more: Any) -> dict[str, Any]:
    live = tuple(run for run in bead.runs if run.live)
    world = World(now=NOW, town="main", rigs={1: RIG}, beads=(bead,), runs=live, budgets=budgets, **more)
    return {d.subject.partition(":")[0]: d for d in plan(world)}


def test_a_run_over_its_cap_is_stopped_after_a_grace_and_a_person_is_asked_once() -> None:
    over = Budgets(runs={"run-1": RunCap(cap(MUCH), "gt-b")})
    found = decided(replace(over, used_at={"run-1": NOW}))
    assert found["run run-1"].rule == "budget-grace"
    found = decided(replace(over, used_at={"run-1": NOW - BUDGET_GRACE}))
    assert [type(a).__name__ for a in found["run run-1"].actions] == ["StopRun"]
    (asked,) = found["budget run"].actions
    assert asked.key == "budget:run:run-1:5" and asked.severity == "high" and "work: 6.00 USD" in asked.body
    assert decided(over, escalated=frozenset({asked.key}))["budget run"].actions == ()


def test_at_80_percent_people_are_warned_and_it_goes_on() -> None:
    found = decided(Budgets(runs={"run-1": RunCap(cap(SOME), "gt-b")}))
    assert found["run run-1"].rule == "working"
    (told,) = found["budget run"].actions
    assert (told.severity, told.key) == ("low", "budget:near:run:run-1:5")
    assert "budget run" not in decided(Budgets(runs={"run-1": RunCap(cap(Spent(cost=Decimal("3.9"))), "gt-b")}))


def test_a_run_that_gave_up_at_its_cap_uses_no_attempt_and_one_that_finished_is_done() -> None:
    over = Budgets(accounts={"gt-b": (cap(MUCH, CapScope.BEAD, "gt-b"),)})
    gone = replace(RUN, exited_at=NOW, exit_code=1)
    (end,) = decided(over, replace(BEAD, runs=(gone,)))["run run-1"].actions
    assert end.outcome == "stopped" and "budget" in end.reason
    (end,) = decided(over, replace(BEAD, runs=(replace(gone, result="done"),)))["run run-1"].actions
    assert end.outcome == "done"


@pytest.mark.parametrize(
    ("budgets", "rule"),
    [
        (Budgets(), "dispatch"),
        (Budgets(accounts={"gt-b": (cap(SOME, CapScope.DAY, "2026-11-21"),)}), "dispatch"),
        (Budgets(accounts={"gt-b": (cap(MUCH, CapScope.DAY, "2026-11-21"),)}), "wait"),
        (Budgets(accounts={"gt-b": (cap(MUCH, CapScope.CONVOY, "gt-c"),)}), "wait"),
        (Budgets(runs={"run-1": RunCap(cap(MUCH), "gt-b", stopped=True)}), "wait"),
        (Budgets(runs={"run-1": RunCap(cap(MUCH), "gt-b", stopped=True, released=True)}), "dispatch"),
        (Budgets(runs={"run-1": RunCap(cap(MUCH), "gt-b")}), "dispatch"),
        (Budgets(runs={"run-1": RunCap(cap(MUCH), "gt-other", stopped=True)}), "dispatch"),
    ],
)
def test_nothing_is_begun_under_a_cap_that_is_used_up(budgets: Budgets, rule: str) -> None:
    bead = replace(BEAD, status="open", runs=())
    assert decided(budgets, bead)["bead gt-b"].rule == rule


# -- addresses ------------------------------------------------------------------------------------------------------


def with_base(url: str) -> configs.Config:
    return configs.effective(configs.validate({"providers": {"openai": {"base_url": url}}}), {})


@pytest.mark.parametrize(
    ("url", "named", "fine"),
    [
        ("https://api.example.org/v1", (), True),
        ("http://api.example.org/v1", (), False),
        ("https://10.1.2.3/v1", (), False),
        ("https://localhost:8000/v1", (), False),
        ("https://169.254.169.254", (), False),
        ("https://10.1.2.3/v1", ("10.1.0.0/16",), True),
        ("http://127.0.0.1:8000/v1", ("127.0.0.1:8000",), True),
        ("http://127.0.0.1:8001/v1", ("127.0.0.1:8000",), False),
        ("http://127.0.0.1:8000/v1", ("open",), False),
    ],
)
def test_a_key_goes_to_public_places_by_https_or_where_the_owner_says(
    url: str, named: tuple[str, ...], fine: bool
) -> None:
    old, new = with_base(""), with_base(url)
    assert bool(refused(old, new, Allow(networks=named))) is not fine
    if fine and not named:
        check(old, new, by_owner=False)
    elif not fine and not named:
        with pytest.raises(Forbidden):
            check(old, new, by_owner=False)
        with pytest.raises(Invalid, match="base_url"):
            check(old, new, by_owner=True)


@pytest.mark.parametrize("url", ["ftp://x", "https://u:p@x", "https://x?a=b", "x", "https://x/#f", "https://"])
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(Invalid, match=r"providers\.openai\.base_url"):
        with_base(url)
