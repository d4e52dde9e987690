"""What is said of time and of places in a lane is true at the moment at which it is said."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

import pytest

from beads.config import effective, validate
from refinery.core.actions import Escalate, NudgeRun, StopRun
from refinery.core.beadviews import RunView
from refinery.core.entryviews import CandidateView, EntryView, LandingView, LaneView
from refinery.core.rules import plan
from refinery.core.trains import couple
from refinery.core.world import RigView, World
from tests.unit.test_rules import AGENTS, ENTRY, NOW, config, world

QUICK = {"nudge": "15s", "escalate": "40s", "stop": "90s"}


@pytest.mark.parametrize(
    ("limits", "idle", "words"),
    [
        (QUICK, 15.4, "15s"),
        (QUICK, 59.9, "59s"),
        (QUICK, 61, "1m1s"),
        (QUICK, 95, "1m35s"),
        ({"nudge": "200ms", "escalate": "1h", "stop": "2h"}, 0.25, "250ms"),
        ({"nudge": "15m", "escalate": "1h", "stop": "2h"}, 900, "15m"),
        ({"nudge": "15m", "escalate": "1h", "stop": "2h"}, 3600 + 125, "1h2m"),
    ],
)
def test_p7_a_patrol_tells_the_true_time(limits: dict[str, str], idle: float, words: str) -> None:
    rig = RigView(1, "proj", "main", effective(validate({"patrol": limits, "agents": AGENTS}), {}))
    quiet = NOW - dt.timedelta(seconds=idle)
    run = RunView("run-1", "gt-b", "polecat", "running", 1, quiet, rig=1, activity_at=quiet, lease_until=NOW)
    (decision,) = plan(replace(world(runs=(run,)), rigs={1: rig}))
    assert decision.why == f"no activity for {words}"
    (action,) = decision.actions
    said = {NudgeRun: "message", Escalate: "body", StopRun: "reason"}[type(action)]
    assert f"no activity for {words}" in getattr(action, said)


def train(window: int, landing: int, gating: int, batch: int = 1) -> list[EntryView]:
    """A lane's cars: so many groups that are only pushed in front of so many that are gated; one waits for a place."""
    made: list[EntryView] = []
    for group in range(landing + gating):
        for _ in range(batch):
            n = len(made)
            built = CandidateView(n + 1, 1, "built", f"h{n}", "base", f"c{n}", f"t{n}", on=n or None)
            run = RunView(f"run-{n}", f"gt-{n}", "gates", "running", 1, NOW, rig=1, start_sha=f"c{n}", lease_until=NOW)
            pushed = group < landing
            made.append(
                replace(
                    ENTRY,
                    id=f"gt-{n}",
                    branch=f"b{n}",
                    head=f"h{n}",
                    slot=float(n),
                    batch=group + 1 if batch > 1 else None,
                    candidate=built,
                    landing=LandingView(n, n + 1, "pushing") if pushed else None,
                    runs=() if pushed else (run,),
                )
            )
    waits = replace(ENTRY, id="gt-w", branch="w", head="w", admitted_at=None, build_no=0)
    return [*made, waits]


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("landing", [0, 1, 3])
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_lane_never_says_nine_of_eight_cars(window: int, landing: int, ahead: int, waits: bool, batch: int) -> None:
    ahead = 0 if batch > 1 else min(ahead, window - 1)  # nothing is built ahead of a serial lane, nor of batches
    entries = train(window, landing, window + ahead, batch)
    settings = config(train={"window": 8}, batch={"max": batch})
    rig = RigView(1, "proj", "main", settings)
    told = World(NOW, "main", rigs={1: rig}, lanes={(1, "main"): LaneView(window=window)})
    told = replace(told, entries=tuple(couple(entries if waits else entries[:-1], {1: rig})))
    (lane,) = [d for d in plan(told) if d.subject == "lane proj main"]
    if lane.rule == "admit":
        return  # it has a place to give
    count, of = re.match(r"(\d+) of (\d+) cars", lane.why).groups()  # type: ignore[union-attr]
    assert (int(count), int(of)) == (window, window)
    assert (f", {landing} only to be pushed" in lane.why) is (landing > 0)
    assert (f", {ahead} built ahead" in lane.why) is (ahead > 0)
