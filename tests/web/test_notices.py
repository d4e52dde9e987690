"""People hear what they asked for, by mail and by a signed webhook; nobody hears what they did not ask for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client

from beads import ledger, people
from beads.errors import Invalid, Refused, Unavailable
from beads.models import TownRole
from refinery import notices
from refinery.executor import effects
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
    return [effects.run_effect(e.pk) for e in place.effects("notify") if e.state == "pending"]


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


def test_the_webhook_is_signed_and_its_answer_decides(place: Place) -> None:
    heard: list[tuple[str, bytes]] = []
    answers = [503, 204, 410]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.headers[notices.SIGNATURE], body))
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
        told = {"kind": "landed", "town": "main", "title": "t", "body": "b", "url": "u"}
        with pytest.raises(Unavailable):
            notices.deliver(told)
        notices.deliver(told)
        with pytest.raises(Refused):
            notices.deliver(told)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(Unavailable):
        notices.deliver(told)
    assert all(signature == notices.sign(body) for signature, body in heard)
    assert json.loads(heard[0][1])["title"] == "t"
