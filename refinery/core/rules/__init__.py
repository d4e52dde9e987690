"""`plan(world)`: the one place where it is decided what happens next. Pure: no Django, no clock, no I/O.

Each subject (run, bead, entry, lane, convoy, agent) gets exactly one decision: its first matching rule. A decision
without actions says what the subject waits for; `explain` and the pages show the same sentence.
"""

from __future__ import annotations

from refinery.core.actions import Action, Decision
from refinery.core.rules import (
    agents,
    beads,
    budgets,
    checks,
    convoys,
    entries,
    forecasts,
    lanes,
    mayor,
    pulls,
    runs,
    troubles,
)
from refinery.core.world import World

__all__ = ["Action", "Decision", "plan"]


def plan(world: World) -> list[Decision]:
    """What every subject of the town needs now, in the order in which it is to be applied."""
    reviews = list(entries.decide(world))
    return [
        *runs.decide(world),
        *beads.decide(world, {d.subject: d.why for d in reviews}),
        *mayor.decide(world),
        *reviews,
        *checks.decide(world),
        *lanes.decide(world),
        *forecasts.decide(world),
        *convoys.decide(world),
        *agents.decide(world),
        *troubles.decide(world),
        *budgets.decide(world),
        *pulls.decide(world),
    ]
