"""The only writer of Lane: how many cars a lane's train may have, and whether it is frozen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db.models import Exists, F, OuterRef, QuerySet

from beads import prune
from beads.models import Rig, Town
from refinery.models import Lane, ReviewEntry


def set_window(rig_id: int, target: str, size: int) -> None:
    """How many cars a lane's train may have from now on."""
    Lane.objects.update_or_create(rig_id=rig_id, target=target, defaults={"window": size})


def freeze(rig: Rig, target: str, reason: str, who: str, now: dt.datetime, until: dt.datetime | None = None) -> None:
    """Nothing is admitted to a lane and nothing lands in it, until it is thawed or `until` has come."""
    told = {"frozen_at": now, "frozen_until": until, "frozen_reason": reason[:300], "frozen_by": who[:150]}
    Lane.objects.update_or_create(rig=rig, target=target, defaults=told)


def thaw(rig: Rig, target: str) -> None:
    """Undo `freeze`."""
    told = {"frozen_at": None, "frozen_until": None, "frozen_reason": "", "frozen_by": ""}
    Lane.objects.filter(rig=rig, target=target).update(**told)


def past(town: Town) -> QuerySet[Lane]:
    """Lanes of which no entry is left (onto ended convoys, past releases), but for frozen ones and default branches."""
    left = ReviewEntry.objects.filter(rig=OuterRef("rig"), target=OuterRef("target"))
    lanes = Lane.objects.filter(~Exists(left), rig__town=town, frozen_at=None)
    return lanes.exclude(target=F("rig__default_branch")).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these lanes: they have been archived."""
    return prune.some(Lane.objects.all(), keys)


def rename(rig: Rig, old: str, new: str) -> None:
    """The lane of branch `old` is that of `new` from now on, unless that has one already."""
    if not Lane.objects.filter(rig=rig, target=new).exists():
        Lane.objects.filter(rig=rig, target=old).update(target=new)
