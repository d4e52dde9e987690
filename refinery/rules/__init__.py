"""`plan(world)`: the one place where it is decided what happens next. Pure: no Django, no clock, no I/O.

Each subject (run, bead, entry, lane, convoy, agent) gets exactly one decision: its first matching rule. A decision
without actions says what the subject waits for; `explain` and the pages show the same sentence.
"""

from __future__ import annotations

from refinery.rules import beads, checks, convoys, forecasts, gc, lanes, reviews, runs, troubles
from refinery.rules.actions import Action, Decision
from refinery.world import World

__all__ = ["Action", "Decision", "plan"]


def plan(world: World) -> list[Decision]:
    """What every subject of the town needs now, in the order in which it is to be applied."""
    return [
        *runs.decide(world),
        *beads.decide(world),
        *reviews.decide(world),
        *checks.decide(world),
        *lanes.decide(world),
        *forecasts.decide(world),
        *convoys.decide(world),
        *gc.decide(world),
        *troubles.decide(world),
    ]
