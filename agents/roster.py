"""The only writer of Agent: names, reuse, retirement.

A polecat is an idle one of the rig, or a new one with the next free name. A refinery is the rig's own, or the
convoy's own in that rig; the database allows one of each.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db import IntegrityError, transaction

from agents.lifecycle import Role
from agents.models import Agent, Run
from beads import prune
from beads.models import Convoy, Rig, Town

MAYOR = "mayor"  # the name that mail to the town's mayor has
NAMES = (
    *("Toast", "Maple", "Birch", "Ember", "Flint", "Hazel", "Juniper", "Kestrel", "Lark", "Moss"),
    *("Nettle", "Otter", "Pike", "Quill", "Rowan", "Sage", "Thistle", "Umber", "Vesper", "Wren"),
)


def polecat_for(rig: Rig, prefer: int | None = None, author: str = "") -> Agent:
    """An idle polecat of the rig, or a new one. First choice: `prefer` by id, then the change's author by name."""
    busy = Run.objects.live().filter(town=rig.town, agent__isnull=False).values("agent_id")
    idle = Agent.objects.filter(rig=rig, role=Role.POLECAT, retired_at=None).exclude(pk__in=busy)
    chosen = idle.filter(pk=prefer).first() if prefer else idle.filter(name=author).first()
    chosen = chosen or idle.order_by("pk").first()
    if chosen:
        return chosen
    count = Agent.objects.filter(rig=rig, role=Role.POLECAT).count()
    name = NAMES[count] if count < len(NAMES) else f"Polecat-{count + 1}"
    return _create(rig.town, rig, f"{rig.slug}-{name}".lower(), Role.POLECAT)


def refinery_for(rig: Rig, convoy: Convoy | None) -> Agent:
    """The rig's refinery, or `convoy`'s own in that rig; made when missing, taken back when it had retired."""
    found = Agent.objects.filter(rig=rig, role=Role.REFINERY, convoy=convoy).order_by("retired_at", "pk").last()
    if found:
        if found.retired_at is not None:
            Agent.objects.filter(pk=found.pk).update(retired_at=None)
        return found
    name = f"{rig.slug}-refinery" if convoy is None else f"{rig.slug}-refinery-{convoy.pk.removeprefix('gt-')}"
    return _create(rig.town, rig, name, Role.REFINERY, convoy)


def mayor_for(town: Town) -> Agent:
    """The town's mayor; made when missing."""
    found = Agent.objects.filter(town=town, role=Role.MAYOR, retired_at=None).first()
    return found or _create(town, None, MAYOR, Role.MAYOR)


def _create(town: Town, rig: Rig | None, name: str, role: Role, convoy: Convoy | None = None) -> Agent:
    for suffix in ("", "-2", "-3", "-4", "-5"):
        try:
            with transaction.atomic():
                return Agent.objects.create(town=town, rig=rig, name=name + suffix, role=role, convoy=convoy)
        except IntegrityError:
            if suffix == "-5":
                raise
    raise AssertionError("unreachable")


def retire(agent: Agent, now: dt.datetime) -> bool:
    """Take an agent out of service unless it has a live run; True when it was retired."""
    if Run.objects.live().filter(agent=agent).exists():
        return False
    return bool(Agent.objects.filter(pk=agent.pk, retired_at=None).update(retired_at=now))


def forget(convoys: Sequence[str]) -> int:
    """Remove the refineries of these convoys, which have been archived with their runs."""
    return prune.delete(Agent.objects.filter(convoy__any=convoys))
