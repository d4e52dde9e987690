"""When will it land: from the rig's own latest gate, review, landing and work times. Pure.

The queue is played forward: each entry starts when a car of its lane's window has landed, takes as long as its own
gates, those that it still needs, its review and its push took of late, and lands after those ahead of it. The answer
is a range that begins no earlier than now. What takes longer than it ever did says so, with how long it has been at
it, and what was never measured, or not since the gates changed, is unknown; what waits for people or for work says so,
for nobody can tell how long they will take. Nothing is decided by an estimate.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil
from operator import attrgetter
from typing import Any

from beads.config import Gate
from beads.lifecycle import BeadStatus
from refinery.core.approvals import approvals, approvals_needed
from refinery.core.beadviews import BeadView
from refinery.core.convoyviews import ConvoyView
from refinery.core.entryviews import CandidateView, EntryView, GateView
from refinery.core.gating import needed, results_on
from refinery.core.order import by_lane, in_queue_order
from refinery.core.pace import NOTHING, History, Span, Untold, due, exactly, lasting
from refinery.core.readiness import convoy_phase
from refinery.core.stages import Stage, phase
from refinery.core.standing import proving, stands
from refinery.core.states import EntryState, GateOutcome, Judgement
from refinery.core.world import RigView, World


@dataclass(frozen=True, slots=True)
class Estimate:
    """When something lands, in seconds from now: usually (`seconds`), seldom before `low`, seldom after `late`. None:
    nobody knows; `words` say why. `overdue`: it is at something for longer than that ever took."""

    words: str
    low: float | None = None
    seconds: float | None = None
    late: float | None = None
    at: dt.datetime | None = None
    overdue: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it; whole seconds, rounded up, so that none of it is ever in the past."""
        return {
            "estimate": self.words,
            "eta_seconds": _whole(self.seconds),
            "eta_p80_seconds": _whole(self.late),
            "eta": self.at and self.at.isoformat(timespec="seconds"),
            "eta_low_seconds": None if self.low is None else int(self.low),
            "overdue": self.overdue,
        }


