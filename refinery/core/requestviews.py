"""What the rules see of a request: what a person asks of the town's mayor. Pure; part of `refinery.core.world`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from agents.lifecycle import RunOutcome
from refinery.core.beadviews import BeadView


@dataclass(frozen=True, slots=True)
class Product:
    """What one run of the mayor has made: what it staged (or started), and whether it asked or answered in words."""

    convoys: tuple[str, ...] = ()
    beads: tuple[str, ...] = ()
    asked: bool = False
    replied: bool = False


@dataclass(frozen=True, slots=True)
class RequestView(BeadView):
    """A live request: a `message` bead with its runs. `question`: what the mayor asks, and nobody has answered.

    It is work for an agent, and no work that lands: it is in no queue, no convoy and no count of beads.
    """

    question: str = ""
    products: Mapping[str, Product] = field(default_factory=dict)  # by run

    @property
    def attempts_used(self) -> int:
        """Attempts that failed since a run last did its part: after an answer it begins anew."""
        since = takewhile(lambda run: run.outcome != RunOutcome.DONE, reversed(self.runs))
        return sum(1 for run in since if run.outcome == RunOutcome.FAILED)
