"""Rules for lanes: each (rig, target branch) works one entry at a time, all lanes in parallel. Pure.

Feature-branch lanes belong to convoy refineries, at most `max_convoy_concurrency` of them at work per rig; every
other lane belongs to the rig refinery and does not count. A busy or waiting lane never holds up another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from refinery.phases import in_queue_order, is_feature_lane, queue_key, wants_slot
from refinery.rules.actions import Admit, Decision
from refinery.world import EntryView, World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each lane with active entries."""
    lanes: dict[tuple[int, str], list[EntryView]] = defaultdict(list)
    for entry in world.entries:
        lanes[entry.rig, entry.target].append(entry)
    working = {
        rig: sum(1 for e in world.entries if e.rig == rig and e.admitted and is_feature_lane(e)) for rig in world.rigs
    }
    popped = 0
    heads = {key: in_queue_order(entries) for key, entries in lanes.items()}
    for key, entries in sorted(heads.items(), key=lambda item: _head_order(item[1])):
        rig = world.rigs[key[0]]
        subject = f"lane {rig.slug} {key[1]}"
        busy = next((e for e in entries if e.admitted), None)
        waiting = [e for e in entries if wants_slot(e, rig, world.now)]
        if busy is not None:
            yield Decision(subject, "busy", f"working on {busy.id}; {len(waiting)} more wait")
        elif not waiting:
            yield Decision(subject, "idle", "every entry waits for people or for work")
        elif world.paused:
            yield Decision(subject, "paused", f"town {world.town} is paused: {world.paused_reason}")
        elif rig.parked:
            yield Decision(subject, "parked", f"rig {rig.slug} is parked")
        elif rig.problems:
            yield Decision(subject, "misconfigured", rig.problems[0])
        elif popped >= rig.config.refinery.pop_limit:
            yield Decision(subject, "pop-limit", "the next tick goes on")
        else:
            head = waiting[0]
            feature = is_feature_lane(head)
            limit = rig.config.refinery.max_convoy_concurrency
            if feature and working[rig.id] >= limit:
                yield Decision(subject, "convoy-limit", f"{limit} convoy refineries are at work")
                continue
            popped += 1
            working[rig.id] += feature
            yield Decision(subject, "admit", f"{head.id} is next", (Admit(head.id, head.build_no),))


def _head_order(entries: list[EntryView]) -> tuple[object, ...]:
    return queue_key(entries[0])
