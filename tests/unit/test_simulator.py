"""The simulator plays the outside of the production plan: what it says must be what the plan would do."""

from __future__ import annotations

import pytest

from refinery.core.loads import Load, Strategy, arrivals, oracle
from refinery.core.simulator import simulate

LOAD = Load(per_hour=40, workers=60, hours=2, failing=0.1, seed=3)
STRATEGIES = ["serial", "train:4", "train:30", "batch:8", "train:8+batch:4", "alone+train:4+batch:8"]


def test_the_same_seed_gives_the_same_figures() -> None:
    assert simulate(LOAD, Strategy(8)).ratios == simulate(LOAD, Strategy(8)).ratios


@pytest.mark.parametrize("strategy", [Strategy.parse(s) for s in STRATEGIES], ids=STRATEGIES)
def test_the_good_all_land_the_bad_all_leave_and_nobody_innocent_is_punished(strategy: Strategy) -> None:
    found = simulate(LOAD, strategy)
    assert found.ejected_wrongly == 0
    assert found.landed == len(oracle(arrivals(LOAD), LOAD.workers))
    assert min(found.ratios) >= 1.0 - 1e-9  # nobody beats the oracle


def test_a_wider_window_lands_sooner_and_a_serial_queue_builds_once() -> None:
    serial, train = simulate(LOAD, Strategy()), simulate(LOAD, Strategy(20))
    assert train.p95 < serial.p95 / 3
    assert serial.builds_per_change == 1.0


def test_a_change_that_conflicts_leaves_and_its_rival_lands() -> None:
    found = simulate(Load(per_hour=30, workers=60, hours=2, failing=0, conflicting=0.3, seed=5), Strategy(8))
    assert found.ejected_wrongly == 0
    assert found.landed < found.changes
