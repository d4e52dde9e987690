"""When will it land: from the rig's own latest gate, review, landing and work times. Pure.

The queue is played forward: each entry starts when a car of its lane's window has landed, takes as long as the others
took of late, and lands after those ahead of it. What has never been measured is `unknown`; what waits for people or
for work says so, for nobody can tell how long they will take. Nothing is decided by an estimate.
"""

from __future__ import annotations

import datetime as dt
import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from beads.lifecycle import BeadStatus
from refinery.convoyviews import ConvoyView
from refinery.phases import Stage, approvals, approvals_needed, by_lane, in_queue_order, phase, standing
from refinery.readiness import convoy_phase
from refinery.world import EntryView, RigView, RunView, World

ENOUGH = 3  # so many samples at least
SAMPLES = 30  # so many of the latest count


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds: the median, and what 80 % stayed within."""

    median: float
    p80: float


@dataclass(frozen=True)
class History:
    """What was observed: (rig, `gates` | `review` | `landing` | `work`) → seconds."""

    times: Mapping[tuple[int, str], Times] = field(default_factory=dict)

    def of(self, rig: int, what: str, late: bool) -> float | None:
        """The usual time, or (`late`) the one that four of five stay within; None when too little was measured."""
        found = self.times.get((rig, what))
        return None if found is None else found.p80 if late else found.median


def history(samples: Iterable[tuple[int, str, float]]) -> History:
    """From (rig, what, seconds), the latest first."""
    taken: dict[tuple[int, str], list[float]] = defaultdict(list)
    for rig, what, seconds in samples:
        if len(taken[rig, what]) < SAMPLES:
            taken[rig, what].append(max(seconds, 0.0))
    return History({key: _times(found) for key, found in taken.items() if len(found) >= ENOUGH})


def _times(samples: list[float]) -> Times:
    ordered = sorted(samples)
    return Times(statistics.median(ordered), ordered[min(ceil(0.8 * len(ordered)), len(ordered)) - 1])


@dataclass(frozen=True, slots=True)
class Estimate:
    """When something lands. `seconds` from now, usually; `late`: in four cases of five. None: nobody knows."""

    words: str
    seconds: float | None = None
    late: float | None = None
    at: dt.datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "estimate": self.words,
            "eta_seconds": None if self.seconds is None else round(self.seconds),
            "eta_p80_seconds": None if self.late is None else round(self.late),
            "eta": self.at.isoformat(timespec="seconds") if self.at else None,
        }


UNKNOWN = Estimate("unknown")
PERSON = Estimate("waits for a person")


def about(seconds: float) -> str:
    """A length of time in words, rounded as roughly as it is known."""
    if seconds < 90:
        return f"about {max(round(seconds / 5) * 5, 5)} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    if seconds < 36 * 3600:
        return f"about {round(seconds / 3600)} h"
    return f"about {round(seconds / 86400)} days"


def _told(world: World, seconds: float | None, late: float | None) -> Estimate:
    if seconds is None or late is None:
        return UNKNOWN
    return Estimate(about(seconds), seconds, max(seconds, late), world.now + dt.timedelta(seconds=seconds))


# -- entries --------------------------------------------------------------------------------------------------------


def of_entries(world: World, known: History) -> dict[str, Estimate]:
    """An estimate for each active entry."""
    found: dict[str, Estimate] = {}
    for key, entries in by_lane(world.entries).items():
        rig = world.rigs[key[0]]
        stages = {e.id: standing(e, rig, world.now).stage for e in entries}
        waits = {e.id: _unpredictable(world, e, stages[e.id]) for e in entries}
        goes = [(e, stages[e.id]) for e in in_queue_order(entries) if not waits[e.id]]
        usual = _lane(world, known, key, goes, late=False)
        late = _lane(world, known, key, goes, late=True)
        for entry in entries:
            words = waits[entry.id]
            seconds = usual.get(entry.id)
            found[entry.id] = Estimate(words) if words else _told(world, seconds, late.get(entry.id))
    return found


def _unpredictable(world: World, entry: EntryView, stage: Stage) -> str:
    """Whom or what it waits for that keeps no time, or an empty string."""
    rig = world.rigs[entry.rig]
    told = phase(stage, admitted=entry.admitted)
    if told == "awaiting_human" or len(approvals(entry)) < approvals_needed(entry, rig.config):
        return PERSON.words
    if told == "blocked":
        waits = [b.id for b in (*entry.waiting_for, *(a for a in entry.after if a.status != BeadStatus.CLOSED))]
        return f"waits for {', '.join(waits or [b.id for b in entry.ties.stands_on])}"
    if stage in (Stage.LANDING, Stage.LANDED):
        return ""
    if world.frozen(entry.rig, entry.target):
        return "the lane is frozen"
    if not entry.admitted and (world.paused or rig.parked):
        return "the rig is parked" if rig.parked else "the town is paused"
    return ""


def _lane(
    world: World, known: History, key: tuple[int, str], entries: Iterable[tuple[EntryView, Stage]], *, late: bool
) -> dict[str, float]:
    """Seconds to landing of those that can land by themselves, in queue order: the lane played forward."""
    rig = world.rigs[key[0]]
    window = world.window(*key)
    found: dict[str, float] = {}
    ends: list[float] = []  # when each car now in the window has landed
    last = reviewer_free = 0.0
    for entry, stage in entries:
        start = heapq.heappop(ends) if len(ends) >= window else 0.0
        gates, review, landing = _left(world.now, known, entry, stage, rig, late)
        if gates is None or review is None:
            return found
        reviewed = start + gates
        if review:  # one at a time
            reviewed = max(reviewed, reviewer_free) + review
            reviewer_free = reviewed
        last = max(last, reviewed + landing)
        found[entry.id] = last
        heapq.heappush(ends, last)
    return found


def _left(
    now: dt.datetime, known: History, entry: EntryView, stage: Stage, rig: RigView, late: bool
) -> tuple[float | None, float | None, float]:
    """What is left of an entry's own gates, review and landing."""
    gates = known.of(rig.id, "gates", late) if rig.config.refinery.gates and not entry.ties.waived else 0.0
    review = known.of(rig.id, "review", late) if _to_be_reviewed(entry, rig) else 0.0
    landing = known.of(rig.id, "landing", late) or 0.0
    match stage:
        case Stage.GATING:
            return _rest(gates, entry.live_run("gates"), now), review, landing
        case Stage.NEEDS_REVIEW:
            return 0.0, review, landing
        case Stage.REVIEWING:
            return 0.0, _rest(review, entry.live_run("refinery"), now), landing
        case Stage.GREEN | Stage.LANDING | Stage.LANDED:
            return 0.0, 0.0, landing
        case Stage.GATE_FAILED | Stage.GATE_ERROR | Stage.CONFLICT | Stage.UNFIT | Stage.BUILD_ERROR:
            return None, None, landing
        case Stage.CHANGES_REQUESTED:
            return None, None, landing
        case _:
            return gates, review, landing


