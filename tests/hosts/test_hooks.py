"""The door for hooks: signed or 401, noted or known, and never an error of ours."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import Client

from beads import secrets
from beads.models import Fact
from refinery.models import HostedPull
from tests.db.conftest import Place
from tests.hosts import description
from tests.hosts.server import signed

URL, KEY = "/hooks/github/proj/", "of hooks"


@pytest.fixture
def door(db: None) -> Place:
    place = Place()
    place.town.config["pr"] = {"webhook_secret": "HOOKS", "credential": "TOKEN", "repository": "acme/proj"}
    place.town.config["pr"]["provider"] = "github"
    place.town.save()
    secrets.set_secret(place.town, "HOOKS", KEY, "test")
    return place


def send(
    client: Client, told: Any, event: str = "issue_comment", name: str = "d-1", key: str = KEY, **more: Any
) -> int:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    headers = signed(body, key, event, name) | more
    return client.post(URL, body, content_type="application/json", headers=headers).status_code


CALL = {
    "action": "created",
    "issue": {"number": 7, "pull_request": {}},
    "comment": {"body": "/gastown land", "user": {"login": "ann"}},
}


def test_a_call_makes_us_read_and_nothing_else(door: Place, client: Client) -> None:
    assert send(client, CALL) == 202
    door.tick()
    row = HostedPull.objects.get()
    assert (row.number, row.entry, row.heard, row.read_at) == (7, None, {}, None)
    assert [e.key for e in door.effects("read_pull")] == [f"pull:read:{door.rig.pk}:7"]


def test_the_same_delivery_again_is_known(door: Place, client: Client) -> None:
    assert {send(client, CALL), send(client, CALL)} == {202}
    assert Fact.objects.filter(kind="host.hint").count() == 1


@pytest.mark.parametrize("key", ["", "another"])
def test_a_bad_signature_is_refused(door: Place, client: Client, key: str) -> None:
    assert send(client, CALL, key=key) == 401
    assert send(client, CALL, **{"X-Hub-Signature-256": "sha256=é"}) == 401
    assert not Fact.objects.filter(kind="host.hint").exists()


def test_who_has_no_secret_takes_no_hooks(door: Place, client: Client) -> None:
    for url in ("/hooks/github/other/", "/hooks/gitlab/proj/"):
        body = b"{}"
        headers = signed(body, KEY, "ping", "d-1")
        assert client.post(url, body, content_type="application/json", headers=headers).status_code == 401
    secrets.remove(door.town, "HOOKS", "test")
    assert send(client, CALL) == 401
    assert client.get(URL).status_code == 405


@pytest.mark.parametrize(
    "told",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, {"pull_request": 3}, {"pull_request": {"number": "7"}},
     {"issue": {"number": -1, "pull_request": {}}}, {"issue": {"number": 10**12, "pull_request": {}}},
     {"action": "created", "comment": {"body": ["/gastown land"]}, "issue": {"number": True, "pull_request": 1}}],
)  # fmt: skip
def test_odd_payloads_are_no_error_of_ours_and_concern_nothing(door: Place, client: Client, told: Any) -> None:
    assert send(client, told) in (202, 400)
    assert send(client, told, event="", name="d-2") == 400
    door.tick()
    assert not HostedPull.objects.exists()
    assert not Fact.objects.filter(quarantined_at__isnull=False).exists()


def test_a_body_that_is_too_large_is_told_so(door: Place, client: Client) -> None:
    assert send(client, b" " * (3 * 1024 * 1024)) == 413


@description.examples_needed
def test_all_of_githubs_examples_are_taken_in(door: Place, client: Client) -> None:
    every = [(e["name"], x) for e in json.loads(description.EXAMPLES.read_text()) for x in e["examples"]]
    assert len(every) == 329
    slowest = 0.0
    for number, (event, payload) in enumerate(every):
        began = time.perf_counter()
        assert send(client, payload, event=event, name=f"d-{number}") == 202, event
        slowest = max(slowest, time.perf_counter() - began)
        assert send(client, payload, event=event, name=f"d-{number}", key="bad") == 401
    for _ in range(3):
        door.tick()
    assert not Fact.objects.filter(quarantined_at__isnull=False).exists()
    assert Fact.objects.filter(kind="host.hint").count() == 329
    print(f"slowest answer: {slowest * 1000:.1f} ms")
