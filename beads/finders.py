"""Rows by the names that people give them. Each raises NotFound, naming the field."""

from __future__ import annotations

from beads.errors import NotFound
from beads.models import Bead, Rig, Town


def town_of(slug: str | None) -> Town:
    """A town by slug; without one the only town, or `main`."""
    if slug is None:
        towns = list(Town.objects.order_by("pk")[:2])
        if len(towns) == 1:
            return towns[0]
        slug = "main"
    found = Town.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound(f"no town {slug}", details={"field": "town"})
    return found


def rig_of(slug: str) -> Rig:
    """A rig by slug."""
    found = Rig.objects.select_related("town").filter(slug=slug).first()
    if found is None:
        raise NotFound(f"no rig {slug}", details={"field": "rig"})
    return found


def bead_of(key: str, kind: str | None = None) -> Bead:
    """A bead by id."""
    found = Bead.objects.select_related("town", "rig").filter(pk=key).first()
    if found is None or (kind is not None and found.type != kind):
        raise NotFound(f"no {kind or 'bead'} {key}", details={"field": "id"})
    return found
