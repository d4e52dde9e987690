"""The only writer of Fact. A fact says what happened; the tick decides what follows.

`record` appends and wakes the town's reconciler when the caller's transaction commits. `drain` hands each
pending fact, oldest first, to a function inside a savepoint of its own: a fact that raises is tried three times
in all and then quarantined with its error, and the facts behind it go on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.db import connection, transaction

from beads.models import Fact, Town

log = structlog.get_logger(__name__)

WAKE_CHANNEL = "gastown_wake"
CHANGED_CHANNEL = "gastown_changed"
MAX_TRIES = 3


def wake(town: Town) -> None:
    """Tell the reconciler and the open pages, at commit, that `town` has news. Nothing depends on it but speed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "select pg_notify(%s, %s), pg_notify(%s, %s)", [WAKE_CHANNEL, town.slug, CHANGED_CHANNEL, town.slug]
        )


def changed(topic: str) -> None:
    """Tell the open pages, at commit, that something they show has changed. `topic`: a town's slug, or see dispatch."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, %s)", [CHANGED_CHANNEL, topic])


def record(
    town: Town,
    kind: str,
    subject: str = "",
    payload: Mapping[str, Any] | None = None,
    *,
    actor: str = "",
    dedupe_key: str | None = None,
) -> bool:
    """Append a fact. Returns False, changing nothing, when `dedupe_key` was recorded before."""
    fact = Fact(
        town=town,
        kind=kind,
        subject=subject,
        payload=dict(payload or {}),
        actor=actor[:100],
        dedupe_key=dedupe_key,
    )
    if dedupe_key is None:
        fact.save(force_insert=True)
    else:
        Fact.objects.bulk_create([fact], ignore_conflicts=True)
        if not Fact.objects.filter(dedupe_key=dedupe_key, recorded_at=fact.recorded_at).exists():
            return False
    wake(town)
    return True


def drain(town: Town, now: dt.datetime, apply: Callable[[Fact], None], limit: int = 500) -> int:
    """Apply up to `limit` pending facts of `town`; returns how many were processed.

    Must run inside the tick's transaction, under the town's lock.
    """
    pending = Fact.objects.filter(town=town, processed_at=None, quarantined_at=None).order_by("id")
    done: list[int] = []
    for fact in pending[:limit]:
        try:
            with transaction.atomic():
                apply(fact)
        except Exception as error:
            _note_failure(fact, now, error)
        else:
            done.append(fact.pk)
    if done:
        Fact.objects.filter(pk__in=done).update(processed_at=now)
    return len(done)


def _note_failure(fact: Fact, now: dt.datetime, error: Exception) -> None:
    """Count a failed try; the third one quarantines."""
    fact.attempts += 1
    fact.error = f"{type(error).__name__}: {error}"[:2000]
    if fact.attempts >= MAX_TRIES:
        fact.quarantined_at = now
    fact.save(update_fields=["attempts", "error", "quarantined_at"])
    log.warning("fact.failed", fact=fact.pk, kind=fact.kind, tries=fact.attempts, error=fact.error)


def release(fact: Fact) -> None:
    """Take a fact out of quarantine so that the next tick tries it again."""
    Fact.objects.filter(pk=fact.pk).update(quarantined_at=None, attempts=0, error="")
    wake(fact.town)


def pending_count(town: Town) -> int:
    """How many facts wait to be drained."""
    return Fact.objects.filter(town=town, processed_at=None, quarantined_at=None).count()


def kind_of(dedupe_key: str) -> str | None:
    """The kind of the fact that was recorded under a key, or None."""
    return Fact.objects.filter(dedupe_key=dedupe_key).values_list("kind", flat=True).first()
