"""The demo with real agents: as an operator types it, with a scripted model, and with what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents import launches
from agents.presets import PRESETS
from beads import config as configs
from tests.acceptance.test_installation import fresh as fresh
from tests.acceptance.test_installation import home as home
from tests.acceptance.test_installation import manage, postmasters, until


@pytest.mark.agents
@pytest.mark.parametrize("preset", ["claude", "codex"])
def test_the_demo_lands_both_convoys_with_real_agents(home: Path, preset: str) -> None:
    """No key is set: the model is scripted, which is said, and what it would cost is booked by the door."""
    if launches.found(configs.Config(), PRESETS[preset]) is None:
        pytest.skip(f"{preset} is not installed: make agents")
    done = manage(home, "demo", "--agents", preset, DEMO_EXIT="1", DEMO_HOME=str(home), DEMO_PACE="0.1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "their model is scripted: no call leaves this machine, and nothing is charged" in done.stdout
    assert "both convoys have landed" in done.stdout and "Land convoy: Town square" in done.stdout
    spent = next(line for line in done.stdout.splitlines() if line.startswith("models used: "))
    assert " USD, " in spent and "(scripted: nothing is charged)" in spent and "unknown" not in spent
    until(lambda: not postmasters(home))


@pytest.mark.long
def test_a_demo_whose_program_is_missing_makes_nothing(home: Path) -> None:
    done = manage(home, "demo", "--agents", "no-such-agent", DEMO_EXIT="1", DEMO_HOME=str(home))
    assert done.returncode == 1 and done.stdout == ""
    assert "'no-such-agent' is no preset: claude" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (home / "stage").exists() and not postmasters(home)
