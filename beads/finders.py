"""Rows by the names that people give them. Each raises NotFound, naming the field."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from beads.errors import NotFound
from beads.models import Bead, Rig, Town

M = TypeVar("M", bound=Model)


def the_one(rows: QuerySet[M], words: str, key: str, field: str = "id") -> M:
    """The first of these rows, which are called `words`, and were asked for by `key`, as `field`."""
    found = rows.first()
    if found is None:
        raise NotFound(f"no {words} {key}", details={"field": field})
    return found


def town_of(slug: str | None) -> Town:
    """A town by slug; without one the only town, or `main`."""
    if slug is None:
        towns = list(Town.objects.order_by("pk")[:2])
        if len(towns) == 1:
            return towns[0]
        slug = "main"
    return the_one(Town.objects.filter(slug=slug), "town", slug, "town")


def rig_of(slug: str) -> Rig:
    """A rig by slug."""
    return the_one(Rig.objects.select_related("town").filter(slug=slug), "rig", slug, "rig")


def bead_of(key: str, kind: str | None = None) -> Bead:
    """A bead by id."""
    rows = Bead.objects.select_related("town", "rig").filter(pk=key)
    return the_one(rows if kind is None else rows.filter(type=kind), kind or "bead", key)
