"""The doors: who guesses is locked out (S6), the first password is used once (S15), a run's token opens the tools and
nothing else (S16, R8)."""

from __future__ import annotations

import datetime as dt
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, RequestFactory
from django.utils import timezone

from beads import people
from beads.actors import Actor
from beads.errors import Conflict
from beads.models import Bead, TownRole
from gastown_site import entrance, home, lockout
from refinery.decisions import merge_queue
from tests.db.conftest import Place
from tests.web.conftest import Agent
from tests.web.test_doors import ALL, OPEN

GOOD = "horse-battery-7"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost little: what is counted here is how many are computed."""
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1000)


@pytest.fixture
def ann(db: None) -> User:
    made: User = people.create("ann", GOOD)
    return made


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each password that costs processor time."""
    seen: list[str] = []
    real: Callable[..., str] = PBKDF2PasswordHasher.encode

    def encode(self: Any, password: str, salt: str, iterations: int | None = None) -> str:
        seen.append(password)
        return real(self, password, salt, iterations)

    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", encode)
    return seen


def guess(client: Client, name: str = "ann", password: str = "wrong", at: str = "192.0.2.1", **more: Any) -> Any:
    form = {"username": name, "password": password}
    return client.post("/accounts/login/", form, REMOTE_ADDR=at, **more)


def person(capsys: Any, *words: str) -> Any:
    capsys.readouterr()
    call_command("person", *words, "--json")
    return json.loads(capsys.readouterr().out)["data"]


# -- S6 -------------------------------------------------------------------------------------------------------------


def test_s6_wrong_logins_lock_out_and_cost_nothing_any_more(ann: User, client: Client, hashed: list[str]) -> None:
    assert [guess(client).status_code for _ in range(60)] == [200] * 4 + [429] * 56
    assert len(hashed) == 5
    right = guess(client, password=GOOD)
    assert right.status_code == 429 and len(hashed) == 5
    assert "for another 15 minutes" in right.content.decode()
    assert 14 * 60 < int(right["Retry-After"]) <= 15 * 60
    assert right["Cache-Control"] == "no-store"
    assert client.get("/").status_code == 302
    assert guess(client, password=GOOD, at="198.51.100.7").status_code == 302  # from elsewhere she is not kept out
    assert client.get("/").status_code == 200


def test_s6_a_name_that_there_is_not_is_answered_like_one_that_there_is(ann: User, client: Client) -> None:
    pages = {}
    for name, at in (("ann", "192.0.2.1"), ("nobody-at-all", "192.0.2.2")):
        pages[name] = [guess(client, name, at=at).status_code for _ in range(7)]
    assert pages["ann"] == pages["nobody-at-all"]


def test_s6_an_address_that_tries_one_password_on_many_names_is_locked_out(ann: User, client: Client) -> None:
    codes = [guess(client, f"name-{n}").status_code for n in range(lockout.ADDRESS_LIMIT + 5)]
    assert codes == [200] * (lockout.ADDRESS_LIMIT - 1) + [429] * 6
    assert guess(client, password=GOOD).status_code == 429
    assert guess(client, password=GOOD, at="192.0.2.9").status_code == 302


def test_s6_an_account_of_ones_own_gives_no_more_tries_at_anothers(ann: User, client: Client) -> None:
    people.create("mallory", GOOD + "m")
    for _ in range(4):
        guess(client)
    assert guess(Client(), "mallory", GOOD + "m").status_code == 302
    assert guess(client).status_code == 429


def test_s6_a_right_password_clears_what_was_wrong_before(ann: User, client: Client) -> None:
    for _ in range(4):
        guess(client)
    assert guess(client, password=GOOD).status_code == 302
    assert guess(Client()).status_code == 200
    assert AccessAttempt.objects.get().failures_since_start == 1


def test_s6_it_ends_by_itself_and_guessing_on_does_not_prolong_it(ann: User, client: Client) -> None:
    for _ in range(5):
        guess(client)
    early = timezone.now() - dt.timedelta(minutes=14)
    AccessAttempt.objects.update(attempt_time=early)
    page = guess(client)
    assert page.status_code == 429 and "another 1 minute," in page.content.decode()
    assert AccessAttempt.objects.get().attempt_time == early
    AccessAttempt.objects.update(attempt_time=early - dt.timedelta(minutes=2))
    assert guess(client, password=GOOD).status_code == 302
    assert not AccessAttempt.objects.exists()  # what counts no more is gone


