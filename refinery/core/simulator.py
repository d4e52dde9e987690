"""A merge queue in virtual time: the production plan, without git, database or processes. Pure but for its arguments.

Changes arrive at a given rate; some break the build, some conflict with a neighbour. `refinery.core.rules.plan` decides
everything; this module plays the outside: builds of candidates at once, gate runs that take their time on a limited
number of workers, pushes at once. The oracle knows each outcome beforehand: it lands every good change as soon as one
build of its own is over, and builds nothing that fails.
"""

from __future__ import annotations

import datetime as dt
import heapq
from dataclasses import replace
from typing import Any

from agents.lifecycle import RunOutcome, RunState
from beads.config import Config, effective, validate
from refinery.core.actions import (
    Action,
    Admit,
    CloseEntry,
    Foresee,
    Hold,
    Land,
    Leave,
    OpenConflict,
    OpenRework,
    Prove,
    Rebuild,
    Regroup,
    SetWindow,
    StartRun,
    StopRun,
)
from refinery.core.beadviews import RunView
from refinery.core.entryviews import CandidateView, EntryView, GateView, LandingView, LaneView
from refinery.core.loads import Load, Outcome, Strategy, arrivals, oracle
from refinery.core.relations import ForecastView, Ground
from refinery.core.rules import plan
from refinery.core.stacks import Shown, arrange
from refinery.core.states import EntryState, LandingState
from refinery.core.trains import couple, failing_share
from refinery.core.world import RigView, World

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
GATE = "build"
_SOUND = Ground({(GATE, GATE): 0})  # the target itself always passes


