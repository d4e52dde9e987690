"""The only writer of Effect: what must be done outside the database, at least once, under a deterministic key.

An effect is enqueued in the tick's transaction together with its django-q2 task, so neither exists without the
other. Whoever runs it holds a PostgreSQL advisory lock on its id while doing so: a killed worker loses the lock
with its connection, and the next sweep hands the effect on. No clock decides who owns an effect.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import F
from django_q.tasks import async_task

from beads.inbox import storable
from beads.models import Effect, Town

TASK = "refinery.tasks.run_effect"
LOCK_CLASS = 0x6A57  # first key of the advisory lock pair; the second is the effect's id
MAX_TRIES = 12


def enqueue(town: Town, kind: str, key: str, payload: Mapping[str, Any], now: dt.datetime) -> bool:
    """Add an effect unless its key is known. Returns True when it is new."""
    made = Effect.objects.bulk_create(
        [Effect(town=town, kind=kind, key=key, payload=dict(payload), next_try_at=now)],
        ignore_conflicts=True,
    )
    del made
    effect = Effect.objects.get(key=key)
    if effect.attempts or effect.state != "pending":
        return False
    _hand_over(effect)
    return True


def _hand_over(effect: Effect) -> None:
    async_task(TASK, effect.pk, task_name=effect.key[:100], save=False)  # type: ignore[no-untyped-call]


def sweep(now: dt.datetime, grace: dt.timedelta = dt.timedelta(seconds=5), limit: int = 200) -> int:
    """Hand over again every pending effect that is due since longer than `grace`. Safe to repeat.

    A doubled task does no harm: only one holder of the advisory lock runs an effect at a time.
    """
    due = list(Effect.objects.filter(state="pending", next_try_at__lte=now - grace).order_by("next_try_at")[:limit])
    for effect in due:
        Effect.objects.filter(pk=effect.pk, state="pending").update(next_try_at=now)
        _hand_over(effect)
    return len(due)


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
        Effect.objects.filter(pk=effect_id, state="pending").update(attempts=F("attempts") + 1)
        yield Effect.objects.select_related("town").filter(pk=effect_id, state="pending").first()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(%s, %s)", [LOCK_CLASS, effect_id % 2**31])


def succeed(effect: Effect, now: dt.datetime) -> bool:
    """Mark an effect done; True the first time. Call it in the transaction that records its result as a fact."""
    return bool(Effect.objects.filter(pk=effect.pk, state="pending").update(state="done", finished_at=now, error=""))


def give_up(effect: Effect, now: dt.datetime, error: str) -> None:
    """Mark an effect failed for good. Call it in the transaction that records the failure as a fact."""
    Effect.objects.filter(pk=effect.pk, state="pending").update(
        state="failed", finished_at=now, error=storable(error[:2000])
    )


def retry_later(effect: Effect, now: dt.datetime, error: str) -> dt.datetime:
    """Push an effect forward by an exponential back-off (2 s, doubled, at most 5 min); returns when."""
    wait = dt.timedelta(seconds=min(2.0 * 2 ** max(effect.attempts - 1, 0), 300.0))
    Effect.objects.filter(pk=effect.pk, state="pending").update(next_try_at=now + wait, error=storable(error[:2000]))
    return now + wait


def again(effect: Effect, now: dt.datetime) -> None:
    """Run an ended effect once more: a person asks for it, or its answer was lost. It looks before it acts."""
    if (
        Effect.objects.filter(pk=effect.pk)
        .exclude(state="pending")
        .update(state="pending", attempts=0, next_try_at=now, finished_at=None, error="")
    ):
        _hand_over(effect)


def prune(town: Town, before: dt.datetime) -> int:
    """Forget the effects that were done before then; what waits or gave up stays. Returns how many went."""
    return Effect.objects.filter(town=town, state="done", finished_at__lt=before).delete()[0]


def repeat(key: str, now: dt.datetime) -> None:
    """`again` by key."""
    again(Effect.objects.get(key=key), now)
