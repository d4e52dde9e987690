"""Restarts while agents are at work: of everything but the machine, and of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.living import Living
from tests.acceptance.test_installation import until

BEADS = 3
Make = Callable[..., Living]


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Make]:
    """Makes an installation whose polecats are at work and wait for `tmp_path / "signals" / "release"`."""
    made: list[Living] = []

    def make(**dispatch: Any) -> Living:
        town = Living(tmp_path, tmp_path / "signals" / "release", **dispatch)
        made.append(town)
        town.more(rigs=1, beads=BEADS, convoys=0)
        town.start()
        until(lambda: len(list(town.home.glob("work*/**/draft.txt"))) == BEADS)
        return town

    yield make
    for town in made:
        town.close()


@pytest.mark.long
def test_r26_live_runs_go_on_through_a_restart_of_everything_and_no_attempt_is_used(
    living: Make, tmp_path: Path
) -> None:
    town = living(lease="60s")
    live = "select id, pid from agents_run where state = 'running' order by id"
    runs, shims = town.rows(live), set(town.shims())
    assert len(runs) == len(shims) == BEADS
    town.kill_all_parts()  # a crash of all at once
    moment = town.rows("select now()")[0][0]
    until(lambda: _beaten(town, moment) == BEADS)
    assert (town.rows(live), set(town.shims())) == (runs, shims)
    town.stop()  # a deploy: SIGTERM, PostgreSQL included, and up again
    assert set(town.shims()) == shims
    town.start()
    moment = town.rows("select now()")[0][0]
    until(lambda: _beaten(town, moment) == BEADS)
    assert (town.rows(live), set(town.shims())) == (runs, shims)
    (tmp_path / "signals" / "release").touch()
    town.await_quiet(90)
    town.check_landed()
    ended = town.rows("select id, attempt, outcome, start_error from agents_run where kind = 'polecat' order by id")
    assert ended == [(run, 1, "done", "") for run, _ in runs]


@pytest.mark.long
def test_after_a_reboot_runs_are_fenced_and_retried_without_using_up_attempts(living: Make, tmp_path: Path) -> None:
    town = living(lease="4s")
    before = [run for (run,) in town.rows("select id from agents_run where state = 'running' order by id")]
    town.pull_the_plug()
    town.start()
    (tmp_path / "signals" / "release").touch()
    town.await_quiet(120)
    town.check_landed()
    told = town.rows("select id, attempt, outcome from agents_run where kind = 'polecat' order by attempt, id")
    assert [row for row in told if row[1] == 1] == [(run, 1, "lost") for run in before]
    assert [(attempt, outcome) for _, attempt, outcome in told if attempt > 1] == [(2, "done")] * BEADS
    for run in before:  # what the cut had left uncommitted was kept
        assert town.salvaged(run, "draft.txt") == "not committed yet\n"


def test_a_train_that_is_killed_on_its_way_lands_each_change_once(tmp_path: Path) -> None:
    """Every process dies at once while the gates of eight cars run; after that, while they land."""
    town = Living(tmp_path, refinery={"gates": ["sleep 2"], "code_review": False, "train": {"window": 8}}, lease="4s")
    try:
        town.more(rigs=1, beads=8, convoys=0)
        town.start()
        gating = "select count(distinct bead_id) from agents_run where kind = 'gates' and state = 'running'"
        until(lambda: town.rows(gating)[0][0] >= 3)
        town.pull_the_plug()
        town.start()
        until(lambda: town.rows("select count(*) from refinery_landing where state in ('pushing', 'landed')")[0][0])
        town.pull_the_plug()
        town.start()
        town.await_quiet(150)
        town.check_landed()
    finally:
        town.close()


def _beaten(town: Living, since: Any) -> int:
    return sum(at is not None and at > since for (at,) in town.rows(
        "select heartbeat_at from agents_run where state = 'running'"))  # fmt: skip
