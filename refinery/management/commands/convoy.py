"""`convoy create|status|list`, and the verbs of convoys"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads import lists, plans
from beads.command import GastownCommand, Said, actor, table
from beads.finders import rig_of, town_of
from beads.models import Convoy
from refinery.decisions import towns, work
from refinery.decisions.subjects import convoy_of
from refinery.files import read_text
from refinery.management.verbs import add_verbs
from refinery.pages import boards


class Command(GastownCommand):
    help = "Convoys: batches of beads."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        create = self.sub(verbs, "create", self.create, "make a convoy from a plan; prints its id")
        create.add_argument("rig")
        create.add_argument("--title", required=True)
        create.add_argument("--file", metavar="PLAN.toml", required=True)
        create.add_argument("--merge-mode", choices=["review-then-land", "review-and-merge"])
        create.add_argument("--staged", action="store_true", default=None)
        listing = self.sub(verbs, "list", self.list, "convoys, newest first")
        listing.add_argument("--town")
        listing.add_argument("--all", action="store_true", help="ended ones too")
        lists.limit_argument(listing)
        self.sub(verbs, "status", self.status, "a convoy's progress").add_argument("id")
        add_verbs(self, verbs, "convoy")

    def create(self, rig: str, title: str, file: str, merge_mode: str | None, staged: bool | None, **_: Any) -> Any:
        """Make a convoy."""
        home = rig_of(rig)
        plan = plans.parse_text(read_text(file, "file"), file, home, rig_of)
        convoy, is_staged = work.create_convoy(home, by=actor(), title=title, plan=plan, mode=merge_mode, staged=staged)
        beads = {b.plan_key: b.pk for b in convoy.beads.all()}
        warnings = towns.unmanned(dict.fromkeys(item["rig"] for item in plan))
        data = {"id": convoy.pk, "staged": is_staged, "beads": beads, "warnings": warnings}
        return Said(data, convoy.pk, warnings=warnings)

    def status(self, id: str, **_: Any) -> Any:
        """Progress."""
        convoy = convoy_of(id)
        data = boards.convoy_data(boards.Board(convoy.bead.town), convoy)
        head = f"{data['id']} {data['title']}: {data['phase']} ({data['closed']}/{data['total']}), {data['reason']}"
        landed = ""
        if data["landed_sha"]:
            landed = f"\nlanded as {data['landed_sha']}"
        rows = table(data["beads"], ["wave", "id", "status", "title", "reason"])
        return Said(data, f"{head}{landed}\n{rows}")

    def list(self, town: str | None, all: bool, limit: int, **_: Any) -> Any:
        """Convoys."""
        owner = town_of(town)
        board = boards.Board(owner)
        found = Convoy.objects.select_related("bead", "rig").filter(bead__town=owner).order_by("-bead__created_at")
        shown = lists.first(found if all else found.filter(pk__in=list(board.world.convoy)), limit)
        rows = []
        for convoy in shown.rows:
            phase, why = board.convoy(convoy)
            rows.append(
                {"id": convoy.pk, "phase": phase, "rig": convoy.rig.slug, "title": convoy.bead.title, "reason": why}
            )
        return Said(rows, table(rows, ["id", "phase", "rig", "title", "reason"], "no convoys"), shown.note)
