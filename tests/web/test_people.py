"""Accounts from the command line, the first run, and what production asks of cookies."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from beads import ledger, people
from beads.models import Membership, Rig, Town, TownRole

ROOT = Path(__file__).parents[2]
GOOD = "horse-battery-7"


def person(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str, stdin: str = GOOD) -> tuple[int, Any]:
    """Run `person …` with a password on stdin; returns exit code and the JSON answer."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{stdin}\n"))
    code = 0
    try:
        call_command("person", *arguments, "--json")
    except SystemExit as end:
        code = int(end.code or 0)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.django_db
def test_the_first_operator_is_made_and_logs_in(monkeypatch: pytest.MonkeyPatch, capsys: Any, client: Client) -> None:
    code, answer = person(monkeypatch, capsys, "create", "olga", "--role", "operator", "--town", "main")
    assert (code, answer["data"]["town"]) == (0, "main")
    assert Town.objects.get().slug == "main"
    user = User.objects.get(username="olga")
    assert (user.is_superuser, user.is_staff) == (False, False)
    assert client.post("/accounts/login/", {"username": "olga", "password": GOOD}).status_code == 302
    assert client.get("/admin/").status_code == 200
    assert client.get("/towns/main/").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "stdin", "field"),
    [
        (("create", "ann", "--role", "viewer"), "short", "password"),
        (("create", "ann", "--role", "viewer"), "", "password"),
        (("create", "ann", "--role", "viewer"), "1234567890123", "password"),
        (("create", "annabella", "--role", "viewer"), "annabella1", "password"),
        (("create", "a b<", "--role", "viewer"), GOOD, "name"),
        (("create", "", "--role", "viewer"), GOOD, "name"),
        (("create", "x" * 200, "--role", "viewer"), GOOD, "name"),
        (("create", "taken", "--role", "viewer"), GOOD, "name"),
        (("create", "ann"), GOOD, "role"),
        (("create", "ann", "--role", "viewer", "--town", "nowhere"), GOOD, "town"),
        (("grant", "nobody", "--role", "viewer"), GOOD, "name"),
        (("password", "nobody"), GOOD, "name"),
    ],
)
def test_bad_input_is_refused_naming_the_field(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: tuple[str, ...], stdin: str, field: str
) -> None:
    ledger.create_town("main")
    User.objects.create_user("taken")
    code, answer = person(monkeypatch, capsys, *arguments, stdin=stdin)
    assert (code, answer["ok"], answer["error"]["details"]["field"]) == (1, False, field)
    assert User.objects.count() == 1
    assert not Membership.objects.exists()


