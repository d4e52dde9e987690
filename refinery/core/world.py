"""Everything a rule may see, as frozen dataclasses. Pure; what is derived from it lives in `refinery.core.stages`.

`None` in an observed field means *unknown*, which is never taken for fine, absent or dead.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from beads.config import Config, MergeStrategy
from beads.lifecycle import EffectState, Purpose
from refinery.core.beadviews import BeadView, RunView
from refinery.core.budgets import Budgets
from refinery.core.convoyviews import ConvoyView
from refinery.core.entryviews import (
    EntryView,
    GateView,
    LaneView,
)
from refinery.core.outageviews import EffectView, OutageView
from refinery.core.pullviews import HostView, PullView
from refinery.core.questions import AskedView
from refinery.core.relations import KnownCheck
from refinery.core.requestviews import RequestView
from refinery.core.stages import Standing

BREAKER_WINDOW = dt.timedelta(minutes=30)
BREAKER_LIMIT = 20
BREAKER_PROBE = dt.timedelta(minutes=5)
STALE = dt.timedelta(minutes=5)  # older is what was last seen of a host, and so unknown
FENCE_MARGIN = dt.timedelta(seconds=15)
_NEW_LANE = LaneView()


@dataclass(frozen=True, slots=True)
class RigView:
    """A rig with its effective config."""

    id: int
    slug: str
    default_branch: str
    config: Config
    parked: bool = False
    problems: tuple[str, ...] = ()
    outage: OutageView | None = None
    host: HostView | None = None  # of its pull requests; None: reviews are on pages of ours
    repository: str = ""  # there

    def unknown(self, now: dt.datetime) -> str:
        """Why it is not known what people say of its changes on their host; empty where it is, or where none is."""
        if self.host is None or self.config.refinery.merge_strategy != MergeStrategy.PR:
            return ""
        if self.host.trouble:
            return f"what people say of it is not known: {self.host.trouble}"
        late = max(self.config.pr.poll_interval * 3, STALE)
        if self.host.polled_at is None or now - self.host.polled_at > late:
            return "what people say of it is not known: its host was not asked lately"
        return ""


@dataclass(frozen=True, slots=True)
class CheckView:
    """A lane's active check: its target's own head before the gates. It is in no queue and no train.

    `entry`: its row, with the results and runs since it was asked for, at `asked_at`. `latest`: of each gate the latest
    result, also from before.
    """

    entry: EntryView
    asked_at: dt.datetime
    latest: tuple[GateView, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentView:
    """A refinery that serves a convoy and is not retired."""

    id: int
    convoy: str
    convoy_ended: bool
    convoy_reviewed: bool
    busy: bool


@dataclass(frozen=True)
class World:
    """One town at one moment."""

    now: dt.datetime
    town: str
    paused: bool = False
    paused_reason: str = ""
    rigs: Mapping[int, RigView] = field(default_factory=dict)
    beads: tuple[BeadView, ...] = ()
    requests: tuple[RequestView, ...] = ()  # of the mayor
    entries: tuple[EntryView, ...] = ()
    checks: tuple[CheckView, ...] = ()
    known: Mapping[tuple[int, str], KnownCheck] = field(default_factory=dict)  # what is known of a lane's check
    convoys: tuple[ConvoyView, ...] = ()
    runs: tuple[RunView, ...] = ()
    final_beads_with_live_runs: frozenset[str] = frozenset()
    refineries: tuple[AgentView, ...] = ()
    lanes: Mapping[tuple[int, str], LaneView] = field(default_factory=dict)
    refinery_runs: Mapping[tuple[int, str | None], tuple[str, ...]] = field(default_factory=dict)
    failures_in_a_row: int = 0
    last_failure_at: dt.datetime | None = None
    needs: frozenset[str] = frozenset()  # the keys of open escalations
    escalated: frozenset[str] = frozenset()  # theirs, and those of what was told about beads that still live
    asked: Mapping[str, AskedView] = field(default_factory=dict)  # of people, by the bead that it is about
    effects: Mapping[str, EffectView] = field(default_factory=dict)
    pulls: tuple[PullView, ...] = ()
    behind: bool = False
    budgets: Budgets = field(default_factory=Budgets)
    no_room: str = ""  # why what writes has to wait
    # by entry; written by `refinery.core.standing.stands` alone, and empty again in a copy
    stood: dict[str, Standing] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def convoy(self) -> dict[str, ConvoyView]:
        """Live convoys by id."""
        return {c.id: c for c in self.convoys}

    @cached_property
    def held(self) -> list[BeadView]:
        """What people have stopped, oldest first."""
        return sorted((b for b in self.beads if b.hold), key=lambda b: (b.created_at, b.id))

    @cached_property
    def entry_of_source(self) -> dict[str, EntryView]:
        """Active entries by source bead."""
        return {e.source: e for e in self.entries if e.source}

    @cached_property
    def entry(self) -> dict[str, EntryView]:
        """Active entries by id."""
        return {e.id: e for e in self.entries}

    @cached_property
    def check(self) -> dict[str, CheckView]:
        """Active checks by id."""
        return {c.entry.id: c for c in self.checks}

    @property
    def breaker_open(self) -> bool:
        """True when so many runs in a row failed lately, none succeeding, that dispatch pauses by itself."""
        return self.failures_in_a_row >= BREAKER_LIMIT

    @property
    def probe_due(self) -> bool:
        """True when the open breaker lets one run through, to see whether the cause is gone."""
        quiet = self.last_failure_at is None or self.now >= self.last_failure_at + BREAKER_PROBE
        return self.breaker_open and quiet and not any(r.kind != "gates" for r in self.runs)

    def window(self, rig: int, target: str) -> int:
        """How many cars a lane's train may have now."""
        most = self.rigs[rig].config.refinery.train.window
        now = self.lane(rig, target).window
        check = self.known.get((rig, target))
        if check is not None and check.hopeless:
            return 1  # one at a time tries, for no gate at all can be run on the target
        if now is None:
            return most
        return max(min(now, most), 1)

    def lane(self, rig: int, target: str) -> LaneView:
        """What is remembered of a lane; where that is nothing, a lane of which nothing is known."""
        return self.lanes.get((rig, target), _NEW_LANE)

    def broken(self, rig: int, target: str) -> bool:
        """True when a gate is known not to pass on a lane's target itself."""
        check = self.known.get((rig, target))
        return check is not None and bool(check.broken)

    def frozen(self, rig: int, target: str) -> str:
        """Why nothing lands in a lane now, or an empty string."""
        return self.lane(rig, target).frozen

    def stopped(self, rig: RigView) -> str:
        """Why nothing is begun in a rig now: the town is paused, or the rig is parked. Or an empty string."""
        if self.paused:
            return f"town {self.town} is paused: {self.paused_reason or 'no reason given'}"
        if rig.parked:
            return f"rig {rig.slug} is parked"
        return ""

    def tip(self, rig: int, target: str) -> str:
        """The commit at which a lane's target was last seen; empty when it is not followed."""
        forecast = self.lane(rig, target).forecast
        if forecast is None:
            return ""
        return forecast.tip

    def unanswered(self, key: str) -> bool:
        """True when outside work that was asked for is not under way and its answer is not here: it was lost.

        While facts wait to be drained, nothing is known to be lost.
        """
        found = self.effects.get(key)
        return not self.behind and (found is None or found.state != EffectState.PENDING)

    def account_of(self, bead: BeadView) -> str:
        """The bead whose money is spent on this one: of a rework or conflict, that of the entry that it is for."""
        entry = self.entry.get(bead.parent or "")
        if entry is None or bead.purpose == Purpose.WORK:
            return bead.id
        return entry.account

    def target_of(self, bead: BeadView) -> str:
        """The branch a bead's change is for."""
        convoy = self.convoy.get(bead.convoy or "")
        if convoy and convoy.lands_once and (branch := convoy.branch_in(bead.rig)):
            return branch.name
        return self.rigs[bead.rig].default_branch
