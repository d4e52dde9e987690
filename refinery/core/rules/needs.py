"""When people are told of something that rules have found, and when that is over. Pure."""

from __future__ import annotations

from refinery.core.actions import Escalate, Settle
from refinery.core.world import World


def raised(world: World, need: Escalate) -> tuple[Escalate, ...]:
    """The need, where none with its key is open. One that has ended, by whomever, is raised again when it is back."""
    if need.key in world.needs:
        return ()
    return (need,)


def told_once(world: World, need: Escalate) -> tuple[Escalate, ...]:
    """The need, where people were never told of it: who has closed it is not told again while its bead lives."""
    if need.key in world.escalated:
        return ()
    return (need,)


def settled(world: World, key: str, why: str) -> tuple[Settle, ...]:
    """The end of the open need with this key; nothing where none is open."""
    if key in world.needs:
        return (Settle(key, why),)
    return ()
