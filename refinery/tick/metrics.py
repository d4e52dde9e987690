"""The only writer of TickRecord and TickTotal: what each tick did, for the console, and its sums, for `/metrics`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Count, QuerySet

from beads import prune
from beads.models import Effect, Town
from refinery.models import TickRecord, TickTotal

SUMS = ("facts", "lost_races", "failed", "violations", "effects_done", "effects_failed", "milliseconds")


def note(town: Town, now: dt.datetime, measured: Mapping[str, Any], actions: Mapping[str, int]) -> TickRecord:
    """Keep what a tick measured. Must run inside the tick's transaction: the town's lock makes the sums exact.

    `measured`: facts, pending, lost_races, failed, violations, milliseconds.
    """
    total, _ = TickTotal.objects.get_or_create(town=town)
    ended = Effect.objects.filter(town=town, finished_at__gt=total.at, finished_at__lte=now)
    effects = dict(ended.order_by().values_list("state").annotate(n=Count("pk")))
    record = TickRecord.objects.create(
        town=town,
        at=now,
        actions=dict(actions),
        effects_done=effects.get("done", 0),
        effects_failed=effects.get("failed", 0),
        **measured,
    )
    sums = dict(total.sums)
    sums["ticks"] = sums.get("ticks", 0) + 1
    for name in SUMS:
        sums[name] = sums.get(name, 0) + getattr(record, name)
    by_name = dict(sums.get("actions", {}))
    for name, count in actions.items():
        by_name[name] = by_name.get(name, 0) + count
    sums["actions"] = by_name
    TickTotal.objects.filter(pk=total.pk).update(sums=sums, at=now)
    return record


def past(town: Town, before: dt.datetime) -> QuerySet[TickRecord]:
    """The records of ticks before then; their sums stay."""
    return TickRecord.objects.filter(town=town, at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these records: they have been archived."""
    return prune.some(TickRecord.objects.all(), keys)
