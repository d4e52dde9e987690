"""People hear what they asked for, by mail and by a signed webhook; nobody hears what they did not ask for."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client

from beads import ledger, people, secrets
from beads.errors import Invalid, Refused, Unavailable
from beads.models import TownRole
from refinery.core.effects import Notify
from refinery.executor import notify, perform
from tests.db.conftest import Place


def listener(place: Place, name: str, kinds: list[str]) -> User:
    user = User.objects.create_user(name, f"{name}@example.org")
    people.grant(user, place.town, TownRole.REVIEWER, "test")
    people.set_notices(user, place.town, kinds)
    return user


def fail(place: Place) -> None:
    """A bead uses up its attempts."""
    place.bead("Paint the fence")
    for _ in range(5):
        place.tick()
        run, _ = place.running()
        place.exit(run, 1)
        place.tick()
        place.later(hours=1)


def deliver(place: Place) -> list[str]:
    return [perform.run_effect(e.pk) for e in place.effects("notify") if e.state == "pending"]


def test_each_person_hears_what_they_chose_once(place: Place) -> None:
    listener(place, "ann", ["failed"])
    listener(place, "bob", ["landed"])
    User.objects.create_user("eve", "eve@example.org")
    fail(place)
    assert deliver(place) == ["done"]
    assert [(m.to, "Paint the fence" in m.subject) for m in mail.outbox] == [(["ann@example.org"], True)]
    assert "/beads/gt-" in mail.outbox[0].body
    place.tick()
    assert deliver(place) == []


def test_where_nobody_listens_nothing_is_made(place: Place) -> None:
    fail(place)
    assert place.effects("notify") == []


def test_a_person_chooses_on_their_own_page(place: Place) -> None:
    user = listener(place, "ann", [])
    client = Client()
    client.force_login(user)
    assert "What you are told by mail" in client.get("/account/").content.decode()
    assert client.post("/account/", {"town": "main", "kind": ["failed", "landed"]}).status_code == 302
    assert people.listeners(place.town, "landed") == ["ann@example.org"]
    assert client.post("/account/", {"town": "main", "kind": ["nonsense"]}).status_code == 302
    assert people.listeners(place.town, "landed") == ["ann@example.org"]  # refused, nothing half-done
    assert client.post("/account/", {"town": "elsewhere", "kind": ["failed"]}).status_code == 404
    with pytest.raises(Invalid):
        people.set_notices(user, place.town, ["nonsense"])


def test_s14_the_webhook_is_signed_with_the_towns_own_secret_and_its_answer_decides(
    place: Place, settings: Any, tmp_path: Path
) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    settings.GASTOWN_OWNER_CONFIG = str(owner_file(tmp_path, 'webhooks = ["127.0.0.1"]'))
    heard: list[tuple[str, bytes]] = []
    answers = [503, 204, 410]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.headers[notify.SIGNATURE], body))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
        ledger.set_config(place.town, {**place.town.config, "notify": {"webhook": url}})
        told = Notify("landed", "main", "t", "b", "u")
        with pytest.raises(Unavailable):
            notify.deliver(told)
        notify.deliver(told)
        with pytest.raises(Refused):
            notify.deliver(told)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(Unavailable):
        notify.deliver(told)
    assert all(signature == notify.sign(place.town, body) for signature, body in heard)
    assert json.loads(heard[0][1])["title"] == "t"
    key = secrets.show_webhook_key(place.town, "test")
    assert key != settings.SECRET_KEY
    body = heard[0][1]
    assert heard[0][0] == "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    assert notify.sign(ledger.create_town("other"), body) != heard[0][0]
    with pytest.raises(Refused, match="--renew"):
        secrets.show_webhook_key(place.town, "test")
    assert secrets.show_webhook_key(place.town, "test", renew=True) != key
    settings.GASTOWN_WEBHOOK_SECRET = "of the server"
    assert notify.sign(place.town, body) == "sha256=" + hmac.new(b"of the server", body, hashlib.sha256).hexdigest()


def owner_file(folder: Path, text: str) -> Path:
    file = folder / "owner.toml"
    file.write_text(f"[allow]\n{text}\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8000/",
        "http://2130706433/",
        "http://127.1/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost:1/",
        "http://192.168.0.7/hook",
    ],
)
def test_s14_a_webhook_inside_is_not_posted_to_and_people_hear_by_mail_all_the_same(place: Place, url: str) -> None:
    listener(place, "ann", ["failed"])
    ledger.set_config(place.town, {**place.town.config, "notify": {"webhook": url}})
    told = Notify("failed", "main", "t", "b", "u")
    with pytest.raises(Refused, match="no public address"):
        notify.deliver(told)
    assert [m.to for m in mail.outbox] == [["ann@example.org"]]


def test_s14_a_name_that_stands_for_an_inner_address_by_now_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked once; one inner address among its answers is enough."""
    asked: list[str] = []

    def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("10.0.0.5", port))]

    monkeypatch.setattr("refinery.executor.notify.socket.getaddrinfo", answer)
    ledger.set_config(place.town, {**place.town.config, "notify": {"webhook": "https://hooks.example.org/x"}})
    with pytest.raises(Refused, match=re.escape("is at 10.0.0.5")):
        notify.deliver(Notify("failed", "main", "t", "b", "u"))
    assert asked == ["hooks.example.org"]


def test_s14_a_redirect_is_not_followed(place: Place, settings: Any, tmp_path: Path) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    settings.GASTOWN_OWNER_CONFIG = str(owner_file(tmp_path, 'webhooks = ["127.0.0.1"]'))
    paths: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.send_response(307)
            self.send_header("Location", "/other")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        ledger.set_config(place.town, {**place.town.config, "notify": {"webhook": url}})
        with pytest.raises(Refused, match="307"):
            notify.deliver(Notify("landed", "main", "t", "b", "u"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert paths == ["/hook"]