@pytest.mark.django_db
def test_roles_are_granted_listed_and_revoked(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    ledger.create_town("main")
    ledger.create_town("other")
    assert person(monkeypatch, capsys, "create", "ann", "--role", "viewer", "--town", "main")[0] == 0
    assert person(monkeypatch, capsys, "grant", "ann", "--role", "reviewer", "--town", "other")[0] == 0
    assert person(monkeypatch, capsys, "grant", "ann", "--role", "operator", "--town", "main")[0] == 0
    _, answer = person(monkeypatch, capsys, "list")
    assert answer["data"] == [{"name": "ann", "roles": "operator of main, reviewer of other", "active": True}]
    assert person(monkeypatch, capsys, "revoke", "ann", "--town", "main")[0] == 0
    assert person(monkeypatch, capsys, "revoke", "ann", "--town", "main")[0] == 1
    assert [m.town.slug for m in Membership.objects.select_related("town")] == ["other"]
    granted = Membership.objects.get()
    assert granted.granted_by.startswith("cli:")


@pytest.mark.django_db
def test_a_new_password_ends_the_sessions(monkeypatch: pytest.MonkeyPatch, capsys: Any, client: Client) -> None:
    town = ledger.create_town("main")
    people.grant(people.create("ann", GOOD), town, TownRole.VIEWER, "test")
    client.post("/accounts/login/", {"username": "ann", "password": GOOD})
    assert client.get("/").status_code == 200
    assert person(monkeypatch, capsys, "password", "ann", stdin="another-horse-9")[0] == 0
    assert client.get("/").status_code == 302


@pytest.mark.django_db
def test_the_first_run_says_what_to_do(client: Client) -> None:
    for path in ("/", "/admin/"):
        text = client.get(path, follow=True).content.decode()
        assert "person create NAME" in text
        assert "<form method" not in text
    people.create("ann", GOOD)
    assert 'name="password"' in client.get("/", follow=True).content.decode()


@pytest.mark.django_db
def test_who_is_logged_in_and_may_not_is_told_so(client: Client) -> None:
    client.force_login(people.create("ann", GOOD))
    assert client.get("/admin/", follow=True).status_code == 403
    client.force_login(people.create("root", GOOD + "x", superuser=True))
    assert client.get("/admin/login/")["Location"] == "/admin/"


@pytest.mark.django_db
def test_the_login_leads_nowhere_else(client: Client) -> None:
    people.create("ann", GOOD)
    form = {"username": "ann", "password": GOOD}
    answer = client.post("/accounts/login/?next=https://evil.example/", {**form, "next": "https://evil.example/"})
    assert answer["Location"] == "/"


def deployed(url: str, *arguments: str) -> str:
    """What a fresh process says under `GASTOWN_URL`."""
    env = {**os.environ, "GASTOWN_URL": url}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout + done.stderr


WANTED = (
    "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SESSION_COOKIE_HTTPONLY",
    "SECURE_HSTS_SECONDS", "SESSION_COOKIE_NAME", "SESSION_COOKIE_SAMESITE", "CSRF_TRUSTED_ORIGINS",
)  # fmt: skip
ASK = f"import json; from gastown_site import settings as s; print(json.dumps([getattr(s, k) for k in {WANTED!r}]))"


def test_behind_https_cookies_never_travel_in_the_clear() -> None:
    told = dict(zip(WANTED, json.loads(deployed("https://gastown.example/", "-c", ASK)), strict=True))
    assert all(told[k] is True for k in WANTED[:4])
    assert told["SECURE_HSTS_SECONDS"] == 30 * 86400
    assert told["SESSION_COOKIE_NAME"].startswith("__Host-")
    assert told["SESSION_COOKIE_SAMESITE"] == "Lax"
    assert told["CSRF_TRUSTED_ORIGINS"] == ["https://gastown.example"]
    local = dict(zip(WANTED, json.loads(deployed("http://127.0.0.1:8000", "-c", ASK)), strict=True))
    assert (local["SESSION_COOKIE_SECURE"], local["SECURE_SSL_REDIRECT"], local["SECURE_HSTS_SECONDS"]) == (
        False,
        False,
        0,
    )


def test_django_finds_nothing_to_warn_of_but_what_is_the_owners_to_decide() -> None:
    said = deployed("https://gastown.example", "manage.py", "check", "--deploy")
    left = {line.split("(")[1].split(")")[0] for line in said.splitlines() if line.startswith("?: (security")}
    assert left <= {"security.W005", "security.W021"}  # HSTS of subdomains, and the browsers' preload list


@pytest.mark.django_db
def test_a_superuser_gives_roles_in_the_console_with_a_reason(operator: Client) -> None:
    main, other = ledger.create_town("main"), ledger.create_town("other")
    ann: Any = people.create("ann", GOOD)
    people.grant(ann, other, TownRole.VIEWER, "test")
    path = f"/admin/auth/user/{ann.pk}/roles/"
    assert path in operator.get(f"/admin/auth/user/{ann.pk}/change/").content.decode()
    form = {f"town-{main.pk}": "operator", f"town-{other.pk}": ""}
    assert operator.post(path, form).status_code == 400
    assert operator.post(path, {**form, f"town-{main.pk}": "king", "reason": "x"}).status_code == 400
    assert operator.post(path, {**form, "reason": "night shift"}).status_code == 302
    made = Membership.objects.get()
    assert (made.user, made.town, made.role, made.granted_by) == (ann, main, "operator", "admin:olga")
    told = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert told == ["town main: no role → operator: night shift", "town other: viewer → no role: night shift"]


@pytest.mark.django_db
def test_nobody_else_gives_roles(dispatcher: Client) -> None:
    main = ledger.create_town("main")
    user = User.objects.get(username="dora")
    form = {f"town-{main.pk}": "operator", "reason": "me"}
    assert dispatcher.post(f"/admin/auth/user/{user.pk}/roles/", form).status_code == 403
    assert dispatcher.get(f"/admin/auth/user/{user.pk}/change/").status_code == 403
    assert Membership.objects.get().granted_by == "test"


@pytest.mark.django_db
def test_a_config_that_cannot_be_read_is_told_of_and_mended_in_the_console(operator: Client) -> None:
    town = ledger.create_town("main", {"refinery": {"of_an_older_release": 1}})
    ledger.create_rig(town, "proj", "/nowhere.git", "main")
    bead = ledger.create_bead(town, Rig.objects.get(), ledger.Draft("Paint"))
    answer = operator.get("/admin/")
    assert answer.status_code == 200
    assert "unknown key refinery.of_an_older_release" in answer.content.decode()
    shown = operator.get(f"/admin/beads/bead/{bead.pk}/change/").content.decode()
    assert "unknown key refinery.of_an_older_release" in shown
    path = f"/admin/beads/town/{town.pk}/config/"
    assert "of_an_older_release = 1" in operator.get(path).content.decode()
    form = {"step": "save", "text": "[refinery]\npop_limit = 3\n", "reason": "mend", "base": "0"}
    assert operator.post(path, form).status_code == 302
    assert "unknown key" not in operator.get("/admin/").content.decode()
