"""The one order of a lane's queue. Pure."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable

from refinery.core.entryviews import EntryView
from refinery.core.states import EntryKind


def rank(entry: EntryView) -> int:
    """Its priority, or that of the most urgent entry that waits for it."""
    return entry.priority if entry.ties.inherited_rank is None else min(entry.priority, entry.ties.inherited_rank)


def queue_key(entry: EntryView) -> tuple[int, dt.datetime, int, dt.datetime, str]:
    """The one order of the queue: priority, convoy age, retries, age."""
    return (
        rank(entry),
        entry.convoy_age or entry.created_at,
        entry.attempts,
        entry.created_at,
        entry.id,
    )


def in_queue_order(entries: Iterable[EntryView]) -> list[EntryView]:
    """The train's cars in their order, then the others by `queue_key`, nobody before what has to land before it."""
    rows = sorted(entries, key=lambda e: (not e.admitted, e.slot or 0.0, queue_key(e)))
    cars = sum(1 for e in rows if e.admitted)
    return rows if not any(e.ties.before for e in rows) else [*rows[:cars], *_first_things_first(rows[cars:])]


def by_lane(entries: Iterable[EntryView]) -> dict[tuple[int, str], list[EntryView]]:
    """(rig, target branch) → its entries, in the order in which they come."""
    lanes: dict[tuple[int, str], list[EntryView]] = defaultdict(list)
    for entry in entries:
        lanes[entry.rig, entry.target].append(entry)
    return lanes


def _first_things_first(rows: list[EntryView]) -> list[EntryView]:
    """A stable order in which each comes after all that has to land before it (which is transitive)."""
    left = {e.id: e for e in rows}
    placed: list[EntryView] = []
    for entry in rows:
        ahead = [left[key] for key in entry.ties.before if key in left and entry.id in left]
        for other in sorted([*ahead, entry], key=lambda e: (e is entry, len(e.ties.before), queue_key(e))):
            if left.pop(other.id, None) is not None:
                placed.append(other)
    return placed


def is_feature_lane(entry: EntryView) -> bool:
    """True for lanes that a convoy refinery serves: intermediate merges into a feature branch."""
    return entry.kind == EntryKind.CHANGE and entry.onto_convoy
