"""Who lands before whom, and what will happen to whom: what is derived of how entries stand to one another. Pure.

- An entry whose source bead comes after others (`blocks`) waits until these are closed, in whatever rig: blocked.
- An entry whose head contains another active entry's head stands on it, and lands after it.
- Whoever is waited for inherits the priority of the most urgent entry that waits for it.

A dependency that people wrote down goes before one that git shows: where the two contradict each other, the stack is
not kept, for what contains the other's change may as well land first. So there is no circle to be stuck in.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from refinery.phases import phase, rank, standing
from refinery.relations import Below
from refinery.world import Blocker, EntryView, RigView

Graph = dict[str, set[str]]


def arrange(
    entries: Iterable[EntryView],
    blockers: Mapping[str, Sequence[Blocker]],
    rigs: Mapping[int, RigView],
    now: dt.datetime,
    stacks: Iterable[tuple[int, str, str]] = (),
) -> list[EntryView]:
    """The same entries, each with who lands before it and the priority of those who wait for it.

    `blockers`: what each live bead waits for. `stacks`: (rig, upper head, lower head), as git has shown.
    """
    found = {e.id: e for e in entries}
    graph: Graph = defaultdict(set)  # entry or bead → what comes before it
    for entry in found.values():
        graph[entry.id] |= {b.id for b in entry.after}
        if whole := entry.source or entry.convoy:
            graph[whole].add(entry.id)
    for bead, waits in blockers.items():
        if bead not in found:
            graph[bead] |= {b.id for b in waits}
    lowers = _stack(found, graph, stacks)
    if not lowers and not any(e.after for e in found.values()):
        return list(found.values())
    before = {e.id: tuple(sorted(k for k in reach(graph, e.id) if k in found and k != e.id)) for e in found.values()}
    lift: dict[str, int] = {}
    for entry in found.values():
        for key in before[entry.id]:
            lift[key] = min(rank(entry), lift.get(key, rank(entry)))
    arranged: dict[str, EntryView] = {}
    for entry in sorted(found.values(), key=lambda e: (len(before[e.id]), e.id)):
        under = [arranged[key] for key in lowers.get(entry.id, ()) if key in arranged]
        stands_on = tuple(Below(low.id, _state(entry, low, rigs, now)) for low in under)
        arranged[entry.id] = replace(entry, before=before[entry.id], lift=lift.get(entry.id), stands_on=stands_on)
    return [arranged[key] for key in found]


def _stack(
    found: Mapping[str, EntryView], graph: Graph, stacks: Iterable[tuple[int, str, str]]
) -> dict[str, list[str]]:
    """Entry → those of its lane that it stands on; adds to the graph what closes no circle."""
    by_head: dict[tuple[int, str], list[EntryView]] = defaultdict(list)
    for entry in found.values():
        by_head[entry.rig, entry.head].append(entry)
    lowers: dict[str, list[str]] = defaultdict(list)
    for rig, high, low in sorted(set(stacks)):
        for upper in by_head.get((rig, high), ()):
            for lower in by_head.get((rig, low), ()):
                if upper.target == lower.target and upper.id not in reach(graph, lower.id):
                    graph[upper.id].add(lower.id)
                    lowers[upper.id].append(lower.id)
    return lowers


def reach(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    """All that comes before `start`, however far."""
    seen: set[str] = set()
    todo = list(graph.get(start, ()))
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo.extend(graph.get(one, ()))
    return seen


def _state(upper: EntryView, lower: EntryView, rigs: Mapping[int, RigView], now: dt.datetime) -> str:
    """Where the lower of a stack is, seen from the upper."""
    if lower.admitted and (not upper.admitted or (lower.slot or 0.0) < (upper.slot or 0.0)):
        return "ahead"
    told = phase(standing(lower, rigs[lower.rig], now).stage, admitted=lower.admitted)
    return "waits" if told in ("blocked", "awaiting_human") else "queued"


def refused(entry: EntryView) -> tuple[str, str] | None:
    """The exit reason when what it depends on will not land. A person's retry goes on in spite of what was refused
    before it: it waits for a failed bead to be retried, and no longer for a cancelled one."""
    since = entry.reopened_at or entry.created_at
    for bead in entry.after:
        if bead.status == "failed" and (entry.reopened_at is None or _after(bead.closed_at, entry.reopened_at)):
            return "blocker_failed", f"bead {bead.id}, which it comes after, failed: retry that, then this"
        if bead.resolution == "cancelled" and _after(bead.closed_at, since):
            return "blocker_failed", f"bead {bead.id}, which it comes after, was cancelled and did not land"
    return None


def _after(moment: dt.datetime | None, since: dt.datetime) -> bool:
    return moment is None or moment > since
