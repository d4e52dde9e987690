"""The only writer of Usage and Allowance: what runs used of models, what it cost, and by how much people raised a cap.

What counts: the model door saw every call of a run, so where it has rows of a run, nothing else of that run counts;
else what the CLI's own output said; else what the agent reported. The others stay as a cross-check. Sums are of what
counts, made by the database; a cap is compared with them, at the door and by the plan alike.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from agents.lifecycle import Channel, CostSource
from agents.models import Allowance, Run, Usage
from beads import config as configs
from beads import inbox, prune
from beads.actors import Actor
from beads.budget import Amount, BudgetConfig, Cap, CapScope, Price, Spent, format_amount, parse_amount, price_of
from beads.models import Bead, Town

_COUNTS = ("calls", "uncounted", "input", "cached", "written", "output")


@dataclass(frozen=True)
class Reading:
    """What was used of one model: of one call at the door; of the whole run so far where a CLI or an agent says it.

    `asked`: the model's name as it was asked for. `told`: the cost in dollars, where the provider or the CLI says it.
    """

    model: str
    spent: Spent
    asked: str = ""
    told: Decimal | None = None


def counted(rows: QuerySet[Usage] | None = None) -> QuerySet[Usage]:
    """The rows that count: of each run those of the channel that saw most."""
    of_run = Usage.objects.filter(run=OuterRef("run"))
    door, stream = of_run.filter(channel=Channel.DOOR), of_run.filter(channel=Channel.STREAM)
    rows = Usage.objects.all() if rows is None else rows
    return rows.filter(
        Q(channel=Channel.DOOR)
        | Q(channel=Channel.STREAM) & ~Exists(door)
        | Q(channel=Channel.TOOL) & ~Exists(door) & ~Exists(stream)
    )


# -- writing --------------------------------------------------------------------------------------------------------


def book(run: Run, reading: Reading, prices: Mapping[str, Price], now: dt.datetime) -> None:
    """Add what one call at the door used. Also of a run that has ended meanwhile: the money is spent."""
    key, cost = _key(run, reading, prices, Channel.DOOR, now)
    added = {name: getattr(reading.spent, name) for name in _COUNTS}
    with transaction.atomic():
        row, new = Usage.objects.get_or_create(**key, defaults={**_owner(run), **added, "cost": cost})
        if not new:
            more: dict[str, Any] = {name: F(name) + count for name, count in added.items()}
            if cost is not None:
                more["cost"] = F("cost") + cost
            Usage.objects.filter(pk=row.pk).update(**more, updated_at=now)
    inbox.changed(run.town.slug)


def report(run: Run, reading: Reading, prices: Mapping[str, Price], channel: Channel, now: dt.datetime) -> bool:
    """Note what a CLI's output or an agent says that the run has used so far. Never lowers: a report that comes late or
    twice changes nothing, and tells nobody; False then. What was said on earlier days stays theirs."""
    key, cost = _key(run, reading, prices, channel, now)
    with transaction.atomic():
        Run.objects.select_for_update().only("pk").get(pk=run.pk)
        mine = Usage.objects.filter(run=run, model=key["model"], channel=channel)
        if cost is not None and not mine.filter(day=key["day"], source=key["source"]).exists():
            # what had no price until now is in the cost that is told at last
            mine.filter(day=key["day"], source=CostSource.UNKNOWN).update(source=key["source"], cost=0)
        before = mine.exclude(day=key["day"], source=key["source"])
        past = before.aggregate(**_counted_up(), cost=Sum("cost"))
        today: dict[str, Any] = {name: max(getattr(reading.spent, name) - past[name], 0) for name in _COUNTS}
        if cost is not None:
            today["cost"] = max(cost - (past["cost"] or 0), Decimal(0))
        row, new = Usage.objects.get_or_create(**key, defaults={**_owner(run), **today})
        # the run is locked, and nobody else writes what was said of it
        more = {name: value for name, value in today.items() if (known := getattr(row, name)) is None or known < value}
        if not new and not more:
            return False
        if not new:
            Usage.objects.filter(pk=row.pk).update(**more, updated_at=now)
    inbox.changed(run.town.slug)
    return True


def hear(run: Run, readings: Sequence[Reading], now: dt.datetime, *, adds_up: bool = False) -> None:
    """Note what a run's CLI says that it has used so far, and wake the town when a cap is near. `adds_up`: it says what
    its session has used, also in the runs before; only what is new is this run's."""
    if not readings:
        return
    config, _ = configs.usable(run.town.config, run.rig.config)
    grown = False  # a heartbeat says again what the one before has said
    for reading in readings:
        if adds_up:
            reading = _less_earlier(run, reading)
        grown |= report(run, reading, config.prices, Channel.STREAM, now)
    if grown and any(cap.near for cap in caps(run, config.budget, now)):
        inbox.wake(run.town)


