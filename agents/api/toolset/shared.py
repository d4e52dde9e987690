"""What the tools share: types of arguments, roles, and rows as tools show and find them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from agents.api.tools import Call
from agents.lifecycle import Role
from beads.errors import NotFound
from beads.models import Bead, Rig

Text = Annotated[str, Field(max_length=256 * 1024)]
Short = Annotated[str, Field(min_length=1, max_length=300)]
MAYOR = frozenset({Role.MAYOR})
REFINERY = frozenset({Role.REFINERY})


def bead_data(bead: Bead) -> dict[str, Any]:
    """A bead as tools show it."""
    return {
        "id": bead.pk,
        "type": bead.type,
        "status": bead.status,
        "resolution": bead.resolution,
        "reason": bead.reason,
        "title": bead.title,
        "body": bead.body,
        "priority": bead.priority,
        "model": bead.model,
        "rig": bead.rig.slug if bead.rig else None,
        "convoy": bead.convoy_id,
        "staged": bead.unreleased,
        "filed_by": bead.filed_by,
        "depth": bead.depth,
        "merge_sha": bead.merge_sha,
        "blocked_by": list(bead.blocked_by.values_list("on_id", flat=True)),
        "created_at": bead.created_at.isoformat(),
    }


def bead_of(call: Call, bead_id: str) -> Bead:
    """A bead of the caller's town. Raises NotFound."""
    found = Bead.objects.select_related("rig").filter(pk=bead_id, town=call.run.town).first()
    if found is None:
        raise NotFound(f"no bead {bead_id!r} in this town", details={"field": "bead"})
    return found


def rig_of(call: Call, slug: str | None) -> Rig:
    """A rig of the caller's town; its own without a name. Raises NotFound."""
    if slug is None:
        return call.run.rig
    found = Rig.objects.filter(slug=slug, town=call.run.town).first()
    if found is None:
        raise NotFound(f"no rig {slug!r} in this town", details={"field": "rig"})
    return found


def sender(call: Call) -> str:
    """What the caller is called: its agent's name."""
    return call.run.agent_name or call.run.pk
