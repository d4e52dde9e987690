"""Trains: who stands on whom, who is gated and lands with whom. Pure.

Source: Zuul's dependent pipeline (cars stand on one another, gates run in parallel) and bors' batches (one run of the
gates for several cars). A batch of cars is sealed by a merge commit over its base: that commit, whose tree was gated,
is what the target's first parents show; the members' own commits stay behind its second parent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from typing import Any

from refinery.core.approvals import approvals, approvals_needed
from refinery.core.entryviews import CarView, EntryView
from refinery.core.gating import judged
from refinery.core.order import by_lane, in_queue_order
from refinery.core.stages import Stage
from refinery.core.standing import gated, reviewed, standing
from refinery.core.states import BuildResult
from refinery.core.world import RigView, World

_PASSED = (Stage.GREEN, Stage.LANDING, Stage.LANDED)
_FAILED = (Stage.GATE_FAILED, Stage.GATE_ERROR, Stage.CHECKING, Stage.EXCUSED, Stage.STALE)


def couple(entries: Iterable[EntryView], rigs: Mapping[int, RigView]) -> list[EntryView]:
    """The same entries, each admitted one with its place in its lane's train (source: Zuul's dependent pipeline).

    Cars stand on one another, in order, down to the target's head. One that failed, or that people may still send
    back, carries nobody: whoever is behind it stands on the nearest car ahead that may land, so that the innocent
    need not wait for it.
    """
    found: list[EntryView] = []
    for (rig, _), cars in by_lane(entries).items():
        found += [e for e in cars if not e.admitted]
        found += _train(in_queue_order(e for e in cars if e.admitted), rigs[rig])
    return found


def groups(cars: Iterable[EntryView]) -> list[list[EntryView]]:
    """A train's cars, in order, those of one batch together."""
    return [list(g) for _, g in groupby(cars, key=lambda e: e.batch or e.id)]


def _train(cars: Iterable[EntryView], rig: RigView) -> list[EntryView]:
    tip: EntryView | None = None  # the nearest car ahead that carries
    coupled: list[EntryView] = []
    for group in groups(cars):
        settled = tip is None
        placed: list[EntryView] = []
        below = tip
        for entry in group:
            entry = _placed(entry, len(coupled) + len(placed) + 1, below, settled)
            placed.append(entry)
            if _stands(entry, rig):
                below = entry
        placed = _batched(placed, rig)
        coupled += placed
        carrying = [e for e in placed if _stands(e, rig)]
        if carrying and _passes(carrying[-1], rig):
            tip = carrying[-1]
    return coupled


def _placed(entry: EntryView, place: int, tip: EntryView | None, settled: bool) -> EntryView:
    """The entry as a car that stands on `tip`."""
    if tip is None:
        there = entry.built.on is None or entry.built.on_landed
        return replace(entry, car=CarView(place, _coupling(entry, there), settled=settled))
    coupling = "waits"
    if _fits(tip):
        coupling = _coupling(entry, entry.built.on == tip.candidate_id)
    return replace(entry, car=CarView(place, coupling, tip.candidate_id, tip.id, settled))


def _coupling(entry: EntryView, there: bool) -> str:
    """Whether a car's candidate fits. `there`: it was built where the car stands."""
    if entry.present_candidate is not None and there:
        return "fits"
    return "stale"


def _fits(entry: EntryView) -> bool:
    """True when a car's candidate is known to stand where it should."""
    return entry.candidate is not None and entry.car is not None and entry.car.coupling == "fits"


def _batched(cars: list[EntryView], rig: RigView) -> list[EntryView]:
    """The cars of one group, knowing of one another: the last that stands is sealed and gated for all."""
    members = [e for e in cars if _stands(e, rig)]
    batches: dict[str, tuple[str, ...]] = {}
    first = last = None
    if len(members) > 1:
        batches = dict.fromkeys([e.id for e in members], tuple(e.id for e in members))
        first, last = members[0], members[-1]
    found = []
    for number, entry in enumerate(cars):
        car, candidate = entry.car, entry.candidate
        assert car is not None
        car = replace(car, first=number == 0, batch=batches.get(entry.id, ()))
        seal = ""
        if first is not None and last is not None and entry is last and first.candidate is not None:
            seal = first.candidate.base
            car = replace(car, seal=first.candidate.id)
        if (
            car.coupling == "fits"
            and candidate is not None
            and candidate.result == BuildResult.BUILT
            and candidate.seal != seal
        ):
            car = replace(car, coupling="stale")
        if last is not None and entry.id in batches and entry is not last:
            car = replace(car, member=True, for_all=last.candidate, results=last.gates)
        found.append(replace(entry, car=car))
    return found