def _less_earlier(run: Run, reading: Reading) -> Reading:
    """A reading without what earlier runs of the same session were booked with."""
    rows = Usage.objects.filter(run__account=run.account_id, run__session=run.resumed, channel=Channel.STREAM)
    earlier = rows.exclude(run=run).aggregate(**_counted_up(), told=Sum("cost"))
    left = {name: max(getattr(reading.spent, name) - earlier[name], 0) for name in _COUNTS}
    told = reading.told
    if told is not None:
        told = max(told - (earlier["told"] or 0), Decimal(0))
    return replace(reading, spent=Spent(**left), told=told)


def _key(
    run: Run, reading: Reading, prices: Mapping[str, Price], channel: Channel, now: dt.datetime
) -> tuple[dict[str, Any], Decimal | None]:
    """The row that a reading goes into, and its cost."""
    name = inbox.storable(reading.model or reading.asked or "unknown")[:200]
    cost, source = reading.told, CostSource.REPORTED
    if cost is None and (price := price_of(prices, reading.model, reading.asked)) is not None:
        cost, source = price.cost(reading.spent), CostSource.PRICED
    if cost is None:
        source = CostSource.UNKNOWN
    day = now.astimezone(dt.UTC).date()
    return {"run": run, "day": day, "model": name, "channel": channel, "source": source}, cost


def _owner(run: Run) -> dict[str, Any]:
    return {"town_id": run.town_id, "bead_id": run.account_id or run.bead_id}


@dataclass(frozen=True)
class Said:
    """A person's word on a cap: what it is on, and what it is from now on."""

    scope: CapScope
    subject: str
    amount: Amount
    reason: str = ""


def allow(town: Town, said: Said, *, by: Actor | str, now: dt.datetime) -> None:
    """Note a person's word on a cap."""
    told = {"amount": format_amount(said.amount), "by": str(by)[:150], "reason": said.reason, "created_at": now}
    Allowance.objects.create(town=town, scope=said.scope, subject=said.subject, **told)


def forget(beads: Sequence[str]) -> int:
    """Remove what the runs of these beads used, and people's words on their caps: they have been archived."""
    gone = prune.delete(Usage.objects.filter(run__in=Run.objects.filter(bead__any=list(beads))))
    return gone + prune.delete(Allowance.objects.filter(subject__in=list(beads)))


# -- sums -----------------------------------------------------------------------------------------------------------


def _counted_up() -> dict[str, Any]:
    return {name: Coalesce(Sum(name), 0) for name in _COUNTS}


def _sums() -> dict[str, Any]:
    every = F("input") + F("cached") + F("written") + F("output")
    unpriced = Coalesce(Sum(every, filter=Q(cost__isnull=True)), 0)
    return {f"sum_{k}": v for k, v in _counted_up().items()} | {"sum_cost": Sum("cost"), "sum_unpriced": unpriced}


def _spent(row: Mapping[str, Any]) -> Spent:
    counts = {name: int(row[f"sum_{name}"] or 0) for name in (*_COUNTS, "unpriced")}
    return Spent(**counts, cost=row["sum_cost"] or Decimal(0))


def total(rows: QuerySet[Usage]) -> Spent:
    """What these rows sum up to; of those that count."""
    return _spent(counted(rows).order_by().aggregate(**_sums()))


