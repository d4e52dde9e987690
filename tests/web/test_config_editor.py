"""The config in the console: refused naming the key, shown as a diff, saved as a version, never over another's."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.test import Client

from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.models import ConfigVersion, Fact, Rig, Town
from refinery.console.config_editor import config_text
from refinery.decisions import towns
from tests.db.conftest import Place

TEXT = '# why so slow\n[refinery]\ngates = ["make test"]\n'


def path(row: Town | Rig) -> str:
    return f"/admin/beads/{row._meta.model_name}/{row.pk}/config/"


def post(client: Client, row: Town | Rig, step: str, text: str = TEXT, **more: str) -> Any:
    return client.post(path(row), {"step": step, "text": text, "reason": "slow gates", "base": "0", **more})


@pytest.mark.django_db
def test_the_diff_is_shown_and_nothing_is_saved_yet(place: Place, operator: Client) -> None:
    answer = post(operator, place.rig, "diff")
    text = answer.content.decode()
    assert answer.status_code == 200
    assert '<div class="add">+gates = [&quot;make test&quot;]</div>' in text
    assert Rig.objects.get().config == {}
    assert not ConfigVersion.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.mark.django_db
def test_what_is_saved_is_a_version_with_who_when_why_old_and_new(place: Place, operator: Client) -> None:
    before = Town.objects.get().config
    text = configs.to_toml(before).replace("code_review = false", "code_review = true")
    assert post(operator, place.town, "save", text.replace("\n", "\r\n")).status_code == 302
    version = ConfigVersion.objects.get()
    assert (version.town, version.rig, version.number) == (place.town, None, 1)
    assert (version.who, version.why, version.old) == ("admin:olga", "slow gates", before)
    assert version.new == Town.objects.get().config
    assert version.new["refinery"]["code_review"] is True
    assert version.text == text
    fact = Fact.objects.get(kind="config.set")
    assert (fact.actor, fact.payload["reason"]) == ("admin:olga", "slow gates")
    assert LogEntry.objects.get().get_change_message() == "Config version 1: slow gates"
    place.tick()
    assert not Fact.objects.filter(processed_at=None).exists()


@pytest.mark.django_db
def test_comments_survive_until_somebody_writes_otherwise(place: Place, operator: Client) -> None:
    post(operator, place.rig, "save")
    assert config_text(Rig.objects.get()) == TEXT
    ledger.set_config(place.rig, {"refinery": {"pop_limit": 2}}, who="test", why="by hand")
    assert config_text(Rig.objects.get()) == "[refinery]\npop_limit = 2\n"


REFUSED = {
    "unknown key": ("[refinery]\ngate = 1\n", "config: unknown key refinery.gate; did you mean refinery.gates?"),
    "wrong type": ("[dispatch]\nlease = 5\n", "config: dispatch.lease: expected a duration"),
    "not TOML": ("[refinery\n", "config: not TOML"),
    "unusable": ("[refinery]\ngates = []\n", "refinery.code_review is false and refinery.gates is empty"),
    "together": ("[dispatch]\nheartbeat = '50s'\n", "lease must be at least twice the heartbeat"),
    "unchanged": ("", "Nothing changes"),
    "NUL": ("[refinery]\ngates = ['a\x00']\n", "config: not TOML"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("step", ["diff", "save"])
@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_wrong_is_refused_naming_the_key(place: Place, operator: Client, case: str, step: str) -> None:
    text, said = REFUSED[case]
    answer = post(operator, place.rig, step, text)
    shown = answer.content.decode().replace("&#x27;", "'").replace("&quot;", '"')
    assert answer.status_code == 400
    assert said in shown
    assert (text.replace("\x00", "") in shown.replace("\x00", "")) or text == ""
    assert Rig.objects.get().config == {}
    assert not ConfigVersion.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_reason_is_required(place: Place, operator: Client, reason: str) -> None:
    answer = post(operator, place.rig, "save", reason=reason)
    assert answer.status_code == 400
    assert "reason is" in answer.content.decode()
    assert not ConfigVersion.objects.exists()


@pytest.mark.django_db
def test_a_town_may_not_make_its_rigs_unusable(place: Place, operator: Client) -> None:
    answer = post(operator, place.town, "save", "[refinery]\ncode_review = false\n")
    assert answer.status_code == 400
    assert "rig proj could not be used any more" in answer.content.decode()
    assert Town.objects.get().config["refinery"]["gates"]


@pytest.mark.django_db
def test_a_rig_that_is_unusable_already_does_not_stop_its_town(place: Place) -> None:
    ledger.set_config(place.rig, {"refinery": {"gates": []}})
    towns.set_config(place.town, by=Actor("", "test"), text="[refinery]\ncode_review = false\n", reason="other rigs")
    assert Town.objects.get().config == {"refinery": {"code_review": False}}


@pytest.mark.django_db
@pytest.mark.parametrize("base", ["0", "7", "-1", "", "x"])
def test_nobody_saves_over_anothers_change(place: Place, operator: Client, base: str) -> None:
    ledger.set_config(place.rig, {"refinery": {"pop_limit": 2}}, who="dora", why="first")
    answer = post(operator, place.rig, "save", base=base)
    assert answer.status_code == 400
    assert "changed meanwhile" in answer.content.decode() or "number of a version" in answer.content.decode()
    assert Rig.objects.get().config == {"refinery": {"pop_limit": 2}}
    assert ConfigVersion.objects.count() == 1


@pytest.mark.django_db
def test_the_command_keeps_versions_too(place: Place, tmp_path: Any, capsys: Any) -> None:
    file = tmp_path / "rig.toml"
    file.write_text(TEXT)
    call_command("rig", "config", "proj", "--config", str(file), "--reason", "slow gates")
    version = ConfigVersion.objects.get()
    assert (version.rig, version.number, version.why, version.text) == (place.rig, 1, "slow gates", TEXT)
    assert version.who.startswith("cli:")


@pytest.mark.django_db
def test_going_on_editing_keeps_what_was_written(place: Place, operator: Client) -> None:
    text = post(operator, place.rig, "edit").content.decode()
    assert "# why so slow" in text
    assert "Show what changes" in text
