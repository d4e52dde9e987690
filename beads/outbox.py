"""The only writer of Effect: what must be done outside the database, at least once, under a deterministic key.

An effect is enqueued in the tick's transaction; the executor process hears of it at the commit, and looks by itself
when the next one is due. Whoever runs it holds a PostgreSQL advisory lock on its id while doing so: a killed executor
loses the lock with its connection, and the next one goes on. No clock decides who owns an effect.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber

from beads import prune
from beads.channels import EFFECTS_CHANNEL
from beads.inbox import storable
from beads.lifecycle import EffectState
from beads.models import Effect, Town

EACH = 4  # so many of one rig are looked at: it may begin two
LOCK_CLASS = 0x6A57  # first key of the advisory lock pair; the second is the effect's id


def wake() -> None:
    """Tell the executor, at commit, that there is news. Nothing depends on it but speed."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, '')", [EFFECTS_CHANNEL])


def enqueue(
    town: Town, kind: str, key: str, payload: Mapping[str, Any], now: dt.datetime, rig: int | None = None
) -> bool:
    """Add an effect unless its key is known. Returns True when it is new. `rig`: whose remote it asks, if any's."""
    Effect.objects.bulk_create(
        [Effect(town=town, kind=kind, key=key, payload=dict(payload), next_try_at=now, rig_id=rig)],
        ignore_conflicts=True,
    )
    effect = Effect.objects.get(key=key)
    if effect.attempts or effect.state != EffectState.PENDING:
        return False
    wake()
    return True


def due(now: dt.datetime, running: Collection[int], waiting: Collection[int], limit: int) -> list[Effect]:
    """Pending effects whose time has come, the first few of each rig (or town, where no rig has it), those that wait
    longest first. Without those that are `running` and those of the rigs that are `waiting`."""
    found = Effect.objects.pending().filter(next_try_at__lte=now)
    if waiting:
        found = found.exclude(rig__in=waiting)
    if running:
        found = found.exclude(pk__in=running)
    order = [F("next_try_at").asc(), F("id").asc()]
    place = Window(RowNumber(), partition_by=[F("town"), F("rig")], order_by=order)
    fair = found.annotate(place=place).filter(place__lte=EACH).select_related("rig").defer("payload")
    return list(fair.order_by("next_try_at", "id")[:limit])


def next_due(now: dt.datetime) -> dt.datetime | None:
    """When the next pending effect is due that is not due now; None when there is none."""
    later = Effect.objects.pending().filter(next_try_at__gt=now)
    return later.order_by("next_try_at").values_list("next_try_at", flat=True).first()


@contextmanager
def holding(effect_id: int) -> Iterator[Effect | None]:
    """Own one pending effect for the length of the block; yields None when it is done or somebody has it.

    Must be called outside a transaction: the lock belongs to the session, and the attempt is counted at once.
    """
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_lock(%s, %s)", [LOCK_CLASS, effect_id % 2**31])
        row = cursor.fetchone()
    if not (row and row[0]):
        yield None
        return
    try:
        Effect.objects.pending().filter(pk=effect_id).update(attempts=F("attempts") + 1)
        yield Effect.objects.select_related("town").pending().filter(pk=effect_id).first()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(%s, %s)", [LOCK_CLASS, effect_id % 2**31])


def succeed(effect: Effect, now: dt.datetime) -> bool:
    """Mark an effect done; True the first time. Call it in the transaction that records its result as a fact."""
    return bool(Effect.objects.pending().filter(pk=effect.pk).update(state=EffectState.DONE, finished_at=now, error=""))


def give_up(effect: Effect, now: dt.datetime, error: str) -> None:
    """Mark an effect failed for good. Call it in the transaction that records the failure as a fact."""
    Effect.objects.pending().filter(pk=effect.pk).update(
        state=EffectState.FAILED, finished_at=now, error=storable(error[:2000])
    )


def retry_later(effect: Effect, now: dt.datetime, error: str) -> dt.datetime:
    """Push an effect forward by an exponential back-off (2 s, doubled, at most 5 min); returns when."""
    wait = dt.timedelta(seconds=min(2.0 * 2 ** max(effect.attempts - 1, 0), 300.0))
    since = effect.failing_since or now
    Effect.objects.pending().filter(pk=effect.pk).update(
        next_try_at=now + wait, error=storable(error[:2000]), failing_since=since
    )
    return now + wait


def wait_for_remote(effect: Effect, error: str) -> None:
    """An outage of the remote stands in its way (see `beads.outages`): it goes on when that is over, and this was no
    attempt."""
    Effect.objects.pending().filter(pk=effect.pk).update(
        attempts=max(effect.attempts - 1, 0), error=storable(error[:2000]), failing_since=None
    )


def again(effect: Effect, now: dt.datetime) -> None:
    """Run an ended effect once more: a person asks for it, or its answer was lost. It looks before it acts."""
    fresh = {"state": "pending", "attempts": 0, "next_try_at": now, "finished_at": None, "error": ""}
    if Effect.objects.filter(pk=effect.pk).exclude(state=EffectState.PENDING).update(**fresh, failing_since=None):
        wake()


def past(town: Town, before: dt.datetime, state: str = "done") -> QuerySet[Effect]:
    """The effects that ended so before then; what waits is never among them."""
    return Effect.objects.filter(town=town, state=state, finished_at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these effects: they have been archived."""
    return prune.some(Effect.objects.exclude(state=EffectState.PENDING), keys)


def repeat(key: str, now: dt.datetime) -> None:
    """`again` by key."""
    again(Effect.objects.get(key=key), now)