def _stands(entry: EntryView, rig: RigView) -> bool:
    """True when a car, gates aside, may land as far as is known."""
    if len(approvals(entry)) < approvals_needed(entry, rig.config) or entry.reject_requested or entry.source_cancelled:
        return False
    candidate = entry.candidate
    if candidate is not None and candidate.head == entry.head and candidate.result != BuildResult.BUILT:
        # in a batch also before it is built again: else who seals the batch would change to and fro
        return entry.batch is None and not _fits(entry)
    if not _fits(entry):
        return True
    review = reviewed(entry, rig)
    return review is None or review.stage != Stage.CHANGES_REQUESTED


def _passes(entry: EntryView, rig: RigView) -> bool:
    """True when the gates of a car that stands have not failed, as far as is known: others may stand on it."""
    if entry.candidate is None or not _fits(entry):
        return True
    gates = gated(entry, entry.candidate, rig)
    return gates is None or gates.stage not in _FAILED


def gating_room(train: Sequence[Sequence[EntryView]], rig: RigView, now: dt.datetime, window: int) -> int:
    """How many of a train's groups may be gated: those at its front that are only still pushed take no place."""
    for passed, group in enumerate(train):
        if any(standing(car, rig, now).stage not in _PASSED for car in group):
            return window + passed
    return window + len(train)


def landing_cars(
    cars: Iterable[EntryView], rig: RigView, now: dt.datetime, wait: Callable[[EntryView], Any] = lambda _: False
) -> list[EntryView]:
    """The cars that may land now, in one push: from the front of the train, as long as each is green and need not wait.

    A batch lands whole: it was gated as one.
    """
    ready: list[EntryView] = []
    for entry in in_queue_order(e for e in cars if e.admitted):
        if standing(entry, rig, now).stage != Stage.GREEN or wait(entry):
            break
        ready.append(entry)
    while ready and not _ends(ready[-1], rig):
        ready.pop()
    return ready


def _ends(entry: EntryView, rig: RigView) -> bool:
    """True when the very tree of this car was gated, so that a push may end with it."""
    if entry.car is None or not entry.car.member or entry.candidate is None or entry.ties.waived:
        return True
    return judged(entry, entry.candidate, rig.config.refinery.landing_gates, entry.gates, rig) is None


def new_batches(cars: Iterable[EntryView], *, odd: bool) -> Iterator[int]:
    """Numbers that no batch of the train has. Who admits takes even ones, who cuts a batch odd ones: both decide on
    the same rows, and neither knows of the other."""
    first = max((car.batch or 0 for car in cars), default=0) + 1
    if first % 2 != odd:
        first += 1
    return count(first, 2)


def failing_share(failed: Sequence[bool]) -> float:
    """The share of changes that fail, by whether each of the latest did: (failed + 1) ÷ (all + 20), never none."""
    return (sum(failed) + 1) / (len(failed) + 20)


def batch_size(rig: RigView, target: str, world: World) -> tuple[int, str]:
    """How many entries share the next run of a lane's gates, and why.

    Where a share p of the changes fails, a batch of 1/√p costs the fewest runs (source: R. Dorfman, *The Detection of
    Defective Members of Large Populations*, 1943).
    """
    config = rig.config.refinery.batch
    if world.broken(rig.id, target):
        return 1, ""
    if config.max == 1 or not rig.config.refinery.landing_gates:
        return 1, ""
    if config.size is not None:
        return min(config.size, config.max), f"refinery.batch.size is {config.size}"
    failing = world.lane(rig.id, target).failing
    if failing is None:
        return config.max, f"how often changes fail is not known yet; refinery.batch.max is {config.max}"
    best = max(round(failing**-0.5), 1)
    return min(best, config.max), f"{failing:.0%} of the latest changes fail, so {best} is best; at most {config.max}"


def started(entry: EntryView) -> bool:
    """True when a car's gates have begun: others no longer go ahead of it, but for the urgent."""
    return entry.live_run("gates") is not None or any(g.tree == entry.built.tree for g in entry.gates)
