"""Rules for what is wrong outside, for many at once: a remote that does not work, a full disk. Pure.

One need for each cause, that names who waits, since when, why, and the one thing to do; it closes with its cause.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from beads.values import moment
from refinery.core.actions import Decision, Escalate
from refinery.core.outageviews import OutageView
from refinery.core.rules.needs import raised, settled
from refinery.core.world import World

PATIENCE = 3  # so many looks in a row, or so long, before people are told of what may go by itself
LONG = dt.timedelta(seconds=30)
OUTAGE, ROOM = "outage:", "no-room"


def decide(world: World) -> Iterator[Decision]:
    """One decision for each outage and for the disk, and for each that is over."""
    lasting: dict[str, list[str]] = {}
    outages: dict[str, OutageView] = {}
    for rig in world.rigs.values():
        if rig.outage is not None:
            outages[rig.outage.key] = rig.outage
            lasting.setdefault(rig.outage.key, []).append(rig.slug)
    for key, outage in outages.items():
        yield _outage(world, outage, sorted(lasting[key]))
    for key in sorted(world.needs):
        if key.startswith(OUTAGE) and key.removeprefix(OUTAGE) not in outages:
            why = "the remote works again"
            yield Decision(key, "outage-over", why, settled(world, key, why))
    yield from _room(world)


def _outage(world: World, outage: OutageView, rigs: list[str]) -> Decision:
    key = OUTAGE + outage.key
    who = f"rig {rigs[0]}"
    if rigs[1:]:
        who = f"rigs {', '.join(rigs)}"
    why = f"{who}: {outage.words(world.now)}"
    long = outage.failures > 1 and world.now - outage.since >= LONG
    if key in world.needs or not (outage.lasting or outage.failures >= PATIENCE or long):
        return Decision(key, "outage", why)
    text = f"Since {moment(outage.since, world.now)}, for {who}: {outage.error.rstrip(' .')}."
    if outage.remedy:
        text += f"\n\nWhat to do: {outage.remedy}."
    goes_on = "It is looked at again by itself, every minute at most; what waits for it then goes on."
    title = f"{who[0].upper()}{who[1:]}: the remote does not work: {outage.error}"[:300]
    told = Escalate(key, title, f"{text}\n\n{goes_on}", "high")
    return Decision(key, "outage", why, (told,))


def _room(world: World) -> Iterator[Decision]:
    if world.no_room:
        text = f"T{world.no_room[1:]}.\n\nWhat to do: make room there, or set shorter [retention]."
        need = Escalate(ROOM, "A disk is full: work waits", text, "high")
        yield Decision(ROOM, "no-room", world.no_room, raised(world, need))
        return
    why = "there is room again"
    if over := settled(world, ROOM, why):
        yield Decision(ROOM, "room", why, over)
