"""`usage`"""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from agents.models import Run
from beads import budget
from beads.command import GastownCommand, Said
from beads.command import table as aligned
from beads.errors import Invalid
from beads.finders import bead_of, rig_of, the_one, town_of
from beads.models import Convoy
from beads.values import parse_age
from refinery.pages import spending


class Command(GastownCommand):
    help = "What models were used, and what that cost: by model, with where the cost is from."

    def arguments(self, parser: ArgumentParser) -> None:
        """Of what, since when, in which form."""
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--bead", metavar="ID", help="its whole life: attempts, reviews, reworks, conflicts")
        whose.add_argument("--convoy", metavar="ID", help="its beads and its landing")
        whose.add_argument("--run", dest="run_id", metavar="ID")
        whose.add_argument("--rig", metavar="RIG")
        whose.add_argument("--person", metavar="NAME", help="what somebody has asked for")
        parser.add_argument("--town", metavar="TOWN")
        parser.add_argument("--since", metavar="D", help='a day such as 2026-11-01, or an age such as "7d"')
        parser.add_argument("--csv", action="store_true", help="every row, as CSV")

    def run(self, **options: Any) -> Any:
        """Sums, or rows."""
        scope = _scope(**options).since(_day(options["since"]))
        if options["csv"]:
            for line in spending.table(scope):
                self.stdout.write(line, ending="")
            return Said(None, "")
        found = spending.report(scope)
        return Said(spending.data(found), _text(found))


def _scope(
    bead: str | None, convoy: str | None, run_id: str | None, rig: str | None, person: str | None, town: str | None,
    **_: Any,
) -> spending.Scope:  # fmt: skip
    if bead:
        return spending.of_bead(bead_of(bead))
    if convoy:
        return spending.of_convoy(the_one(Convoy.objects.filter(pk=convoy), "convoy", convoy, "convoy"))
    if run_id:
        return spending.of_run(the_one(Run.objects.filter(pk=run_id), "run", run_id, "run"))
    if rig:
        return spending.of_rig(rig_of(rig))
    return spending.of_person(town_of(town), person) if person else spending.of_town(town_of(town))


def _day(told: str | None) -> dt.date | None:
    """The first day that counts."""
    if told is None:
        return None
    try:
        return dt.date.fromisoformat(told)
    except ValueError:
        pass
    try:
        age = parse_age(told)
    except ValueError:
        raise Invalid('since: expected a day such as 2026-11-01, or an age such as "7d"', field="since") from None
    assert isinstance(age, dt.timedelta)
    return (timezone.now() - age).astimezone(dt.UTC).date()


def _text(found: dict[str, Any]) -> str:
    if not found["models"]:
        return f"{found['of']}: no model was used"
    rows = [
        {**row, **spending.told(row["spent"]), "cost": spending.cost_words(row["source"], row["spent"])}
        for row in found["models"]
    ]
    columns = ["model", "calls", "input", "cached", "written", "output", "cost", "source", "channel"]
    lines = [f"{found['of']}: {spending.words(found['total'])}", "", aligned(rows, columns), ""]
    lines += [f"{purpose}: {spending.words(spent)}" for purpose, spent in found["purposes"]]
    lines.append(f"failed work: {spending.words(found['failed'])}")
    if found["per_landed"] is not None:
        lines.append(f"landed beads: {found['landed']}, each {budget.money(found['per_landed'])} with all that failed")
    unpriced = sorted({row["model"] for row in found["models"] if row["source"] == "unknown"})
    lines += [f'note: {name} has no price: set [prices] "{name}" in the config' for name in unpriced]
    return "\n".join(lines)