def test_s6_the_console_has_no_login_of_its_own(ann: User, client: Client, hashed: list[str]) -> None:
    for _ in range(60):
        answer = client.post("/admin/login/", {"username": "ann", "password": "wrong"})
        assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")
    assert not hashed


def test_s6_an_operator_sees_who_is_locked_out_and_ends_it(ann: User, client: Client, capsys: Any) -> None:
    assert person(capsys, "list") == [{"name": "ann", "roles": "", "active": True}]
    for _ in range(5):
        guess(client)
    (row,) = person(capsys, "list")
    assert dt.datetime.fromisoformat(row["locked_until"]) > timezone.now() + dt.timedelta(minutes=14)
    assert person(capsys, "unlock", "ann")["forgotten"] == 5
    assert guess(client, password=GOOD).status_code == 302
    for n in range(lockout.ADDRESS_LIMIT):
        guess(client, f"name-{n}")
    assert person(capsys, "unlock", "--all")["forgotten"] == lockout.ADDRESS_LIMIT
    for words in (("unlock",), ("unlock", "nobody-at-all"), ("unlock", "ann", "--all")):
        with pytest.raises(SystemExit):
            person(capsys, *words)
        assert '"field": "name"' in capsys.readouterr().out


def test_s6_the_rows_of_the_lock_out_are_not_in_the_console() -> None:
    assert not [model for model in admin.site._registry if model._meta.app_label == "axes"]


def test_s6_where_a_client_comes_from_is_the_proxys_word_and_never_its_own(settings: Any) -> None:
    def address(peer: str, forwarded: str = "") -> str:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        return lockout.client_address(RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers))

    assert address("192.0.2.1", "203.0.113.5") == "192.0.2.1"
    assert address("2001:db8::abcd:1") == address("2001:db8::1:2:3:4") == "2001:db8::"
    assert address("::ffff:192.0.2.1") == "192.0.2.1"
    assert address("::1") == "::1"
    assert address("") == "0.0.0.0"
    settings.BEHIND_PROXY = True
    assert address("127.0.0.1", "203.0.113.5") == "203.0.113.5"
    assert address("127.0.0.1", "10.9.9.9, 203.0.113.5") == "203.0.113.5"  # what the client sent stands first
    assert address("127.0.0.1") == "127.0.0.1"


# -- S15 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nobody has an account."""
    monkeypatch.setattr(home, "path", lambda: tmp_path)
    return tmp_path / "admin_password"


def link(lines: list[str]) -> str:
    where = next(word for word in lines[0].split() if "/accounts/first/" in word)
    return "/" + where.partition("//")[2].partition("/")[2]


