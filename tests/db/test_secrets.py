"""Secrets of towns: sealed at rest, handed by name, never shown again."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client

from beads import config as configs
from beads import keyring, ledger, secrets
from beads.actors import Actor
from beads.errors import Forbidden, Invalid, NotFound, Refused
from beads.models import ConfigVersion, Fact, Secret, Town
from refinery.decisions import towns
from tests.db.conftest import Place

VALUE = "hunter2-äöü-0123456789"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\nBG5vbmUAAAAE==\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def home(settings: Any, tmp_path: Path) -> Path:
    settings.GASTOWN_HOME = str(tmp_path / "home with space")
    Path(settings.GASTOWN_HOME).mkdir()
    return Path(settings.GASTOWN_HOME)


@pytest.fixture
def town(db: None) -> Town:
    return ledger.create_town("main")


def run(monkeypatch: pytest.MonkeyPatch, *words: str, stdin: bytes = b"") -> tuple[int, Any]:
    """A command with --json: its exit code, and what it has printed."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    code: Any = 0
    try:
        call_command(*words, "--json", stdout=out)
    except SystemExit as exit:
        code = exit.code
    monkeypatch.undo()
    return code, json.loads(out.getvalue())


def test_a_value_comes_back_for_a_run_and_is_nowhere_else(town: Town, home: Path) -> None:
    secrets.set_secret(town, "NPM_TOKEN", VALUE, "cli:ann")
    assert secrets.for_run(town, ["NPM_TOKEN"]) == {"NPM_TOKEN": VALUE}
    assert dump().count("NPM_TOKEN") >= 2  # the row, and the fact that it was set
    assert VALUE not in dump()
    fact = Fact.objects.get(kind="secret.set")
    assert (fact.actor, fact.subject, fact.payload) == ("cli:ann", "NPM_TOKEN", {})
    assert VALUE not in "".join(p.read_text(errors="replace") for p in home.rglob("*") if p.is_file())


