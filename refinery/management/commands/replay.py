"""`replay`: what a stretch of past facts would do to the town as it is, on a copy that is thrown away."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads.command import GastownCommand, Said, table
from beads.finders import town_of
from refinery.files import moment
from refinery.tick import reconciler


class Command(GastownCommand):
    help = "Take in a time range of facts again, one by one, with a tick after each, and roll everything back."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        parser.add_argument("--town", default="main")
        parser.add_argument("--since", required=True, metavar="TIME", help="ISO 8601, with a time zone")
        parser.add_argument("--until", metavar="TIME")

    def run(  # type: ignore[override]
        self, town: str, since: str, until: str | None, **_: Any
    ) -> Any:
        """Replay."""
        rows = reconciler.replay(town_of(town), moment("since", since), moment("until", until) if until else None)
        return Said(rows, table(rows, ["fact", "kind", "subject", "error", "actions"], "no facts in that time"))
