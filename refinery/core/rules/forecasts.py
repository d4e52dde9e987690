"""Rules for what lies ahead: when git is asked who in a lane's queue stands on whom, and who conflicts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from refinery.core.actions import Action, Decision, Foresee
from refinery.core.order import by_lane
from refinery.core.stacks import due
from refinery.core.world import World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each lane in which two entries can be compared."""
    for lane, entries in by_lane(world.entries).items():
        told = due(world, lane, entries) if len(entries) > 1 and not world.rigs[lane[0]].problems else None
        if told is None:
            continue
        rule, why, heads = told
        view = world.lanes.get(lane)
        known = view.forecast if view is not None else None
        actions: tuple[Action, ...] = ()
        if heads:
            actions = (Foresee(*lane, known.number if known else 0, heads, known.tip if known else ""),)
        yield Decision(f"forecast {world.rigs[lane[0]].slug} {lane[1]}", rule, why, actions)