def _to_be_reviewed(entry: EntryView, rig: RigView) -> bool:
    agent = entry.latest_verdict(human=False)
    return rig.config.refinery.code_review and not approvals(entry) and (agent is None or agent.decision != "approve")


def _rest(usual: float | None, run: RunView | None, now: dt.datetime) -> float | None:
    """What is left of a run that usually takes so long; one that is overdue is taken to be nearly there."""
    if usual is None or run is None:
        return usual
    return max(usual - (now - run.created_at).total_seconds(), usual * 0.1)


# -- convoys --------------------------------------------------------------------------------------------------------


def of_convoy(world: World, known: History, convoy: ConvoyView, entries: Mapping[str, Estimate]) -> Estimate:
    """When a live convoy has landed (or, merged bead by bead, is done), along its longest chain of beads."""
    told = convoy_phase(convoy)[0]
    if told == "staged":
        return Estimate("not started")
    if told == "needs_attention":
        return PERSON
    usual, late = (_convoy(world, known, convoy, entries, late=late) for late in (False, True))
    if isinstance(usual, str):
        return Estimate(usual)
    return _told(world, usual, None if isinstance(late, str) else late)


def _convoy(
    world: World, known: History, convoy: ConvoyView, entries: Mapping[str, Estimate], *, late: bool
) -> float | str | None:
    """Seconds; or whom it waits for, in words; or None: unknown."""
    beads = {b.id: b for b in world.beads if b.convoy == convoy.id}
    ends: dict[str, float] = {}
    work = 0.0
    for key in _in_order({k: [x.id for x in b.blockers if x.id in beads] for k, b in beads.items()}):
        bead = beads[key]
        start = max((ends[b.id] for b in bead.blockers if b.id in ends), default=0.0)
        if (entry := world.entry_of_source.get(key)) is not None:
            told = entries[entry.id]
            if told.seconds is None or told.late is None:
                return told.words if told != UNKNOWN else None
            ends[key] = max(start, told.late if late else told.seconds)
            continue
        usual, after = known.of(bead.rig, "work", late), cycle(world.rigs[bead.rig], known, late)
        left = _rest(usual, bead.live_run, world.now)
        if left is None or after is None:
            return None
        work += left
        ends[key] = start + left + after
    most = world.rigs[convoy.rig].config.dispatch.max_polecats
    done = max([*ends.values(), work / most])
    if not convoy.lands_once:
        return done
    for landing in convoy.landings:
        if landing.state == "active" and landing.id in entries:
            told = entries[landing.id]
            seconds = told.late if late else told.seconds
            return seconds if seconds is not None else told.words if told != UNKNOWN else None
    last = [cycle(world.rigs[b.rig], known, late) for b in convoy.branches if not b.landed_sha]
    return None if any(x is None for x in last) else done + sum(x for x in last if x is not None)


def cycle(rig: RigView, known: History, late: bool = False) -> float | None:
    """Seconds for gates, review and landing of a change that finds its lane free; None: unknown."""
    gates = known.of(rig.id, "gates", late) if rig.config.refinery.gates else 0.0
    review = known.of(rig.id, "review", late) if rig.config.refinery.code_review else 0.0
    return None if gates is None or review is None else gates + review + (known.of(rig.id, "landing", late) or 0.0)


def _in_order(after: Mapping[str, list[str]]) -> list[str]:
    """Keys, each after those it comes after. The ledger has no circles."""
    placed: dict[str, None] = {}
    while len(placed) < len(after):
        ready = [key for key, waits in after.items() if key not in placed and all(w in placed for w in waits)]
        if not ready:
            return [*placed, *(key for key in after if key not in placed)]
        placed.update(dict.fromkeys(ready))
    return list(placed)
