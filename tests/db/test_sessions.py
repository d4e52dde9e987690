"""Which session a run goes on with, by its rows: the same work, part, preset and model, and a name that is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import sessions
from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.models import Bead
from tests.db.conftest import Place

NAME = "84d74ca7-fe90-4684-9ff5-d15f768b2406"


@pytest.fixture
def town(place: Place, settings: Any, tmp_path: Path) -> Place:
    settings.GASTOWN_HOME = str(tmp_path)
    return opened(place)


def opened(place: Place, **role: Any) -> Place:
    """Its polecat and refinery are `claude`, in whatever box the machine has."""
    told = {"preset": "claude", **role}
    config = {"agents": {"polecat": told, "refinery": told}, "sandbox": {"mode": role.pop("sandbox", "required")}}
    ledger.set_config(place.rig, configs.validate(config))
    place.rig.refresh_from_db()
    return place


def ran(place: Place, bead: Bead, session: str = NAME, **more: Any) -> Run:
    """A run of the bead's that has ended, having named its session, of which something is kept."""
    step = {"name": "agent", "preset": more.pop("preset", "claude"), "model": more.pop("model", "")}
    kind, purpose = more.pop("kind", "polecat"), more.pop("purpose", "work")
    told = {"state": "ended", "outcome": "done", "claimed_at": place.now, "ended_at": place.now, "session": session}
    number = Run.objects.filter(bead=bead, kind=kind).count() + 1
    own = {"town": place.town, "rig": place.rig, "bead": bead, "account": bead, "kind": kind, "purpose": purpose}
    run = Run.objects.create(**own, attempt=number, steps=[step], target="main", **{**told, **more})
    part = sessions.part_of(kind, purpose)
    (sessions.root() / bead.pk / part / step["preset"] / "store").mkdir(parents=True, exist_ok=True)
    return run


def now(place: Place, bead: Bead, **more: Any) -> sessions.Going | None:
    """With what a run begins that is made now."""
    run = ran(place, bead, "", state="queued", outcome="", claimed_at=None, ended_at=None, **more)
    run.rig.town = place.town
    return sessions.going(run)


def name(place: Place, bead: Bead, **more: Any) -> str:
    going = now(place, bead, **more)
    assert going is not None
    return going.name


def test_a_run_goes_on_with_the_latest_of_its_work(town: Place) -> None:
    bead, other = town.bead(), town.bead("Other")
    ran(town, bead, "older")
    ran(town, bead)
    going = now(town, bead, purpose="rework")
    assert going is not None and (going.name, going.parts) == (NAME, (".claude/projects",))
    assert going.place == sessions.root() / bead.pk / "polecat" / "claude"
    assert name(town, other) == ""


def test_its_parts_are_conversations_of_their_own(town: Place) -> None:
    bead = town.bead()
    ran(town, bead, "of-the-triage", kind="refinery", purpose="triage")
    ran(town, bead, "of-the-work")
    assert name(town, bead, kind="refinery", purpose="review") == ""
    parts = {sessions.part_of("refinery", purpose) for purpose in ("review", "triage", "resolve")}
    assert len(parts) == 3
    assert len({sessions.part_of("polecat", purpose) for purpose in ("work", "rework", "conflict")}) == 1


def test_not_with_another_model_or_preset(town: Place) -> None:
    bead = town.bead()
    ran(town, bead, model="opus")
    going = now(town, bead, model="sonnet")
    assert going is not None and (going.name, going.because) == ("", "another preset or model")


@pytest.mark.parametrize("said", ["--model=evil", "a b", "../../x", "x" * 101, "-x", "$(id)", ""])
def test_what_is_no_name_is_none(town: Place, said: str) -> None:
    bead = town.bead()
    ran(town, bead, said)
    going = now(town, bead)
    assert going is not None and (going.name, going.because) == ("", "it has named none")


def test_who_fails_going_on_begins_anew_and_then_goes_on_again(town: Place) -> None:
    bead = town.bead()
    ran(town, bead)
    ran(town, bead, outcome="failed", resumed=NAME)
    going = now(town, bead)
    assert going is not None and going.name == "" and "has failed going on with it" in going.because
    Run.objects.filter(state="queued").delete()
    ran(town, bead, "", outcome="failed")  # which has died before it named one
    going = now(town, bead)
    assert going is not None and going.name == "" and "has failed going on with it" in going.because
    Run.objects.filter(state="queued").delete()
    ran(town, bead, "anew", outcome="failed")
    assert name(town, bead) == "anew"


def test_who_was_stopped_or_lost_goes_on(town: Place) -> None:
    bead = town.bead()
    ran(town, bead, outcome="stopped", resumed=NAME)
    ran(town, bead, "", outcome="lost", resumed=NAME)
    ran(town, bead, "", outcome="start_failed", claimed_at=None)
    assert name(town, bead) == NAME


def test_fresh_means_fresh(town: Place) -> None:
    opened(town, sessions="fresh")
    bead = town.bead()
    ran(town, bead)
    going = now(town, bead)
    assert going is not None and (going.name, going.because) == ("", "sessions = fresh")


def test_what_was_not_kept_is_not_gone_on_with(town: Place) -> None:
    bead = town.bead()
    run = ran(town, bead)
    (sessions.root() / bead.pk / "polecat" / "claude" / "store").rmdir()
    Run.objects.filter(pk=run.pk).update(state="ended")
    made = Run.objects.create(
        town=town.town, rig=town.rig, bead=bead, account=bead, kind="polecat", purpose="work", attempt=9,
        steps=[{"name": "agent", "preset": "claude", "model": ""}], target="main",
    )  # fmt: skip
    going = sessions.going(made)
    assert going is not None and (going.name, going.because) == ("", "its session was not kept")


@pytest.mark.parametrize(("preset", "goes_on"), [("claude", False), ("codex", True)])
def test_without_a_sandbox_only_where_it_is_found_from_another_path(
    town: Place, monkeypatch: pytest.MonkeyPatch, preset: str, goes_on: bool
) -> None:
    monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    opened(town, preset=preset)
    bead = town.bead()
    ran(town, bead, preset=preset)
    assert bool(name(town, bead, preset=preset)) is goes_on


def test_a_command_and_mini_have_none(town: Place) -> None:
    bead = town.bead()
    assert now(town, bead, preset="mini") is None
    made = Run.objects.filter(state="queued").get()
    made.steps = [{"name": "agent", "argv": ["true"]}]
    assert sessions.going(made) is None