def _whole(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    return max(ceil(round(seconds, 3)), 1)


UNKNOWN = Estimate("unknown")
PERSON = Estimate("waits for a person")


def _told(world: World, span: Span) -> Estimate:
    usual = max(span.usual, span.low)
    late = max(span.high, usual)
    at = world.now + dt.timedelta(seconds=_whole(usual) or 1)
    if at.microsecond:
        at = at.replace(microsecond=0) + dt.timedelta(seconds=1)
    return Estimate(due(span.low, late), span.low, usual, late, at)


def _rest(span: Span, since: dt.datetime | None, now: dt.datetime, what: str, whose: str) -> Span:
    """What is left of something that began then. Raises Untold when it has taken longer than it mostly does."""
    passed = (now - (since or now)).total_seconds()
    if passed < span.high:
        return span.after(max(passed, 0.0))
    words = f"longer than usual: {what} was to take {lasting(span.low, span.high)}, at it for {exactly(passed)}"
    raise Untold(words, f"after {whose}, which takes longer than usual", overdue=True)


# -- entries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of an entry's way. `alone`: its gates before it waits for its turn; `review`: None: it needs none;
    `reviewing`: it is under way."""

    entry: EntryView
    alone: Span
    gates: Span
    review: Span | None
    reviewing: bool
    landing: Span


def of_entries(world: World, known: History) -> dict[str, Estimate]:
    """An estimate for each active entry."""
    found: dict[str, Estimate] = {}
    for key, entries in by_lane(world.entries).items():
        found |= _of_lane(world, known, key, entries)
    return found


def _of_lane(world: World, known: History, key: tuple[int, str], entries: Sequence[EntryView]) -> dict[str, Estimate]:
    """In queue order, for nobody lands before those ahead: who cannot be told of stops the telling."""
    rig = world.rigs[key[0]]
    of = {e.id: e for e in entries}
    found: dict[str, Estimate] = {}
    goes: list[_Left] = []
    stopped = ""
    for entry in in_queue_order(entries):
        stage = stands(world, entry).stage
        if words := _unpredictable(world, entry, stage):
            found[entry.id] = Estimate(words)
        elif stopped:
            found[entry.id] = Estimate(stopped)
        else:
            try:
                goes.append(_left(world, known, entry, stage, of))
            except Untold as unknown:
                found[entry.id] = Estimate(unknown.words, overdue=unknown.overdue)
                stopped = unknown.behind
    window, reviewers = world.window(*key), rig.config.refinery.max_reviews
    played = [_play(goes, name, window, reviewers) for name in ("low", "usual", "high")]
    return found | {
        x.entry.id: _told(world, Span(*ends)) for x, ends in zip(goes, zip(*played, strict=True), strict=True)
    }


_FALLS_OUT = {
    Stage.GATE_FAILED: "unknown: its gates have failed",
    Stage.TRIAGE: "unknown: its gates have failed",
    Stage.GATE_ERROR: "unknown: its gates could not be run",
    Stage.UNSETTLED: "unknown: it is judged once what is ahead has landed",
    Stage.CONFLICT: "unknown: it conflicts",
    Stage.UNFIT: "unknown: it is unfit",
    Stage.BUILD_ERROR: "unknown: it could not be built",
    Stage.CHANGES_REQUESTED: "unknown: it is sent back",
    Stage.PUSH_REFUSED: "unknown: the remote refused it",
}


def _unpredictable(world: World, entry: EntryView, stage: Stage) -> str:
    """What an entry waits for whose duration nobody can predict, in words; empty where there is nothing such."""
    rig = world.rigs[entry.rig]
    told = phase(stage, admitted=entry.admitted)
    if stage in (Stage.CHECKING, Stage.EXCUSED) and entry.ground.check:
        return f"waits for check {entry.ground.check.id}"
    if stage in (Stage.CHECKING, Stage.EXCUSED):
        return "unknown: its gates have failed"
    if told == "awaiting_human" or len(approvals(entry)) < approvals_needed(entry, rig.config):
        return PERSON.words
    if told == "blocked":
        waits = [b.id for b in (*entry.waiting_for, *(a for a in entry.after if a.status != BeadStatus.CLOSED))]
        return f"waits for {', '.join(waits or [b.id for b in entry.ties.stacked_on])}"
    if rig.outage is not None and stage != Stage.LANDED:
        return rig.outage.words(world.now)
    if stage in (Stage.LANDING, Stage.LANDED):
        return ""
    if world.frozen(entry.rig, entry.target):
        return "the lane is frozen"
    if not entry.admitted and rig.parked:
        return "the rig is parked"
    if not entry.admitted and world.paused:
        return "the town is paused"
    return _FALLS_OUT.get(stage, "")


def _play(cars: Iterable[_Left], name: str, window: int, reviewers: int) -> list[float]:
    """Seconds to landing of these entries, in queue order: the lane played forward, with so many cars (a batch is one)
    and so many reviews at once. `name`: the side of each range that is counted with."""
    side = attrgetter(name)
    cars = list(cars)
    free = [side(x.review) for x in cars if x.review is not None and x.reviewing]  # when each reviewer is
    heapq.heapify(free)
    ends: list[float] = []
    groups: list[tuple[int | str, float, float]] = []  # of the cars in the window: whose, begin, end
    for car in cars:
        whose = car.entry.batch or car.entry.id
        begin = 0.0
        if groups and groups[-1][0] == whose:
            begin = groups.pop()[1]
        elif len(groups) >= window:
            begin = groups[-window][2]
        ready = max(begin, side(car.alone)) + side(car.gates)
        if car.review is not None and car.reviewing:
            ready = max(ready, side(car.review))
        elif car.review is not None:
            while len(free) >= reviewers:
                ready = max(ready, heapq.heappop(free))
            ready += side(car.review)
            heapq.heappush(free, ready)
        ends.append(max(ready + side(car.landing), *ends[-1:], 0.0))
        groups.append((whose, begin, ends[-1]))
    return ends


def _left(world: World, known: History, entry: EntryView, stage: Stage, lane: Mapping[str, EntryView]) -> _Left:
    """What is left of an entry's own gates, review and landing. Raises Untold."""
    rig, now = world.rigs[entry.rig], world.now
    if stage == Stage.LANDED:
        return _Left(entry, NOTHING, NOTHING, None, False, NOTHING)
    if stage == Stage.LANDING:
        push = known.of(rig.id, "landing")
        if entry.landing is not None:
            push = _rest(push, entry.landing.asked_at, now, "its landing", entry.id)
        return _Left(entry, NOTHING, NOTHING, None, False, push)
    if entry.build_error:
        raise Untold("unknown: building it failed, and is tried again", f"unknown: {entry.id} could not be built yet")
    alone = _alone(known, entry, rig, now)
    gates = _landing_gates(known, entry, rig, now, stage, lane)
    review, reviewing = None, False
    if _to_be_reviewed(entry, rig):
        review, run = known.of(rig.id, "review"), entry.live_run("refinery")
        if run is not None and run.purpose == "review":
            review, reviewing = _rest(review, run.created_at, now, "its review", entry.id), True
    return _Left(entry, alone, gates, review, reviewing, known.of(rig.id, "landing"))


def _to_be_reviewed(entry: EntryView, rig: RigView) -> bool:
    agent = entry.latest_verdict(human=False)
    return (
        rig.config.refinery.code_review
        and not approvals(entry)
        and (agent is None or agent.decision != Judgement.APPROVE)
    )


def _alone(known: History, entry: EntryView, rig: RigView, now: dt.datetime) -> Span:
    """What is left of the gates that an entry must pass by itself before it waits for its turn."""
    if not proving(entry, rig, now):
        return NOTHING
    found = [g for g in entry.gates if g.alone and g.head == entry.head]
    left = _gates(known, rig, rig.config.refinery.entry_gates, entry.present_candidate, found)
    run = entry.live_run("gates")
    if run is None:
        return left
    return _rest(left, run.created_at, now, "gating", entry.id)


def _landing_gates(
    known: History, entry: EntryView, rig: RigView, now: dt.datetime, stage: Stage, lane: Mapping[str, EntryView]
) -> Span:
    """What is left of the gates of what lands: its own, or those of the car that is gated for its batch."""
    if entry.ties.waived:
        return NOTHING
    car = entry.car
    if car is not None and car.member and car.batch[-1] in lane and stage == Stage.BATCHED:
        entry = lane[car.batch[-1]]
        car = entry.car
    candidate, found = entry.present_candidate, []
    if candidate is not None:
        found = list(results_on(candidate, entry.gates).values())
    stays = car is not None and car.coupling == "fits" and stage not in (Stage.TARGET_MOVED, Stage.HEAD_MOVED)
    left = _gates(known, rig, rig.config.refinery.landing_gates, candidate, found, certain=stays)
    run = entry.live_run("gates")
    if run is None or not entry.admitted or left == NOTHING:
        return left
    return _rest(left, run.created_at, now, "gating", entry.id)


def _gates(
    known: History,
    rig: RigView,
    gates: Iterable[Gate],
    candidate: CandidateView | None = None,
    found: Iterable[GateView] = (),
    *,
    certain: bool = True,
) -> Span:
    """How long those of these gates take that a candidate needs and has not passed.

    Before it is built, nobody knows whether it touches what gates with `paths` are for; and where it is built again
    (not `certain`), what it has passed counts only if its tree turns out the same. Such gates may take nothing.
    """
    passed = {(g.gate, g.command) for g in found if g.outcome == GateOutcome.PASS}
    spans = []
    for gate in gates:
        has_passed = (gate.name, gate.command) in passed
        if candidate is not None and (not needed(gate, candidate) or (has_passed and certain)):
            continue
        span = known.gate(rig.id, gate, rig.config.refinery.gates)
        may_be_spared = has_passed or (candidate is None and gate.paths)
        if may_be_spared:
            span = replace(span, low=0.0)
        spans.append(span)
    if not spans:
        return NOTHING
    together = Span.__add__
    if rig.config.refinery.parallel_gates:
        together = Span.beside
    return reduce(together, spans) + known.around(rig.id)


# -- convoys --------------------------------------------------------------------------------------------------------


def of_convoy(world: World, known: History, convoy: ConvoyView, entries: Mapping[str, Estimate]) -> Estimate:
    """When a live convoy has landed (or, merged bead by bead, is done), along its longest chain of beads."""
    told = convoy_phase(convoy)
    if told == "staged":
        return Estimate("not started")
    if told == "needs_attention":
        return PERSON
    try:
        return _told(world, _convoy(world, known, convoy, entries))
    except Untold as unknown:
        return Estimate(unknown.words, overdue=unknown.overdue)


def _convoy(world: World, known: History, convoy: ConvoyView, entries: Mapping[str, Estimate]) -> Span:
    """How long until all is done. Raises Untold."""
    beads = {b.id: b for b in world.beads if b.convoy == convoy.id}
    ends: dict[str, Span] = {}
    work = NOTHING
    for key in _in_order({k: [x.id for x in b.blockers if x.id in beads] for k, b in beads.items()}):
        bead = beads[key]
        start = reduce(Span.beside, (ends[b.id] for b in bead.blockers if b.id in ends), NOTHING)
        if (entry := world.entry_of_source.get(key)) is not None:
            ends[key] = start.beside(_ahead(entries[entry.id]))
            continue
        left = _work(known, bead, world.now)
        work += left
        ends[key] = start + left + cycle(world.rigs[bead.rig], known)
    most = world.rigs[convoy.rig].config.dispatch.max_polecats
    done = reduce(Span.beside, ends.values(), Span(work.low / most, work.usual / most, work.high / most))
    if not convoy.lands_once:
        return done
    for landing in convoy.landings:
        if landing.state == EntryState.ACTIVE and landing.id in entries:
            return _ahead(entries[landing.id])
    return reduce(Span.__add__, (cycle(world.rigs[b.rig], known) for b in convoy.branches if not b.landed_sha), done)


def _ahead(told: Estimate) -> Span:
    if told.seconds is None or told.late is None:
        raise Untold(told.words, overdue=told.overdue)
    return Span(told.low or 0.0, told.seconds, told.late)


def _work(known: History, bead: BeadView, now: dt.datetime) -> Span:
    span, run = known.of(bead.rig, "work"), bead.live_run
    if run is None:
        return span
    return _rest(span, run.created_at, now, f"the work on {bead.id}", bead.id)


def cycle(rig: RigView, known: History) -> Span:
    """How long gates, review and landing take of a change that finds its lane free. Raises Untold."""
    config = rig.config.refinery
    spans = [_gates(known, rig, gates) for gates in (config.entry_gates, config.landing_gates)]
    if config.code_review:
        spans.append(known.of(rig.id, "review"))
    return reduce(Span.__add__, spans) + known.of(rig.id, "landing")


def pace(rig: RigView, known: History) -> str:
    """How long a landing takes in a rig, or why that is unknown, in one sentence."""
    try:
        found = cycle(rig, known)
    except Untold as unknown:
        return f"how long a landing takes is {unknown.words}"
    return f"a landing takes {lasting(found.low, found.high)}"


def _in_order(after: Mapping[str, list[str]]) -> list[str]:
    """Keys, each after those it comes after. The ledger has no circles."""
    placed: dict[str, None] = {}
    while len(placed) < len(after):
        ready = [key for key, waits in after.items() if key not in placed and all(w in placed for w in waits)]
        if not ready:
            return [*placed, *(key for key in after if key not in placed)]
        placed.update(dict.fromkeys(ready))
    return list(placed)
