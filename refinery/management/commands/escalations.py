"""`escalations list`, and the verbs of escalations"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads import lists
from beads.command import GastownCommand, Said, table
from beads.models import Escalation
from refinery.core.telling import short
from refinery.management.verbs import add_verbs


class Command(GastownCommand):
    help = "What needs a person."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        listing = self.sub(verbs, "list", self.list, "open escalations, newest first")
        listing.add_argument("--all", action="store_true", help="closed ones too")
        lists.limit_argument(listing)
        add_verbs(self, verbs, "escalations")

    def list(self, all: bool, limit: int, **_: Any) -> Any:
        """Escalations."""
        found = Escalation.objects.select_related("bead", "town").order_by("-bead__created_at")
        if not all:
            found = found.filter(closed_at=None)
        shown = lists.first(found, limit)
        rows = [
            {
                "id": e.pk,
                "severity": e.severity,
                "title": e.bead.title,
                "why": short(e.bead.body.strip().partition("\n")[0], 320),
                "body": e.bead.body,
                "about": e.about_id,
                "town": e.town.slug,
                "acknowledged_by": e.acknowledged_by,
                "open": e.closed_at is None,
            }
            for e in shown.rows
        ]
        columns = ["id", "severity", "title", "about", "acknowledged_by", "why"]
        return Said(rows, table(rows, columns, "nothing needs you"), shown.note)
