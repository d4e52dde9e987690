"""What work on models cost: sums for pages, commands, metrics and CSV, each in a number of queries that does not grow.

A bead's sum is over its whole life: all attempts, reviews, reworks and conflicts. What failed work cost is what went
into runs that brought no result, and into beads that were given up or withdrawn.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet

from agents import usage
from agents.lifecycle import RunOutcome
from agents.models import Run, Usage
from beads import budget
from beads import config as configs
from beads.budget import Spent
from beads.lifecycle import LANDED, BeadStatus, BeadType, Purpose, Resolution
from beads.models import Bead, Convoy, Rig, Town

LOST = (Resolution.CANCELLED, Resolution.SUPERSEDED, Resolution.GAVE_UP)
NO_RESULT = (RunOutcome.FAILED, RunOutcome.LOST, RunOutcome.START_FAILED, RunOutcome.STOPPED)
COLUMNS = (
    "day", "rig", "convoy", "bead", "title", "asked_by", "run", "purpose", "attempt", "outcome", "model", "source",
    "channel", "calls", "uncounted", "input", "cached", "written", "output", "cost_usd",
)  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """Of what the sum is: its rows, and the beads that may have landed in it."""

    rows: QuerySet[Usage]
    beads: QuerySet[Bead]
    name: str

    def since(self, day: dt.date | None) -> Scope:
        """The same, from that day (UTC) on."""
        if day is None:
            return self
        begun = dt.datetime.combine(day, dt.time(), dt.UTC)
        return Scope(self.rows.filter(day__gte=day), self.beads.filter(closed_at__gte=begun), self.name)


def of_town(town: Town) -> Scope:
    """All of a town."""
    return Scope(Usage.objects.filter(town=town), Bead.objects.filter(town=town), f"town {town.slug}")


def of_rig(rig: Rig) -> Scope:
    """All of a rig."""
    return Scope(Usage.objects.filter(run__rig=rig), Bead.objects.filter(rig=rig), f"rig {rig.slug}")


def of_convoy(convoy: Convoy) -> Scope:
    """A convoy: its beads, and its landing."""
    return Scope(usage.of_convoy(convoy.pk), Bead.objects.filter(convoy=convoy), f"convoy {convoy.pk}")


def of_bead(bead: Bead) -> Scope:
    """A bead's whole life."""
    return Scope(usage.of_bead(bead.pk), Bead.objects.filter(pk=bead.pk), f"bead {bead.pk}")


def of_run(run: Run) -> Scope:
    """One run."""
    return Scope(Usage.objects.filter(run=run), Bead.objects.none(), f"run {run.pk}")


def of_person(town: Town, person: str) -> Scope:
    """What a person has asked for, by whatever way."""
    asked = Q(created_by=person) | Q(created_by__endswith=f":{person}")
    rows = Usage.objects.filter(town=town, bead__in=Bead.objects.filter(asked, town=town))
    return Scope(rows, Bead.objects.filter(asked, town=town), f"{person} in town {town.slug}")


def asked(town: Town, words: Mapping[str, Any]) -> Scope:
    """What a query string of a town's page names: a `convoy`, a `bead`, or nothing: all of the town."""
    if key := words.get("convoy"):
        return Scope(
            usage.of_convoy(key).filter(town=town), Bead.objects.filter(convoy=key, town=town), f"convoy {key}"
        )
    if key := words.get("bead"):
        return Scope(usage.of_bead(key).filter(town=town), Bead.objects.filter(pk=key, town=town), f"bead {key}")
    return of_town(town)


def told(spent: Spent) -> dict[str, Any]:
    """A sum as `--json` says it."""
    return {
        "calls": spent.calls,
        "uncounted_calls": spent.uncounted,
        "input": spent.input,
        "cached": spent.cached,
        "written": spent.written,
        "output": spent.output,
        "tokens": spent.tokens,
        "cost_usd": str(spent.cost),
        "unpriced_tokens": spent.unpriced,
    }


def words(spent: Spent) -> str:
    """A sum for people: money and tokens, and what is not known of it."""
    if not spent.calls and not spent.tokens:
        return "nothing"
    parts = [budget.money(spent.cost), budget.tokens(spent.tokens)]
    if spent.unpriced == spent.tokens and spent.tokens:
        parts[0] = "cost unknown"
    elif spent.unpriced:
        parts.append(f"{budget.tokens(spent.unpriced)} of them without a price")
    if spent.uncounted:
        parts.append(f"{spent.uncounted} of {spent.calls} calls not counted to their end")
    return ", ".join(parts)


