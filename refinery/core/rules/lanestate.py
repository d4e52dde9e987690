"""What a tick knows of refineries and of a lane while it decides about one entry after the other. Pure."""

from __future__ import annotations

from refinery.core.actions import Action, SetWindow, StartRun
from refinery.core.budgets import waits
from refinery.core.entryviews import EntryView
from refinery.core.order import is_feature_lane
from refinery.core.rules.rework import Start
from refinery.core.stacks import uncompared
from refinery.core.trains import gating_room, groups, landing_cars, new_batches
from refinery.core.world import RigView, World


class Refineries:
    """What refineries are at, and what this tick starts: one has at most `refinery.max_reviews` live runs, whatever
    they are for. A convoy's own serves its lane; the rig's serves all other lanes."""

    def __init__(self, world: World) -> None:
        self._budgets = world.budgets
        self._runs = {key: list(runs) for key, runs in world.refinery_runs.items()}

    def busy(self, entry: EntryView, rig: RigView) -> str:
        """Why the refinery that serves this entry can begin nothing now, or an empty string."""
        if cap := self._budgets.held(entry.account):
            return waits(cap)
        at, most = self._at(entry), rig.config.refinery.max_reviews
        if len(at) < most:
            return ""
        return f"its refinery is at {', '.join(at)}: refinery.max_reviews is {most}"

    def starter(self, entry: EntryView, rig: RigView) -> Start | None:
        """What starts a run of the refinery that serves this entry; None while it can begin nothing."""
        if self.busy(entry, rig):
            return None
        return self.start

    def start(self, entry: EntryView, rig: RigView, purpose: str, sha: str) -> StartRun:
        """A run of the refinery that serves this entry."""
        self._at(entry).append(f"the {purpose} of {entry.id}")
        return StartRun(entry.id, "refinery", purpose, sha, at_most=rig.config.refinery.max_reviews)

    def _at(self, entry: EntryView) -> list[str]:
        convoy = None
        if is_feature_lane(entry):
            convoy = entry.convoy
        return self._runs.setdefault((entry.rig, convoy), [])


class Lane:
    """What one tick's decisions in a lane share: who lands together, who is reviewed, the window as it changes."""

    def __init__(
        self, world: World, rig: RigView, target: str, entries: list[EntryView], refineries: Refineries
    ) -> None:
        self.world, self.rig, self.target, self.refineries = world, rig, target, refineries
        self.landing = landing_cars(entries, rig, world.now, lambda e: uncompared(world, e))
        self._slot = max((e.slot or 0.0 for e in entries), default=0.0)
        self._batches = new_batches(entries, odd=True)
        self.frozen = world.frozen(rig.id, target)
        self.window = world.window(rig.id, target)
        train = groups(e for e in entries if e.admitted)
        self.ahead = {e.id for group in train[gating_room(train, rig, world.now, self.window) :] for e in group}
        self.checked = (rig.id, target) in world.known  # there is a check of its target, or one is opened
        self.trying = any(e.live_run("gates") for e in entries)

    def widen(self) -> tuple[Action, ...]:
        """A car has landed: the window grows by one."""
        return self._set(min(self.window + 1, self.rig.config.refinery.train.window))

    def narrow(self) -> tuple[Action, ...]:
        """A car has failed: the window halves."""
        return self._set(max(self.window // 2, 1))

    def next_slot(self) -> float:
        """A place behind all others, and ahead of who is admitted in the same tick: they get the next whole ones."""
        self._slot += 1 / 1024
        return self._slot

    def next_batch(self) -> int:
        """A number that no batch of the train has."""
        return next(self._batches)

    def _set(self, size: int) -> tuple[Action, ...]:
        if size == self.window:
            return ()
        self.window = size
        return (SetWindow(self.rig.id, self.target, size),)
