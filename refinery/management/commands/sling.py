"""`sling RIG --title T`: one issue bead."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads import ledger
from beads.command import GastownCommand, Said, actor
from beads.finders import bead_of, rig_of
from refinery.decisions import towns, work


class Command(GastownCommand):
    help = "Sling one issue bead to a rig; prints its id."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        parser.add_argument("rig")
        parser.add_argument("--title", required=True)
        parser.add_argument("--body", default="")
        parser.add_argument("--priority", type=int, default=2)
        parser.add_argument("--model", default="", help="of whoever works on it, in place of the config's")
        parser.add_argument("--after", metavar="BEAD", action="append", default=[])

    def run(  # type: ignore[override]
        self, rig: str, title: str, body: str, priority: int, after: list[str], model: str, **_: Any
    ) -> Any:
        """Make the bead."""
        blockers = [bead_of(key) for key in after]
        home = rig_of(rig)
        draft = ledger.Draft(title, body=body, priority=priority, model=model)
        bead = work.sling(home, draft, by=actor(), after=blockers)
        warnings = towns.unmanned([home])
        return Said({"id": bead.pk, "status": bead.status, "warnings": warnings}, bead.pk, warnings=warnings)
