"""Rules for lanes: each (rig, target branch) runs a train of entries, all lanes in parallel. Pure.

A train has at most as many cars as its window says; the next in the queue becomes the last car. Those at its front
that have passed everything, and are only still pushed, take no place. One more is built ahead, so that its gates begin
the moment that a place is free (not in a serial lane, and not where batches gather). A higher priority goes ahead of
cars whose gates have not begun; the urgent (priority 0) ahead of all that is not being pushed. Where entries share a
run of the gates (`[refinery.batch]`), a batch counts as one car, and is cut when there are as many as its size, or when
the first of them has waited long enough.
Feature-branch lanes belong to convoy refineries, at most `max_convoy_concurrency` of them at work per rig; every
other lane belongs to the rig refinery and does not count. A busy or waiting lane never holds up another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from refinery.core.actions import Action, Admit, Decision, Leave
from refinery.core.entryviews import EntryView
from refinery.core.order import by_lane, in_queue_order, is_feature_lane, queue_key, rank
from refinery.core.stages import Stage
from refinery.core.standing import stands, wants_slot
from refinery.core.trains import batch_size, gating_room, groups, new_batches, started
from refinery.core.world import RigView, World

URGENT = 0
# The candidate of a car in these stages is one to stand on, as far as is known.
_CARRIES = (
    Stage.NEEDS_GATES,
    Stage.GATING,
    Stage.BATCHED,
    Stage.NEEDS_REVIEW,
    Stage.REVIEWING,
    Stage.GREEN,
    Stage.LANDING,
)


def decide(world: World) -> Iterator[Decision]:
    """One decision for each lane with active entries."""
    working: dict[int, set[str]] = defaultdict(set)
    for entry in world.entries:
        if entry.admitted and is_feature_lane(entry):
            working[entry.rig].add(entry.target)
    popped = 0
    heads = {key: in_queue_order(entries) for key, entries in by_lane(world.entries).items()}
    for key, entries in sorted(heads.items(), key=lambda item: queue_key(item[1][0])):
        rig = world.rigs[key[0]]
        subject = f"lane {rig.slug} {key[1]}"
        cars = [e for e in entries if e.admitted]
        waiting = [e for e in entries if wants_slot(e, rig, world.now, stands(world, e))]
        window = world.window(*key)
        train = groups(cars)
        gated = gating_room(train, rig, world.now, window)
        room = gated + _ahead(rig, window)
        if len(train) > room:
            out = tuple(Leave(e.id, innocent=True) for group in train[room:] for e in group if not _pushed(e))
            yield Decision(subject, "shrink", f"the window is {window}: the cars behind make room", out)
            continue
        hold = _hold(world, rig, key[1])
        if hold is None and not waiting:
            yield Decision(subject, *_nobody(train, gated, window))
            continue
        if hold is None and popped >= rig.config.refinery.pop_limit:
            hold = "pop-limit", "the next tick goes on"
        feature = bool(waiting) and is_feature_lane(waiting[0])
        limit = rig.config.refinery.max_convoy_concurrency
        if hold is None and feature and key[1] not in working[rig.id] and len(working[rig.id]) >= limit:
            hold = "convoy-limit", f"{limit} convoy refineries are at work"
        if hold is not None:
            yield Decision(subject, *hold)
            continue
        most = rig.config.refinery.pop_limit - popped
        train_now = [[(car.slot or 0.0, car) for car in group] for group in groups(cars)]
        boarding = _Boarding(world, rig, key[1], room, train_now)
        gathers = boarding.admit(cars, waiting[:most])
        actions = tuple(boarding.actions)
        popped += len(actions)
        if actions:
            if feature:
                working[rig.id].add(key[1])
            names = ", ".join(a.entry for a in actions if isinstance(a, Admit))
            yield Decision(subject, "admit", f"next: {names}", actions)
        elif gathers:
            yield Decision(subject, "gather", gathers)
        else:
            yield Decision(subject, "busy", f"{_told(train, gated, window)}; {len(waiting)} more wait")


def _nobody(train: Sequence[Sequence[EntryView]], gated: int, window: int) -> tuple[str, str]:
    """What is said of a lane in which nobody waits for a place."""
    if not train:
        return "idle", "every entry waits for people or for work"
    return "busy", f"{_told(train, gated, window)}; nobody waits"


def _told(train: Sequence[Sequence[EntryView]], gated: int, window: int) -> str:
    """A lane's train in words: the places that are taken, and who takes none. A batch takes one."""
    passed = min(gated - window, len(train))
    ahead = max(len(train) - gated, 0)
    beside = [f", {count} {words}" for count, words in ((passed, "only to be pushed"), (ahead, "built ahead")) if count]
    return f"{len(train) - passed - ahead} of {window} cars{''.join(beside)}"


