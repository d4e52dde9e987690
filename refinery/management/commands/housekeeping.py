"""`housekeeping`: remove now what has been finished for long enough."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from beads.command import GastownCommand, Said
from refinery.executor import housekeeping


class Command(GastownCommand):
    help = "Remove finished facts, effects, logs, refs and branches after their retention; unlanded work stays."

    def run(self, **_: Any) -> Any:
        """Collect."""
        gone = housekeeping.collect(timezone.now())
        text = ", ".join(f"{count} {name}" for name, count in gone.items() if count) or "nothing to remove"
        return Said(dict(gone), text)
