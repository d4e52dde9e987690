"""The only writer of Fact. A fact says what happened; the tick decides what follows.

`record` appends and wakes the town's reconciler when the caller's transaction commits. `drain` hands each
pending fact, oldest first, to a function inside a savepoint of its own: a fact that raises is tried three times
in all and then quarantined with its error, and the facts behind it go on. A fact that is understood but no longer
applies (a wish doubled, or overtaken by events) is done, with the refusal noted.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import QuerySet

from beads import prune
from beads.actors import Actor
from beads.channels import CHANGED_CHANNEL, WAKE_CHANNEL
from beads.errors import Conflict, LostRace
from beads.models import Fact, Town
from beads.prepared import Prepared

log = structlog.get_logger(__name__)

MAX_TRIES = 3
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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


def storable(value: Any) -> Any:
    """`value` with what PostgreSQL cannot store (NUL bytes, lone surrogates) replaced by U+FFFD.

    For words from outside that are told on, such as a remote's refusal: they are never lost, and never stop a fact.
    """
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def record(
    town: Town,
    kind: str,
    subject: str = "",
    payload: Mapping[str, Any] | None = None,
    *,
    actor: Actor | str = "",
    dedupe_key: str | None = None,
) -> bool:
    """Append a fact. Returns False, changing nothing, when `dedupe_key` was recorded before.

    What cannot be stored as it is, is stored as `storable` has it.
    """
    fact = Fact(
        town=town,
        kind=kind,
        subject=storable(subject),
        payload=storable(payload or {}),
        actor=storable(str(actor))[:100],
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


def waiting(town: Town | int) -> QuerySet[Fact]:
    """The facts that wait to be drained."""
    return Fact.objects.filter(town=town, processed_at=None, quarantined_at=None)


_NEXT = Prepared(lambda town, after: waiting(town).filter(pk__gt=after).order_by("id")[:20])
_ANY = Prepared(lambda town: waiting(town).values_list("pk", flat=True)[:1])


def drain(town: Town, now: dt.datetime, apply: Callable[[Fact], None], limit: int = 500) -> int:
    """Apply up to `limit` pending facts of `town`; returns how many were processed.

    Must run inside the tick's transaction, under the town's lock.
    """
    done: list[int] = []
    for fact in _pending(town, limit):
        try:
            with transaction.atomic():
                apply(fact)
        except (Conflict, LostRace) as error:
            Fact.objects.filter(pk=fact.pk).update(error=storable(f"refused: {error}"[:2000]))
            log.info("fact.refused", fact=fact.pk, kind=fact.kind, error=error.message)
            done.append(fact.pk)
        except Exception as error:
            _note_failure(fact, now, error)
        else:
            done.append(fact.pk)
    if done:
        Fact.objects.filter(pk__in=done).update(processed_at=now)
    return len(done)


def _pending(town: Town, limit: int) -> Iterator[Fact]:
    """The first facts that wait, a few at a time: payloads may be large."""
    last, left = 0, limit
    while left > 0 and (some := _NEXT(town.pk, last)):
        yield from some[:left]
        last, left = some[-1].pk, left - len(some)


def _note_failure(fact: Fact, now: dt.datetime, error: Exception) -> None:
    """Count a failed try; the third one quarantines."""
    fact.attempts += 1
    fact.error = storable(f"{type(error).__name__}: {error}"[:2000])
    if fact.attempts >= MAX_TRIES:
        fact.quarantined_at = now
    fact.save(update_fields=["attempts", "error", "quarantined_at"])
    log.warning("fact.failed", fact=fact.pk, kind=fact.kind, tries=fact.attempts, error=fact.error)


def release(fact: Fact) -> None:
    """Take a fact out of quarantine so that the next tick tries it again."""
    Fact.objects.filter(pk=fact.pk).update(quarantined_at=None, attempts=0, error="")
    wake(fact.town)


def past(town: Town, before: dt.datetime) -> QuerySet[Fact]:
    """The facts that were drained before then; what waits, or is in quarantine, is not among them."""
    return Fact.objects.filter(town=town, processed_at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these facts: they have been archived."""
    return prune.some(Fact.objects.all(), keys)


def again(fact: Fact) -> None:
    """Take a drained fact in once more (a replay does, and rolls back)."""
    Fact.objects.filter(pk=fact.pk).update(processed_at=None, quarantined_at=None, attempts=0, error="")


def replay(fact: Fact, actor: Actor, reason: str) -> Fact:
    """Record a fact's content again, under the replayer's name; returns the new fact.

    Facts are observations that may come twice, so a replay does what the first one should have done, or nothing.
    """
    payload = {**fact.payload, "replay_of": fact.pk, "replay_reason": reason}
    again = Fact.objects.create(
        town=fact.town, kind=fact.kind, subject=fact.subject, payload=payload, actor=str(actor)[:100]
    )
    wake(fact.town)
    return again


def pending_count(town: Town) -> int:
    """How many facts wait to be drained."""
    return waiting(town).count()


def record_once(town: Town, kind: str, subject: str, payload: Mapping[str, Any], *, actor: Actor | str) -> bool:
    """As `record`, unless the very same waits to be taken in: a double click. Under the town's lock."""
    if waiting(town).filter(kind=kind, subject=subject, payload=storable(payload)).exists():
        return False
    return record(town, kind, subject, payload, actor=actor)


def has_pending(town: Town) -> bool:
    """True when a fact waits to be drained."""
    return bool(_ANY(town.pk))


def kind_of(dedupe_key: str) -> str | None:
    """The kind of the fact that was recorded under a key, or None."""
    return Fact.objects.filter(dedupe_key=dedupe_key).values_list("kind", flat=True).first()


def payload_of(dedupe_key: str) -> dict[str, Any] | None:
    """The payload of the fact that was recorded under a key, or None."""
    return Fact.objects.filter(dedupe_key=dedupe_key).values_list("payload", flat=True).first()
