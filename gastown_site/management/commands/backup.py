"""`backup FILE`: the whole installation in one file, from a town at work."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from beads.command import GastownCommand, noted
from gastown_site.backups import save


class Command(GastownCommand):
    help = "Database, mirrors' refs with their objects, keys and archive into one file; `restore FILE` reads it."

    def arguments(self, parser: ArgumentParser) -> None:
        """Where to."""
        parser.add_argument("file", metavar="FILE", type=Path)

    def run(self, **options: Any) -> Any:
        """Make it."""
        told = save.make(options["file"])
        notes = told.pop("notes")
        text = f"{told['file']}: {told['bytes'] / (1 << 20):.1f} MiB, {len(told['rigs'])} rigs, of {told['made_at']}"
        return noted(told, text, notes)