def test_s15_the_first_password_is_chosen_by_a_link_that_works_once(fresh: Path, client: Client) -> None:
    said = entrance.first_account()
    kept = fresh.read_text().strip()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert kept not in "".join(said)  # not in a terminal's scrollback, nor in a log
    path = link(said)
    assert client.get(path).status_code == 302
    page = client.get(client.get(path)["Location"])
    assert page.status_code == 200 and "Choose your password" in page.content.decode()
    assert (page["Cache-Control"], page["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert path.split("/")[-2] not in page.content.decode()
    weak = client.post(page.request["PATH_INFO"], {"new_password1": "admin", "new_password2": "admin"})
    assert weak.status_code == 200 and fresh.exists()
    done = client.post(page.request["PATH_INFO"], {"new_password1": GOOD, "new_password2": GOOD})
    assert (done.status_code, done["Location"]) == (302, "/")
    assert client.get("/").status_code == 200  # and logged in
    assert not fresh.exists()
    assert User.objects.get().check_password(GOOD)
    again = Client().get(path, follow=True)
    assert again.status_code == 403 and "works no more" in again.content.decode()
    assert entrance.first_account() == []


def test_s15_the_file_goes_with_the_first_login_and_the_link_with_it(fresh: Path, client: Client) -> None:
    path = link(entrance.first_account())
    assert entrance.first_account()  # a second start before anybody came says it again
    form = {"username": "admin", "password": fresh.read_text().strip()}
    people.create("ann", GOOD)
    assert client.post("/accounts/login/", {"username": "ann", "password": GOOD}).status_code == 302
    assert fresh.exists()  # somebody else
    assert Client().post("/accounts/login/", form).status_code == 302
    assert not fresh.exists()
    assert Client().get(path).status_code == 403
    assert entrance.first_account() == []


def test_s15_the_link_ends_by_itself_and_cannot_be_made_up(fresh: Path, settings: Any) -> None:
    path = link(entrance.first_account())
    begin, _, token = path.rstrip("/").rpartition("/")
    assert Client().get(f"{begin}/{token[:-1]}x/").status_code == 403
    assert Client().post(f"{begin}/chosen/", {"new_password1": GOOD, "new_password2": GOOD}).status_code == 403
    settings.PASSWORD_RESET_TIMEOUT = -1
    assert Client().get(path).status_code == 403


def test_s15_a_new_password_from_the_command_line_takes_the_file_away(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    entrance.first_account()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{GOOD}\n"))
    person(capsys, "password", "admin")
    assert not fresh.exists()


def test_s15_an_installation_that_has_accounts_makes_no_admin(fresh: Path) -> None:
    people.create("ann", GOOD)
    assert entrance.first_account() == []
    assert not fresh.exists() and not User.objects.filter(username="admin").exists()


# -- S16, R8: a run's token -----------------------------------------------------------------------------------------


def test_s16_metrics_open_with_the_metrics_token_and_never_with_a_runs(polecat: Agent, settings: Any) -> None:
    def ask(path: str, token: str) -> int:
        return int(Client().get(path, headers={"Authorization": f"Bearer {token}"}).status_code)

    for path in ("/metrics", "/readyz"):
        assert ask(path, polecat.token) == 401
        assert ask(path, settings.GASTOWN_METRICS_TOKEN) in (200, 503)
        assert ask(path, "") == ask(path, "é") == 401
    file = home.path() / "keys" / "metrics_token"
    assert file.read_text().strip() == settings.GASTOWN_METRICS_TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


FOR_RUNS = ("/api/tools", "/api/schema/", "/api/runs/")


@pytest.mark.long
def test_r8_a_runs_token_opens_the_tools_and_nothing_else(polecat: Agent) -> None:
    """Each door answers it as it answers a stranger."""
    bearer = {"Authorization": f"Bearer {polecat.token}"}
    for path in ALL:
        if path in OPEN or path.startswith(FOR_RUNS):
            continue
        for method in ("get", "post", "put", "delete"):
            answer = getattr(Client(), method)(path, headers=bearer)
            if path.startswith("/api/"):
                assert answer.status_code in (404, 405), path
            elif answer.status_code == 302:
                assert "login" in answer["Location"], path
            else:
                assert answer.status_code in (401, 403, 405), (path, method, answer.status_code)
    assert polecat.call("gt_prime").status_code == 200
    other = polecat.post("/api/runs/run-of-somebody/heartbeat")
    assert other.status_code in (401, 403, 404)
    assert Client().get("/api/schema/", headers=bearer).status_code == 200


def test_r8_a_person_calls_no_tool_so_that_no_foreign_page_does_it_in_their_name(
    polecat: Agent, cast: Callable[[str, TownRole], Client]
) -> None:
    olga = cast("olaf", TownRole.OPERATOR)
    before = Bead.objects.count()
    for path in (p for p in ALL if p.startswith("/api/")):
        answer = olga.post(path, {"summary": "x"}, content_type="application/json")
        assert answer.status_code in (401, 403, 404, 405), (path, answer.content)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = olga.cookies
    assert strict.post("/accounts/logout/").status_code == 403
    assert Bead.objects.count() == before


# -- headers --------------------------------------------------------------------------------------------------------


def test_the_cookies_are_the_browsers_alone(ann: User, client: Client) -> None:
    page = client.get("/accounts/login/")
    assert "no-store" in page["Cache-Control"] and page["Referrer-Policy"] == "same-origin"
    assert page["X-Frame-Options"] == "DENY" and "frame-ancestors 'none'" in page["Content-Security-Policy"]
    answer = guess(client, password=GOOD)
    session = answer.cookies["gastown_session"]
    assert session["httponly"] and session["samesite"] == "Lax"


def test_s17_is_a_conflict_and_not_a_promise(place: Place) -> None:
    """What the door says of an entry that has left: see tests/web/test_land_now.py for the races."""
    from refinery.store import entries

    entry = place.entry()
    entries.close(entry, "failed", "rejected", "no", now=place.now)
    entry.refresh_from_db()
    with pytest.raises(Conflict, match="has left the queue"):
        merge_queue.land_now(entry, by=Actor("cli", "olga"), reason="it burns", skip_gates=True)