def report(scope: Scope) -> dict[str, Any]:
    """The sum of a scope: in all, by model with the source of its cost, by what runs were for; what failed work cost;
    and how many beads have landed, with the cost of each, all that failed included."""
    models = usage.by(scope.rows, "model", "source", "channel")
    whole = sum((spent for _, spent in models), Spent())
    failed = usage.total(scope.rows.filter(_failed()))
    landed = scope.beads.filter(
        type=BeadType.ISSUE, purpose=Purpose.WORK, status=BeadStatus.CLOSED, resolution__in=LANDED
    ).count()
    per_landed = None
    if landed:
        per_landed = whole.cost / landed
    return {
        "of": scope.name,
        "total": whole,
        "models": [dict(zip(("model", "source", "channel"), key, strict=True), spent=s) for key, s in models],
        "purposes": [(purpose, spent) for (purpose,), spent in usage.by(scope.rows, "run__purpose")],
        "failed": failed,
        "landed": landed,
        "per_landed": per_landed,
    }


def _failed() -> Q:
    gone = Q(bead__status=BeadStatus.FAILED) | Q(bead__resolution__in=LOST)
    return gone | Q(run__outcome__in=NO_RESULT)


def data(found: dict[str, Any]) -> dict[str, Any]:
    """A report as `--json` says it."""
    return {
        "of": found["of"],
        "total": told(found["total"]),
        "models": [{**{k: v for k, v in row.items() if k != "spent"}, **told(row["spent"])} for row in found["models"]],
        "purposes": {purpose: told(spent) for purpose, spent in found["purposes"]},
        "failed_work": told(found["failed"]),
        "landed_beads": found["landed"],
        "cost_per_landed_bead_usd": _usd(found["per_landed"]),
    }


def _usd(value: Decimal | None) -> str | None:
    if value is None:
        return None
    return str(round(value, 9))


def shown(scope: Scope) -> dict[str, Any]:
    """A report as pages show it; empty where no model was used."""
    first = scope.rows.order_by("pk").values_list("town__config", "run__rig__config").first()
    if first is None:
        return {}
    found = report(scope)
    failed = per_landed = ""
    if found["failed"].calls or found["failed"].tokens:
        failed = words(found["failed"])
    if found["per_landed"] is not None:
        per_landed = budget.money(found["per_landed"])
    rows = [{**row, "cost": cost_words(row["source"], row["spent"]), **told(row["spent"])} for row in found["models"]]
    return {
        "total": words(found["total"]),
        "scripted": configs.usable(*first)[0].providers.scripted,
        "models": rows,
        "purposes": [(purpose, words(spent)) for purpose, spent in found["purposes"]],
        "failed": failed,
        "landed": found["landed"],
        "per_landed": per_landed,
    }


def cost_words(source: str, spent: Spent) -> str:
    """What a model's use cost, or that nobody knows."""
    if source == "unknown":
        return "unknown: no price"
    return budget.money(spent.cost)


# -- CSV ------------------------------------------------------------------------------------------------------------


def table(scope: Scope) -> Iterator[str]:
    """What counts, row by row, as CSV. Text that a spreadsheet would take for a formula is quoted."""
    names = (
        *("day", "run__rig__slug", "bead__convoy_id", "bead_id", "bead__title", "bead__created_by", "run_id"),
        *("run__purpose", "run__attempt", "run__outcome", "model", "source", "channel", "calls", "uncounted"),
        *("input", "cached", "written", "output", "cost"),
    )
    rows = usage.counted(scope.rows).order_by("day", "pk").values_list(*names)
    yield _line(COLUMNS)
    for row in rows.iterator(chunk_size=2000):
        yield _line(row)


def _line(cells: Sequence[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    """What a spreadsheet does not take for a formula; empty where there is nothing."""
    if cell is None:
        return ""
    if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r")):
        return f"'{cell}"
    return cell


def by_rig() -> list[tuple[tuple[Any, ...], Spent]]:
    """Sums of all towns for `/metrics`: (town, rig, model, source)."""
    return usage.by(Usage.objects.all(), "town__slug", "run__rig__slug", "model", "source")


def landed_by_rig() -> list[tuple[str, str, int]]:
    """(town, rig, beads that have landed), for `/metrics`."""
    rows = Bead.objects.filter(type=BeadType.ISSUE, purpose=Purpose.WORK, resolution__in=LANDED, rig__isnull=False)
    return list(rows.order_by().values_list("town__slug", "rig__slug").annotate(n=Count("pk")))
