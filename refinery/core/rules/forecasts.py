"""Rules for what lies ahead: when git is asked who in a lane's queue stands on whom, and who conflicts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from refinery.core.actions import Action, Decision, Foresee
from refinery.core.order import by_lane
from refinery.core.relations import ForecastView
from refinery.core.stacks import due
from refinery.core.world import World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each lane in which two entries can be compared."""
    for lane, entries in by_lane(world.entries).items():
        if len(entries) < 2 or world.rigs[lane[0]].problems or (told := due(world, lane, entries)) is None:
            continue
        rule, why, heads = told
        known = world.lane(*lane).forecast or ForecastView()
        actions: tuple[Action, ...] = ()
        if heads:
            actions = (Foresee(*lane, known.number, heads, known.tip),)
        yield Decision(f"forecast {world.rigs[lane[0]].slug} {lane[1]}", rule, why, actions)
