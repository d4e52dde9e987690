"""Rules for leaving: a convoy's refinery retires when its work is reviewed or the convoy has ended. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from refinery.core.actions import Decision, RetireAgent
from refinery.core.world import World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each convoy refinery that is in service."""
    for agent in world.refineries:
        subject = f"agent {agent.id}"
        if agent.busy:
            yield Decision(subject, "serving", "has a live run")
        elif agent.convoy_ended:
            yield Decision(subject, "retire", "its convoy has ended", (RetireAgent(agent.id),))
        elif agent.convoy_reviewed:
            yield Decision(subject, "retire", "every bead of its convoy was reviewed", (RetireAgent(agent.id),))
        else:
            yield Decision(subject, "serving", "its convoy has work to review")
