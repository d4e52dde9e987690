"""What people decide about budgets: as much again, or another cap. To stop is a verb of the bead or convoy itself."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from django.utils import timezone

from agents import usage
from beads import config as configs
from beads import inbox
from beads.actors import Actor
from beads.budget import Amount, CapScope, Spent, format_amount, parse_amount
from beads.errors import Conflict, Invalid
from beads.lifecycle import BeadType, Purpose, is_final
from beads.models import Bead, Convoy, Town
from refinery.decisions.verbs import Heard, Hint, Offer, Outcome, Page, Shell, verb

To = Annotated[str, Hint('the cap from now on, such as "10 USD" or "2M tokens"; left out: as much again', "AMOUNT")]


def _said(outcome: Outcome) -> dict[str, str]:
    return {"budget": outcome.answer}


def _new(to: str, limit: Amount, step: Amount, spent: Spent) -> Amount:
    """The cap from now on. Raises Invalid for one that would stop it at once."""
    if not to:
        if step.unit != limit.unit:  # so much again is as much as is allowed now
            return Amount(limit.value + limit.value, limit.unit)
        return Amount(max(limit.value, limit.of(spent).value) + step.value, limit.unit)
    try:
        amount = parse_amount(to)
    except ValueError as error:
        raise Invalid(f"to: {error}", field="to") from None
    if amount is None:
        raise Invalid("to: it is empty", field="to")
    if amount.share(spent) >= 1:
        raise Invalid(f"to: {amount.of(spent)} is spent already", field="to")
    return amount


def _set(town: Town, scope: CapScope, subject: str, amount: Amount, by: Actor, reason: str) -> str:
    told = {"scope": scope, "subject": subject, "amount": format_amount(amount), "reason": reason}
    inbox.record(town, "budget.set", subject, told, actor=by)
    return f"{scope} {subject}: {amount}"


def _raise(town: Town, scope: CapScope, subject: str, step: Amount | None, spent: Spent, to: str) -> Amount:
    """What a cap is to become. Raises Conflict where there is none."""
    if step is None:
        raise Conflict(f"no budget is set for {scope}: [budget] {scope} in the config")
    words = usage.allowances(town.pk, [(scope, subject)])
    return _new(to, usage.raised(words, scope, subject, step), step, spent)


def _open(bead: Bead) -> bool:
    return bead.type == BeadType.ISSUE and bead.purpose == Purpose.WORK and not is_final(bead.status)


@verb(
    Bead,
    "budget",
    offer=Offer("Budget: as much again", "What its budget has stopped goes on, and may cost as much again.", _open),
    shell=Shell("let it cost more: go on with as much again, or --to another cap", "{budget}", _said),
    page=Page("It may cost more: it goes on."),
)
def bead_budget(bead: Bead, *, by: Actor, to: To = "", reason: Heard = "") -> str:
    """Let a bead cost more: its own cap, or, where that is not what holds it, the cap of each of its runs."""
    if bead.type != BeadType.ISSUE or bead.purpose != Purpose.WORK or bead.rig is None:
        raise Conflict(f"{bead.pk} is no planned work: name the bead that it is for")
    budget = configs.usable(bead.town.config, bead.rig.config)[0].budget
    whole = usage.total(usage.of_bead(bead))
    words = usage.allowances(bead.town_id, [(CapScope.BEAD, bead.pk), (CapScope.RUN, bead.pk)])
    limit = usage.raised(words, CapScope.BEAD, bead.pk, budget.bead)
    if budget.run is not None and (limit is None or limit.share(whole) < 1):
        each = usage.raised(words, CapScope.RUN, bead.pk, budget.run)
        over = any(each.share(spent) >= 1 for _, spent in usage.by(usage.of_bead(bead), "run_id"))
        if over or limit is None:
            if to:  # each run begins at nothing, so what is spent is no reason against it
                each = _new(to, each, budget.run, Spent())
            return _set(bead.town, CapScope.RUN, bead.pk, each, by, reason)
    amount = _raise(bead.town, CapScope.BEAD, bead.pk, budget.bead, whole, to)
    return _set(bead.town, CapScope.BEAD, bead.pk, amount, by, reason)


@verb(
    Convoy,
    "budget",
    offer=Offer(
        "Budget: as much again",
        "What its budget has stopped goes on, and may cost as much again.",
        lambda convoy: not is_final(convoy.bead.status),
    ),
    shell=Shell("let it cost more: go on with as much again, or --to another cap", "{budget}", _said),
    page=Page("It may cost more: it goes on."),
)
def convoy_budget(convoy: Convoy, *, by: Actor, to: To = "", reason: Heard = "") -> str:
    """Let a convoy cost more."""
    town = convoy.bead.town
    step = configs.usable(town.config, convoy.rig.config)[0].budget.convoy
    amount = _raise(town, CapScope.CONVOY, convoy.pk, step, usage.total(usage.of_convoy(convoy.pk)), to)
    return _set(town, CapScope.CONVOY, convoy.pk, amount, by, reason)


@verb(
    Town,
    "budget",
    offer=Offer("Budget of today: as much again", "What the day's budget has stopped goes on.", lambda town: True),
    shell=Shell("let this day (UTC) cost more: as much again, or --to another cap", "{budget}", _said),
    page=Page("Today may cost more: it goes on."),
)
def town_budget(town: Town, *, by: Actor, to: To = "", reason: Heard = "") -> str:
    """Let a town's day (UTC) cost more; tomorrow has the config's cap again."""
    day: dt.date = timezone.now().astimezone(dt.UTC).date()
    steps = [
        configs.usable(town.config, rig)[0].budget.day for rig in ({}, *town.rigs.values_list("config", flat=True))
    ]
    step = next((one for one in steps if one is not None), None)
    amount = _raise(town, CapScope.DAY, str(day), step, usage.total(usage.of_day(town, day)), to)
    return _set(town, CapScope.DAY, str(day), amount, by, reason)