def dump() -> str:
    """Every row of every table, as text."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'select t::text from "{table}" t')
            found += [f"{table} {row[0]}" for row in cursor.fetchall()]
    return "\n".join(found)


def test_the_key_file_is_ours_alone_and_made_once(town: Town, home: Path) -> None:
    secrets.set_secret(town, "A", "one", "test")
    file = home / "keys" / "secrets"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.read_text()
    secrets.set_secret(town, "B", "two", "test")
    assert file.read_text() == before
    assert file.read_text().strip() not in dump()


def test_a_key_with_newlines_survives_the_command(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "secret", "set", "DEPLOY", stdin=f"{KEY}\n".encode()) == (
        0,
        {"ok": True, "data": {"name": "DEPLOY", "town": "main"}},
    )
    assert secrets.values(Town.objects.get(), ["DEPLOY"]) == {"DEPLOY": KEY}
    run(monkeypatch, "secret", "set", "DEPLOY", stdin=f"{KEY}\n\n".encode())
    assert secrets.values(Town.objects.get(), ["DEPLOY"]) == {"DEPLOY": f"{KEY}\n"}


def test_the_list_tells_names_and_nothing_else(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.set_secret(town, "B", VALUE, "cli:ann")
    secrets.set_secret(town, "A", KEY, "cli:bob")
    code, told = run(monkeypatch, "secret", "list")
    assert code == 0
    assert [(row["name"], row["updated_by"], sorted(row)) for row in told["data"]] == [
        ("A", "cli:bob", ["name", "updated_at", "updated_by"]),
        ("B", "cli:ann", ["name", "updated_at", "updated_by"]),
    ]
    assert Secret.objects.first() is not None
    for row in Secret.objects.all():
        assert row.ciphertext not in json.dumps(told)


@pytest.mark.parametrize(
    ("name", "value", "needle"),
    [
        ("no-dash", b"x", "is no name of a secret"),
        ("1ST", b"x", "is no name of a secret"),
        ("GASTOWN_TOKEN", b"x", "a variable that Gastown sets itself"),
        ("CI", b"x", "a variable that Gastown sets itself"),
        ("A", b"", "it is empty"),
        ("A", b"\n", "it is empty"),
        ("A", b"geheim\x00nis", "NUL"),
        ("A", b"geheim\xff\xfe", "not UTF-8"),
        ("A", b"geheim" * 11000, "longer than 64 KiB"),
        ("A", b"geheim" + b"\xc3\xa4" * 40000, "longer than 64 KiB"),
    ],
)
def test_what_is_no_secret_is_refused_without_being_told(
    town: Town, monkeypatch: pytest.MonkeyPatch, name: str, value: bytes, needle: str
) -> None:
    code, told = run(monkeypatch, "secret", "set", name, stdin=value)
    assert code == 1 and needle in told["error"]["message"]
    assert "geheim" not in json.dumps(told)
    assert not Secret.objects.exists() and not Fact.objects.exists()


def test_64_kib_are_not_too_long(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "x" * (64 * 1024)
    assert run(monkeypatch, "secret", "set", "BIG", stdin=f"{value}\n".encode())[0] == 0
    assert secrets.values(town, ["BIG"])["BIG"] == value


def test_a_missing_one_is_named_with_the_command_that_sets_it(town: Town) -> None:
    secrets.set_secret(town, "A", "x", "test")
    with pytest.raises(NotFound, match="has no secret B: set it with `gastown secret set B --town main`"):
        secrets.for_run(town, ["A", "B"])
    with pytest.raises(Refused, match="handed to no run"):
        secrets.for_run(town, [secrets.WEBHOOK])
    assert secrets.for_run(town, []) == {}


def test_a_town_has_its_own_and_a_row_that_is_moved_opens_nothing(town: Town) -> None:
    other = ledger.create_town("other")
    secrets.set_secret(town, "A", "ours", "test")
    with pytest.raises(NotFound):
        secrets.values(other, ["A"])
    Secret.objects.filter(town=town).update(town=other)
    with pytest.raises(Refused, match=r"no key in .* opens the secret other/A"):
        secrets.values(other, ["A"])
    for change in ({"name": "B"}, {"ciphertext": "v1:nonsense"}, {"ciphertext": ""}):
        Secret.objects.update(town=town, **change)
        with pytest.raises(Refused, match="no key in"):
            secrets.values(town, ["B"])


def test_whoever_still_names_a_removed_one_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.set_secret(place.town, "A", "x", "test")
    agents = {"polecat": {"command": ["p"], "secrets": ["A"]}}
    gates = [{"name": "unit", "run": "make", "secrets": ["A"]}]
    ledger.set_config(place.town, configs.validate({"agents": agents, "refinery": {"gates": gates}}))
    ledger.set_config(place.rig, configs.validate({"refinery": {"gates": ["true"]}, "agents": {}}))
    code, told = run(monkeypatch, "secret", "remove", "A")
    assert code == 0
    assert told["data"]["notes"] == [
        "town main names it in agents.polecat.secrets",
        "town main names it in refinery.gates 'unit' secrets",
        "rig proj names it in agents.polecat.secrets",
    ]
    code, told = run(monkeypatch, "secret", "remove", "A")
    assert code == 1 and told["error"]["message"] == "town main has no secret A"
    place.tick()
    assert not Fact.objects.filter(processed_at=None).exists()


def test_who_sets_a_config_hears_which_secrets_are_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rig.toml"
    file.write_text('[refinery]\ngates = ["true"]\n[git]\ncredential = "DEPLOY"\n')
    code, told = run(monkeypatch, "rig", "config", "proj", "--config", str(file))
    note = "secret DEPLOY (git.credential) is not set yet: gastown secret set DEPLOY --town main"
    assert (code, told["data"]["notes"]) == (0, [note])
    secrets.set_secret(place.town, "DEPLOY", "x", "test")
    assert run(monkeypatch, "rig", "config", "proj", "--config", str(file))[1]["data"]["notes"] == []
    code, told = run(monkeypatch, "town", "create", "two", "--config", str(file))
    assert told["data"]["notes"] == [note.replace("main", "two")]


def test_the_servers_own_secret_is_handed_to_no_run() -> None:
    config = {"git": {"credential": "K"}, "agents": {"polecat": {"command": ["p"], "secrets": ["K"]}}}
    assert "is for the server alone" in configs.usable(configs.validate(config), {})[1][0]


def test_a_new_key_seals_everything_anew_and_the_old_one_still_opens(town: Town, home: Path) -> None:
    secrets.set_secret(town, "A", "one", "test")
    old = Secret.objects.get().ciphertext
    key = (home / "keys" / "secrets").read_text()
    assert secrets.reseal() == 1
    assert (home / "keys" / "secrets").read_text().endswith(key)
    assert Secret.objects.get().ciphertext != old
    assert secrets.values(town, ["A"]) == {"A": "one"}
    Secret.objects.update(ciphertext=old)  # a backup of the database comes back
    assert secrets.values(town, ["A"]) == {"A": "one"}


@pytest.mark.parametrize(
    ("break_it", "needle"),
    [
        (lambda f: f.unlink(), "is missing: restore it"),
        (lambda f: f.chmod(0o644), "is open to other users: chmod 600"),
        (lambda f: f.write_text("nonsense\n"), "is damaged"),
        (lambda f: f.write_text(""), "is damaged"),
        (lambda f: f.write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda f: (f.unlink(), f.mkdir(mode=0o700)), "cannot be read (Is a directory)"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_one_clear_error(
    town: Town, home: Path, monkeypatch: pytest.MonkeyPatch, break_it: Any, needle: str
) -> None:
    """And it is not quietly replaced, for then the secrets would be lost for good."""
    secrets.set_secret(town, "A", "one", "test")
    break_it(home / "keys" / "secrets")
    for ask in (lambda: secrets.values(town, ["A"]), lambda: secrets.set_secret(town, "B", "two", "test")):
        with pytest.raises(Refused) as refused:
            ask()
        assert needle in refused.value.message and "\n" not in refused.value.message
        assert str(home / "keys" / "secrets") in refused.value.message
    code, told = run(monkeypatch, "secret", "set", "C", stdin=b"x")
    assert code == 1 and needle in told["error"]["message"]
    assert secrets.names(town) == ["A"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_an_unreadable_key_file_is_one_clear_error(town: Town, home: Path) -> None:
    secrets.set_secret(town, "A", "one", "test")
    (home / "keys" / "secrets").chmod(0)
    with pytest.raises(Refused, match="Permission denied"):
        secrets.values(town, ["A"])


def test_once_all_are_removed_a_lost_key_is_made_anew(town: Town, home: Path) -> None:
    secrets.set_secret(town, "A", "one", "test")
    (home / "keys" / "secrets").unlink()
    secrets.remove(town, "A", "test")
    secrets.set_secret(town, "A", "two", "test")
    assert secrets.values(town, ["A"]) == {"A": "two"}


def test_another_key_opens_nothing(town: Town, home: Path) -> None:
    secrets.set_secret(town, "A", "one", "test")
    (home / "keys" / "secrets").unlink()
    keyring.make()
    with pytest.raises(Refused, match="no key in"):
        secrets.values(town, ["A"])


def test_the_webhook_secret_is_shown_once(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    key = secrets.webhook_key(town)  # a notice was first
    code, told = run(monkeypatch, "town", "webhook-secret", "main")
    assert (code, told["data"]["webhook_secret"]) == (0, key)
    code, told = run(monkeypatch, "town", "webhook-secret", "main")
    assert code == 1 and "--renew" in told["error"]["message"] and key not in json.dumps(told)
    code, told = run(monkeypatch, "town", "webhook-secret", "main", "--renew")
    assert code == 0 and told["data"]["webhook_secret"] == secrets.webhook_key(town) != key
    secrets.set_secret(town, secrets.WEBHOOK, "chosen", "test")
    assert secrets.webhook_key(town) == "chosen"
    with pytest.raises(Refused):
        secrets.show_webhook_key(town, "test")


# -- what only the owner may set, through the doors ------------------------------------------------------------------


def test_s5_an_operator_cannot_set_an_agents_command_but_a_superuser_can(
    place: Place, settings: Any, tmp_path: Path
) -> None:
    text = configs.to_toml(place.town.config).replace('"polecat"', '"sh"', 1)
    assert text != configs.to_toml(place.town.config)
    from django.contrib.auth.models import User

    from beads import people
    from beads.models import TownRole

    olga, root = User.objects.create_user("olga"), User.objects.create_superuser("root")
    people.grant(olga, place.town, TownRole.OPERATOR, "test")
    form = {"step": "save", "text": text, "reason": "why not", "base": "0"}
    path = f"/admin/beads/town/{place.town.pk}/config/"
    client = Client()
    client.force_login(olga)
    for step in ("diff", "save"):
        answer = client.post(path, {**form, "step": step})
        assert answer.status_code == 400
        assert "agents.polecat.command" in answer.content.decode()
        assert "installation&#x27;s owner" in answer.content.decode()
    assert not ConfigVersion.objects.exists()
    file = tmp_path / "owner.toml"
    file.write_text('[allow]\ncommands = ["sh"]\n')
    file.chmod(0o600)
    settings.GASTOWN_OWNER_CONFIG = str(file)
    assert client.post(path, {**form, "step": "diff"}).status_code == 200
    settings.GASTOWN_OWNER_CONFIG = ""
    client.force_login(root)
    assert client.post(path, form).status_code == 302
    assert Town.objects.get().config["agents"]["polecat"]["command"] == ["sh"]


def test_s5_who_says_nothing_of_being_the_owner_is_not(place: Place) -> None:
    for text in ('[sandbox]\nmode = "off"\n', '[agents.polecat]\ncommand = ["sh"]\nnetwork = "open"\n'):
        for row in (place.town, place.rig):
            with pytest.raises(Forbidden):
                towns.set_config(row, by=Actor("api", "eve"), text=text)
            assert towns.check_config(row, text, by_owner=True)


def test_the_console_shows_names_only(place: Place) -> None:
    from django.contrib.auth.models import User

    secrets.set_secret(place.town, "NPM_TOKEN", VALUE, "cli:ann")
    row = Secret.objects.get()
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for path in ("/admin/beads/secret/", f"/admin/beads/secret/{row.pk}/change/"):
        text = client.get(path).content.decode()
        assert "NPM_TOKEN" in text and row.ciphertext not in text and VALUE not in text
    assert client.post(f"/admin/beads/secret/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.get("/admin/beads/secret/add/").status_code == 403


def test_errors_say_no_word_of_a_value(town: Town) -> None:
    for value in ("geheim\x00", "geheim\ud800"):
        with pytest.raises(Invalid) as refused:
            secrets.check_value(value)
        assert "geheim" not in refused.value.message