def _hold(world: World, rig: RigView, target: str) -> tuple[str, str] | None:
    """Why a lane admits nobody, whoever waits."""
    if frozen := world.frozen(rig.id, target):
        return "frozen", frozen
    if world.paused:
        return "paused", world.stopped(rig)
    if rig.parked:
        return "parked", world.stopped(rig)
    if rig.problems:
        return "misconfigured", rig.problems[0]
    if rig.outage is not None:
        return "outage", rig.outage.words(world.now)
    if world.no_room:
        return "no-room", world.no_room
    return None


def _ahead(rig: RigView, window: int) -> int:
    """How many cars may be built before there is room for their gates."""
    return int(window > 1 and rig.config.refinery.batch.max == 1)


def _pushed(car: EntryView) -> bool:
    return car.landing is not None and car.landing.under_way


Train = list[list[tuple[float, EntryView]]]
"""Groups of cars with their slots, from the front; a batch is one group."""


@dataclass
class _Boarding:
    """Who gets on a lane's train now. `room`: so many groups may be on it."""

    world: World
    rig: RigView
    target: str
    room: int
    train: Train
    actions: list[Action] = field(default_factory=list)

    def admit(self, cars: list[EntryView], waiting: list[EntryView]) -> str:
        """Fill `actions`: at the end of the train, or ahead of what they may displace. What a batch still waits for.

        A lane never admits past its room, and nobody joins a batch that has begun: its candidate would be another.
        """
        numbers = new_batches(cars, odd=False)
        left = list(waiting)
        while left and len(self.train) <= self.room:
            entry = left[0]
            at = _place(entry, [[car for _, car in group] for group in self.train])
            if at >= self.room:
                left.pop(0)
                continue
            if at < len(self.train) or rank(entry) <= URGENT:  # it goes ahead of others, or waits for nobody
                self._seat(left[:1], at)
                left = left[1:]
                continue
            size, why = batch_size(self.rig, self.target, self.world)
            joining = left[:size]
            if len(joining) < size and (wait := _gathers(joining, self.rig, self.world)):
                return wait
            left = left[len(joining) :]
            if len(joining) == 1:
                self._seat(joining, at)
            else:
                self._seat(joining, at, next(numbers), f"batch of {len(joining)}: {why}")
        return ""

    def _seat(self, joining: list[EntryView], at: int, batch: int | None = None, why: str = "") -> None:
        group: list[tuple[float, EntryView]] = []
        before: list[tuple[float, EntryView]] = []
        if at:
            before = self.train[at - 1]
        for entry in joining:
            ahead = group or before
            slot = self._slot(ahead, at)
            build, on = self._base(ahead, at)
            self.actions.append(Admit(entry.id, entry.build_no, slot, build, on, batch, why))
            group.append((slot, entry))
        self.train.insert(at, group)

    def _slot(self, ahead: list[tuple[float, EntryView]], at: int) -> float:
        """A place between who is ahead and who is behind."""
        before = 0.0
        if ahead:
            before = ahead[-1][0]
        elif self.train:
            before = self.train[0][0][0] - 2.0
        if at < len(self.train):
            return (before + self.train[at][0][0]) / 2
        return before + 1.0

    def _base(self, ahead: list[tuple[float, EntryView]], at: int) -> tuple[bool, int | None]:
        """Whether the next car can be built at once, and on what. Of several that get on in one tick only the first
        can: what the others stand on is still to be built."""
        if self.actions or at < len(self.train):
            return False, None
        if not ahead:
            return True, None
        tip = ahead[-1][1]
        stage = stands(self.world, tip).stage
        if stage == Stage.LANDED:
            return True, None
        if stage not in _CARRIES:
            return False, None
        return True, tip.candidate_id


def _gathers(joining: list[EntryView], rig: RigView, world: World) -> str:
    """What a batch that is not full waits for; empty: one of them has waited long enough, or been on before."""
    due = min(e.created_at for e in joining) + rig.config.refinery.batch.wait
    if world.now >= due or any(e.attempts or e.contested for e in joining):
        return ""
    return f"{len(joining)} gather for a batch until {due:%H:%M:%S} UTC"


def _place(entry: EntryView, train: list[list[EntryView]]) -> int:
    """The index in the train at which an entry gets on; batches are not parted."""
    at = len(train)
    while at > 0:
        group = train[at - 1]
        urgent = rank(entry) <= URGENT
        first = min(rank(car) for car in group)
        if any(_pushed(car) or car.id in entry.ties.before for car in group) or first <= rank(entry):
            break
        if any(map(started, group)) and not urgent:
            break
        at -= 1
    return at
