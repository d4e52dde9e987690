"""A model for each bead: who says it, what wins, who is started with it, and what is refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.models import Bead
from refinery.decisions import work
from tests.db.conftest import SHA, Place

ANN = Actor("cli", "ann")
CLAUDE = {"preset": "claude", "model": "sonnet", "models": {"p0": "urgent", "rework": "again"}}


def presets(place: Place, polecat: dict[str, Any] | None = None) -> None:
    """The town's agents are presets from now on."""
    agents = {"polecat": polecat or CLAUDE, "refinery": {"preset": "claude", "model": "judge"}}
    told = configs.validate({"agents": agents, "refinery": {"gates": ["true"], "triage": "off"}})
    ledger.set_config(place.town, told)
    place.town.refresh_from_db()
    place.rig.refresh_from_db()


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """One command's data."""
    call_command(*words, "--json")
    return json.loads(capsys.readouterr().out)["data"]


def model_of(bead: Bead) -> str:
    """What the bead's latest run is started with."""
    return str(Run.objects.filter(bead=bead).latest("created_at").steps[0]["model"])


def test_the_beads_own_model_wins_over_the_configs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    presets(place)
    own = asked(capsys, "sling", "proj", "--title", "Own", "--priority", "0", "--model", "opus")["id"]
    urgent = asked(capsys, "sling", "proj", "--title", "Urgent", "--priority", "0")["id"]
    plain = asked(capsys, "sling", "proj", "--title", "Plain")["id"]
    place.tick()
    assert [model_of(Bead.objects.get(pk=key)) for key in (own, urgent, plain)] == ["opus", "urgent", "sonnet"]
    assert asked(capsys, "bead", "show", own)["model"] == "opus"


def test_rework_goes_by_it_and_the_refinery_by_its_own(place: Place) -> None:
    """What blocks an entry is the same work; who judges it is another program."""
    presets(place)
    bead = work.sling(place.rig, ledger.Draft("Work", model="opus"), by=ANN)
    place.tick()
    run, _ = place.running(kind="polecat")
    place.say(run, "run.done", summary="done")
    place.exit(run, head=SHA["a"])
    place.tick()
    entry = bead.entries.get()
    place.built(entry)
    place.gated()
    review = Run.objects.get(kind="refinery")
    assert review.steps[0]["model"] == "judge"
    place.start(review)
    place.say(review, "run.request_changes", feedback="Again", items=[])
    place.exit(review)
    place.tick()
    rework = Run.objects.get(purpose="rework")
    assert rework.bead.model == "" and rework.steps[0]["model"] == "opus"


def test_a_person_changes_it_and_the_next_run_has_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    presets(place)
    bead = work.sling(place.rig, ledger.Draft("Work"), by=ANN)
    call_command("bead", "model", bead.pk, "--model", "opus", "--reason", "it is hard")
    assert "is worked on with opus from its next run on" in capsys.readouterr().out
    place.tick()
    bead.refresh_from_db()
    assert bead.model == "opus" == model_of(bead)
    told = bead.events.get(kind="model_set")
    assert (told.reason, told.data) == ("it is hard", {"model": "opus", "old": ""})
    with pytest.raises(Conflict, match="with opus already"):
        work.bead_model(bead, by=ANN, model="opus")
    work.bead_model(bead, by=ANN)
    place.tick()
    bead.refresh_from_db()
    assert bead.model == ""


def test_a_plan_says_it_for_its_beads(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    presets(place)
    plan = tmp_path / "plan.toml"
    plan.write_text('[[beads]]\nkey = "a"\ntitle = "A"\nmodel = "opus"\n[[beads]]\nkey = "b"\ntitle = "B"\n')
    made = asked(capsys, "convoy", "create", "proj", "--title", "Two", "--file", str(plan))["beads"]
    assert [Bead.objects.get(pk=made[key]).model for key in "ab"] == ["opus", ""]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("two words", "is no name of a model: one word"),
        ("--dangerously", "is no name of a model: one word"),
        ("a\u202eb", "is no name of a model: one word"),
        ("x" * 201, "at most 200 characters"),
    ],
)
def test_what_is_no_name_of_a_model_is_refused_everywhere(place: Place, name: str, why: str) -> None:
    presets(place)
    bead = place.bead()
    with pytest.raises(Invalid, match=why) as refused:
        work.sling(place.rig, ledger.Draft("Work", model=name), by=ANN)
    assert refused.value.details["field"] == "model"
    with pytest.raises(Invalid, match=why):
        work.bead_model(bead, by=ANN, model=name)
    with pytest.raises(Invalid, match=why):
        configs.validate({"agents": {"polecat": {"preset": "claude", "model": name}}})


@pytest.mark.parametrize(
    ("polecat", "why"),
    [
        ({"preset": "opencode", "model": "openai/x"}, "opencode takes provider/model, such as anthropic/opus"),
        ({"preset": "mini", "model": "openai/x"}, "mini takes provider/model"),
        ({"command": ["work"]}, "the polecats of rig proj are a command, which takes no model"),
    ],
)
def test_what_the_rigs_agent_cannot_take_is_said_at_once(place: Place, polecat: dict[str, Any], why: str) -> None:
    presets(place, polecat)
    with pytest.raises(Invalid, match=why):
        work.sling(place.rig, ledger.Draft("Work", model="opus"), by=ANN)
    plan = [{"key": "a", "title": "A", "body": "", "priority": 2, "after": [], "rig": place.rig, "model": "opus"}]
    with pytest.raises(Invalid, match=f"a: model: {why}"):
        work.create_convoy(place.rig, by=ANN, title="One", plan=plan)
    assert not Bead.objects.exists()