def by(rows: QuerySet[Usage], *columns: str) -> list[tuple[tuple[Any, ...], Spent]]:
    """What counts of these rows, summed for each value of the columns; the dearest first."""
    found = counted(rows).order_by().values(*columns).annotate(**_sums())
    made = [(tuple(row[name] for name in columns), _spent(row)) for row in found]
    return sorted(made, key=lambda pair: (-pair[1].cost, -pair[1].tokens, str(pair[0])))


def of_bead(bead: Bead | str) -> QuerySet[Usage]:
    """All that was spent on a bead's change; of a convoy's bead, on its landing."""
    return Usage.objects.filter(bead=bead)


def of_convoy(convoy: str) -> QuerySet[Usage]:
    """All that was spent on a convoy: its beads, and its landing."""
    return of_convoys([convoy])


def of_convoys(convoys: Sequence[str]) -> QuerySet[Usage]:
    """As `of_convoy`, of several."""
    return Usage.objects.filter(Q(bead__convoy__in=convoys) | Q(bead__in=convoys))


def of_day(town: Town | int, day: dt.date) -> QuerySet[Usage]:
    """All that a town spent in a day (UTC)."""
    return Usage.objects.filter(town=town, day=day)


def runs_of(bead: Bead | str) -> list[str]:
    """The runs that have spent a bead's money."""
    return list(of_bead(bead).order_by().values_list("run_id", flat=True).distinct())


def used_at(runs: Sequence[str]) -> dict[str, dt.datetime]:
    """When these runs have used anything the last time."""
    return dict(Usage.objects.filter(run__in=runs).order_by().values_list("run").annotate(at=Max("updated_at")))


# -- caps -----------------------------------------------------------------------------------------------------------


def caps(run: Run, budget: BudgetConfig, now: dt.datetime) -> list[Cap]:
    """The caps that hold for a run now, those that are nearest to their end first."""
    if not budget.any:
        return []
    bead = Bead.objects.only("convoy_id").get(pk=run.account_id or run.bead_id)
    convoy = bead.convoy_id or (bead.pk if bead.type == "convoy" else "")
    day = now.astimezone(dt.UTC).date()
    asked = [
        (CapScope.RUN, run.pk, bead.pk, budget.run, Usage.objects.filter(run=run)),
        (CapScope.BEAD, bead.pk, bead.pk, budget.bead, of_bead(bead.pk)),
        (CapScope.CONVOY, convoy, convoy, budget.convoy, of_convoy(convoy)),
        (CapScope.DAY, str(day), str(day), budget.day, of_day(run.town_id, day)),
    ]
    words = allowances(run.town_id, [(scope, key) for scope, _, key, limit, _ in asked if limit is not None and key])
    found = [
        Cap(scope, subject, raised(words, scope, key, limit), total(rows))
        for scope, subject, key, limit, rows in asked
        if limit is not None and key
    ]
    return sorted(found, key=lambda cap: -cap.limit.share(cap.spent))


@dataclass(frozen=True)
class Word:
    """A person's latest word on a cap."""

    amount: Amount
    at: dt.datetime


Limit = TypeVar("Limit", Amount, Amount | None)


def raised(words: Mapping[tuple[str, str], Word], scope: CapScope, subject: str, limit: Limit) -> Limit:
    """What a cap is by people's words on it; without one, the config's `limit`."""
    word = words.get((scope, subject))
    if word is None:
        return limit
    return word.amount


def allowances(town: int, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Word]:
    """What people set caps to, by (scope, subject); a run's caps by its bead."""
    pairs = set(wanted)
    rows = Allowance.objects.filter(town=town, subject__in={subject for _, subject in pairs}).order_by("pk")
    found: dict[tuple[str, str], Word] = {}
    for scope, subject, told, at in rows.values_list("scope", "subject", "amount", "created_at"):
        amount = parse_amount(told)
        if (scope, subject) in pairs and amount is not None:
            found[scope, subject] = Word(amount, at)
    return found
