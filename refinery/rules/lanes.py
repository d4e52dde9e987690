"""Rules for lanes: each (rig, target branch) runs a train of entries, all lanes in parallel. Pure.

A train has at most as many cars as its window says; the next in the queue becomes the last car. A higher priority
goes ahead of cars whose gates have not begun; the urgent (priority 0) ahead of all that is not being pushed.
Feature-branch lanes belong to convoy refineries, at most `max_convoy_concurrency` of them at work per rig; every
other lane belongs to the rig refinery and does not count. A busy or waiting lane never holds up another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from refinery.phases import Stage, in_queue_order, is_feature_lane, queue_key, rank, standing, started, wants_slot
from refinery.rules.actions import Action, Admit, Decision, Leave
from refinery.world import EntryView, RigView, World

URGENT = 0


def decide(world: World) -> Iterator[Decision]:
    """One decision for each lane with active entries."""
    lanes: dict[tuple[int, str], list[EntryView]] = defaultdict(list)
    for entry in world.entries:
        lanes[entry.rig, entry.target].append(entry)
    working: dict[int, set[str]] = defaultdict(set)
    for entry in world.entries:
        if entry.admitted and is_feature_lane(entry):
            working[entry.rig].add(entry.target)
    popped = 0
    heads = {key: in_queue_order(entries) for key, entries in lanes.items()}
    for key, entries in sorted(heads.items(), key=lambda item: queue_key(item[1][0])):
        rig = world.rigs[key[0]]
        subject = f"lane {rig.slug} {key[1]}"
        cars = [e for e in entries if e.admitted]
        waiting = [e for e in entries if wants_slot(e, rig, world.now)]
        window = world.window(*key)
        if len(cars) > window:
            out = tuple(Leave(e.id, innocent=True) for e in cars[window:] if not _pushed(e))
            yield Decision(subject, "shrink", f"the window is {window}: the cars behind make room", out)
            continue
        if not waiting:
            told = f"{len(cars)} of {window} cars; nobody waits" if cars else "every entry waits for people or for work"
            yield Decision(subject, "busy" if cars else "idle", told)
            continue
        hold = _hold(world, rig, key[1], popped)
        feature = is_feature_lane(waiting[0])
        limit = rig.config.refinery.max_convoy_concurrency
        if hold is None and feature and key[1] not in working[rig.id] and len(working[rig.id]) >= limit:
            hold = "convoy-limit", f"{limit} convoy refineries are at work"
        if hold is not None:
            yield Decision(subject, *hold)
            continue
        actions = _admit(cars, waiting, rig, window, rig.config.refinery.pop_limit - popped, world)
        popped += len(actions)
        if actions:
            if feature:
                working[rig.id].add(key[1])
            names = ", ".join(a.entry for a in actions if isinstance(a, Admit))
            yield Decision(subject, "admit", f"next: {names}", actions)
        else:
            yield Decision(subject, "busy", f"{len(cars)} of {window} cars; {len(waiting)} more wait")


def _hold(world: World, rig: RigView, target: str, popped: int) -> tuple[str, str] | None:
    """Why a lane admits nobody now."""
    if frozen := world.frozen(rig.id, target):
        return "frozen", frozen
    if world.paused:
        return "paused", f"town {world.town} is paused: {world.paused_reason}"
    if rig.parked:
        return "parked", f"rig {rig.slug} is parked"
    if rig.problems:
        return "misconfigured", rig.problems[0]
    if popped >= rig.config.refinery.pop_limit:
        return "pop-limit", "the next tick goes on"
    return None


def _pushed(car: EntryView) -> bool:
    return car.landing is not None and car.landing.state in ("intent", "pushing", "landed")


def _admit(
    cars: list[EntryView], waiting: list[EntryView], rig: RigView, window: int, most: int, world: World
) -> tuple[Action, ...]:
    """Who gets on, and where: at the end, or ahead of what they may displace."""
    train: list[tuple[float, EntryView]] = [(car.slot or 0.0, car) for car in cars]
    actions: list[Action] = []
    for entry in waiting:
        if len(actions) >= most:
            break
        at = _place(entry, [car for _, car in train])
        if at >= window:
            continue
        before = train[at - 1][0] if at else (train[0][0] - 2.0 if train else 0.0)
        slot = (before + train[at][0]) / 2 if at < len(train) else before + 1.0
        alone = not train
        ready = at == len(train) and not actions and (alone or _tip_is_built(train[-1][1], rig, world))
        on = None
        if ready and not alone:
            tip = train[-1][1]
            on = tip.candidate.id if tip.candidate else None
        actions.append(Admit(entry.id, entry.build_no, slot, ready, on))
        train.insert(at, (slot, entry))
        if len(train) > window + 1:
            break
    return tuple(actions)


def _tip_is_built(tip: EntryView, rig: RigView, world: World) -> bool:
    """True when the last car's candidate is one to stand on, as far as its stage tells."""
    stage = standing(tip, rig, world.now).stage
    return stage in (Stage.NEEDS_GATES, Stage.GATING, Stage.NEEDS_REVIEW, Stage.REVIEWING, Stage.GREEN)


def _place(entry: EntryView, train: list[EntryView]) -> int:
    """The index in the train at which an entry gets on."""
    at = len(train)
    while at > 0:
        car = train[at - 1]
        urgent = rank(entry) <= URGENT
        if _pushed(car) or rank(car) <= rank(entry) or (started(car) and not urgent) or car.id in entry.ties.before:
            break
        at -= 1
    return at