class Simulation:
    """One strategy under one load."""

    def __init__(self, load: Load, strategy: Strategy) -> None:
        self.load, self.strategy = load, strategy
        when = "landing"
        if strategy.alone:
            when = "both"
        refinery = {
            "gates": [{"name": GATE, "run": GATE, "when": when}],
            "code_review": False,
            "train": {"window": strategy.window},
            "batch": {"max": strategy.batch, "wait": "2m"},
            "pop_limit": 1000,
        }
        self.config: Config = effective(validate({"refinery": refinery}), {})
        self.rig = RigView(1, "rig", "main", self.config)
        self.changes = {c.id: c for c in arrivals(load)}
        self.entries: dict[str, EntryView] = {}
        self.window: int | None = None
        self.forecast = ForecastView(1)
        self.results: dict[frozenset[str], list[bool]] = {}  # tree → what its gates said, each time
        self.trees: dict[int, frozenset[str]] = {}  # candidate → all changes that it holds
        self.bases: dict[int, str] = {}  # candidate → what it stands on
        self.owners: dict[int, str] = {}  # candidate → whose it is
        self.landed: set[str] = set()
        self.events: list[tuple[float, int, str, str]] = []  # when, number, what, whose
        self.running: dict[str, tuple[str, int]] = {}  # run → (entry, candidate)
        self.queued: list[str] = []
        self.busy = 0
        self.proven: dict[str, GateView] = {}
        self.builds = 0
        self.number = 0
        self.minute = 0.0
        self.ended: list[bool] = []  # of those that were in the train: whether they failed there

    def run(self) -> None:
        """Until everything that arrived has ended."""
        for change in self.changes.values():
            self._push(change.arrived, "arrives", change.id)
        while self.events:
            self.minute, _, what, key = heapq.heappop(self.events)
            self._happen(what, key)
            while self.events and self.events[0][0] <= self.minute:
                _, _, what, key = heapq.heappop(self.events)
                self._happen(what, key)
            self._settle()

    def _push(self, at: float, what: str, key: str) -> None:
        self.number += 1
        heapq.heappush(self.events, (at, self.number, what, key))

    def _happen(self, what: str, key: str) -> None:
        now = EPOCH + dt.timedelta(minutes=self.minute)
        if what == "arrives":
            self.entries[key] = EntryView(key, 1, key, key, "main", now)
            return
        entry_id, candidate = self.running.pop(key, ("", 0))
        if not entry_id:
            return  # it was stopped
        self.busy -= 1
        tree = self.trees[candidate]
        self.results.setdefault(tree, []).append(not any(self.changes[c].bad for c in tree))
        entry = self.entries.get(entry_id)
        if entry is not None:
            self.entries[entry_id] = _with_run(entry, key, state=RunState.ENDED, outcome=RunOutcome.DONE)

    def _settle(self) -> None:
        for _ in range(10_000):
            world = self._world()
            acted = False
            for decision in plan(world):
                for action in decision.actions:
                    acted = True
                    self._apply(action)
            self._start()
            if not acted:
                return
        raise RuntimeError("the plan does not come to rest")

    def _world(self) -> World:
        entries = []
        for entry in self.entries.values():
            candidate = entry.candidate
            gates: tuple[GateView, ...] = ()
            if candidate is not None:
                on = candidate.on
                landed = on is not None and self.owners[on] in self.landed
                candidate = replace(candidate, on_landed=landed)
                if said := self.results.get(self.trees[candidate.id]):
                    outcome = "fail"
                    if said[-1]:
                        outcome = "pass"
                    alone = candidate.on is None and not candidate.seal
                    fails = said.count(False)
                    gates = (
                        GateView(GATE, GATE, candidate.tree, outcome, head=candidate.head, alone=alone, fails=fails),
                    )
                    if alone and said[-1]:
                        self.proven[entry.id] = gates[0]
            if entry.id in self.proven:
                gates = (*gates, self.proven[entry.id])
            entries.append(replace(entry, candidate=candidate, gates=gates, ground=_SOUND))
        live = tuple(r for e in entries for r in e.runs if r.live)
        now, rigs = EPOCH + dt.timedelta(minutes=self.minute), {1: self.rig}
        shown = Shown(forecasts={(1, "main"): self.forecast})
        return World(
            now=now,
            town="sim",
            rigs=rigs,
            entries=tuple(couple(arrange(entries, {}, rigs, now, shown), rigs)),
            runs=live,
            lanes={(1, "main"): LaneView(self.window, failing=self._failing(), forecast=self.forecast)},
        )

    def _failing(self) -> float | None:
        """As `refinery.tick.snapshot` tells it."""
        if not self.ended:
            return None
        return failing_share(self.ended[-100:])

    def _build(self, key: str, on: int | None, seal: int | None = None) -> None:
        entry = self.entries[key]
        self.number += 1
        below, base = frozenset(self.landed), f"main-{len(self.landed)}"
        if on is not None:
            below, base = self.trees[on], f"c{on}"
        tree = below | {key}
        rival = self.changes[key].rival
        result = "built"
        if rival and rival in below:
            result = "conflict"
        sha = str(self.number)
        self.bases[self.number] = base
        sealed = self.bases.get(seal or 0, "")
        made = CandidateView(
            self.number, entry.build_no, result, key, base, sha, f"tree-{hash(tree)}", on=on, seal=sealed
        )
        self.trees[self.number] = tree
        self.owners[self.number] = key
        self.entries[key] = replace(entry, candidate=made)

    def _apply(self, action: Action) -> None:
        match action:
            case Admit():
                self._admit(action)
            case Leave(entry=key):
                self._set(key, admitted_at=None, slot=None, batch=None)
            case Regroup(places=places):
                for place in places:
                    self._set(place.entry, batch=place.batch)
                    if place.slot is not None:
                        self._set(place.entry, slot=place.slot)
            case Prove(entry=key, build_no=number):
                self._set(key, build_no=number + 1)
                self._build(key, None)
            case Rebuild(entry=key, build_no=number, on=on, seal=seal):
                self._set(key, build_no=number + 1)
                self._build(key, on, seal)
            case SetWindow(size=size):
                self.window = size
            case Foresee(heads=heads):
                self._foresee(heads)
            case _:
                self._run_or_end(action)

    def _run_or_end(self, action: Action) -> None:
        match action:
            case StartRun(bead=key):
                self._gates(key)
            case StopRun(run=run):
                self._stop(run)
            case Land(cars=cars):
                for car in cars:
                    self._set(car.entry, landing=LandingView(1, car.candidate, LandingState.LANDED))
            case CloseEntry(entry=key, state=state):
                self._close(key, landed=state == EntryState.MERGED)
            case OpenRework(entry=key) | OpenConflict(entry=key) | Hold(entry=key):
                self._close(key, landed=False)
            case _:
                raise AssertionError(f"{action} does not happen here: heads do not move, and people do nothing")

    def _set(self, key: str, **columns: Any) -> None:
        self.entries[key] = replace(self.entries[key], **columns)

    def _admit(self, action: Admit) -> None:
        now = EPOCH + dt.timedelta(minutes=self.minute)
        attempts = self.entries[action.entry].attempts + 1
        self._set(
            action.entry,
            admitted_at=now,
            slot=action.slot,
            batch=action.batch,
            build_no=action.build_no + 1,
            attempts=attempts,
            candidate=None,
        )
        if action.build:
            self._build(action.entry, action.on)

    def _foresee(self, heads: tuple[str, ...]) -> None:
        """Git answers at once: who is somebody's rival."""
        number, asked = self.forecast.number + 1, frozenset(heads)
        rivals = ((h, self.changes[h].rival) for h in heads)
        clashes = tuple((rival, h, ("file",)) for h, rival in rivals if rival in asked)
        self.forecast = ForecastView(1, number, number, heads=asked, paired=asked, clashes=clashes)

    def _gates(self, key: str) -> None:
        entry = self.entries[key]
        assert entry.candidate is not None
        self.number += 1
        sha = entry.candidate.sha
        run = RunView(f"run-{self.number}", key, "gates", "queued", 1, EPOCH, rig=1, start_sha=sha, purpose="gates")
        self.entries[key] = replace(entry, runs=(*(r for r in entry.runs if r.live), run))
        self.running[run.id] = (key, entry.candidate.id)
        self.queued.append(run.id)

    def _start(self) -> None:
        """Free workers take the oldest queued runs."""
        waiting = []
        for run in self.queued:
            if run not in self.running:
                continue
            if self.busy >= self.load.workers:
                waiting.append(run)
                continue
            key, _ = self.running[run]
            self.busy += 1
            self.builds += 1
            self._push(self.minute + self.changes[key].minutes, "ends", run)
            entry = self.entries.get(key)
            if entry is not None:
                self.entries[key] = _with_run(entry, run, state=RunState.RUNNING)
        self.queued = waiting

    def _stop(self, run: str) -> None:
        key, _ = self.running.pop(run, ("", 0))
        if run in self.queued:
            self.queued.remove(run)
        elif key:
            self.busy -= 1
        entry = self.entries.get(key)
        if entry is not None:
            self.entries[key] = replace(entry, runs=tuple(r for r in entry.runs if r.id != run))

    def _close(self, key: str, *, landed: bool) -> None:
        entry = self.entries.pop(key, None)
        if entry is None:  # it was sent back in the same breath
            return
        for run in entry.runs:
            if run.live:
                self._stop(run.id)
        change = self.changes[key]
        if entry.attempts:
            self.ended.append(not landed)
        if landed:
            change.landed = self.minute
            self.landed.add(key)
        else:
            change.ejected = self.minute


def _with_run(entry: EntryView, key: str, **columns: Any) -> EntryView:
    """The entry, with other columns of one of its runs."""
    runs = {run.id: run for run in entry.runs}
    if key in runs:
        runs[key] = replace(runs[key], **columns)
    return replace(entry, runs=tuple(runs.values()))


def simulate(load: Load, strategy: Strategy) -> Outcome:
    """One strategy under a load, against the oracle."""
    simulation = Simulation(load, strategy)
    simulation.run()
    best = oracle(simulation.changes.values(), load.workers)
    ratios = sorted(
        (c.landed - c.arrived) / (best[c.id] - c.arrived) for c in simulation.changes.values() if c.landed is not None
    )
    wrongly = sum(1 for c in simulation.changes.values() if c.ejected is not None and not c.bad and not c.rival)
    count = len(ratios)

    def _at(share: float) -> float:
        if not ratios:
            return float("nan")
        return ratios[min(int(share * count), count - 1)]

    return Outcome(
        strategy.name,
        count,
        wrongly,
        simulation.builds,
        len(simulation.changes),
        _at(0.5),
        _at(0.95),
        _at(0.99),
        ratios,
    )
