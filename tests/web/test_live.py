"""The pages' live parts, their number of queries, and the buttons they offer."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from beads import inbox, ledger, plans
from beads.models import Bead, Convoy, Escalation, Fact
from refinery.pages.render import HEADER
from tests.db.conftest import SHA, Place

LIVE: Any = {HEADER: "1"}


def convoy_of(place: Place, size: int, title: str = "Square") -> Convoy:
    rows = [{"key": f"b{n}", "title": f"Bead {n}", "after": [f"b{n - 3}"] if n > 3 else []} for n in range(size)]
    plan = plans.parse(rows, "plan", place.rig, lambda slug: place.rig)
    return ledger.create_convoy(place.rig, title, "review-and-merge", plan, actor="test")


def queries(client: Client, path: str) -> int:
    client.get(path)
    with CaptureQueriesContext(connection) as caught:
        assert client.get(path).status_code == 200
    return len(caught)


@pytest.mark.django_db
def test_pages_ask_as_many_questions_of_a_large_town_as_of_a_small_one(place: Place, operator: Client) -> None:
    small = convoy_of(place, 4, "Small")
    inbox.record(place.town, "convoy.start", small.pk, {}, actor="alice")
    place.entry("one")
    place.tick()
    few = [queries(operator, path) for path in ("/towns/main/", "/queue/", f"/convoys/{small.pk}/", "/mail/")]
    large = convoy_of(place, 30, "Large")
    inbox.record(place.town, "convoy.start", large.pk, {}, actor="alice")
    for n in range(20):
        place.entry(f"branch-{n}", SHA["d"])
        ledger.escalate(place.town, ledger.Problem(f"key{n}", f"Look {n}"), actor="test")
    place.tick()
    many = [queries(operator, path) for path in ("/towns/main/", "/queue/", f"/convoys/{large.pk}/", "/mail/")]
    assert many == few


@pytest.mark.django_db
def test_a_live_part_is_the_main_of_its_page_with_a_token_of_its_own(place: Place, operator: Client) -> None:
    staged = convoy_of(place, 2)
    path = f"/convoys/{staged.pk}/"
    whole, part = operator.get(path).content.decode(), operator.get(path, headers=LIVE).content.decode()
    assert whole.startswith("<!doctype html>")
    assert part.startswith("<title>") and "<header" not in part and "Start it" in part
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    found = strict.get(path, headers=LIVE)
    token = found.content.decode().partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    assert strict.post(f"{path}start/").status_code == 403
    assert strict.post(f"{path}start/", {"csrfmiddlewaretoken": token}).status_code == 302
    assert Fact.objects.filter(kind="convoy.start", subject=staged.pk).count() == 1


@pytest.mark.django_db
def test_a_viewer_is_offered_no_button_and_may_press_none(place: Place, viewer: Client, operator: Client) -> None:
    staged = convoy_of(place, 2)
    ledger.escalate(place.town, ledger.Problem("key", "The gate is broken"), actor="test")
    escalation = Escalation.objects.get()
    for path in ("/towns/main/", f"/convoys/{staged.pk}/", "/mail/"):
        assert b"<button" not in viewer.get(path, headers=LIVE).content, path
        assert b"<button" in operator.get(path, headers=LIVE).content, path
    for path in (f"/convoys/{staged.pk}/start/", f"/escalations/{escalation.pk}/ack/"):
        assert viewer.post(path).status_code == 403
    assert not Fact.objects.exists()


@pytest.mark.django_db
def test_an_escalation_is_acknowledged_from_the_page_and_leads_back_there(place: Place, operator: Client) -> None:
    ledger.escalate(place.town, ledger.Problem("key", "The gate is broken"), actor="test")
    path = f"/escalations/{Escalation.objects.get().pk}/ack/"
    assert operator.post(path, {"next": "/towns/main/"})["Location"] == "/towns/main/"
    assert operator.post(path, {"next": "https://evil.example/"})["Location"] == "/mail/"
    place.tick()
    assert Escalation.objects.get().acknowledged_by == "web:olga"
    assert "The gate is broken" not in operator.get("/towns/main/").content.decode()
    assert "seen by web:olga" in operator.get("/mail/").content.decode()


@pytest.mark.django_db
def test_hostile_titles_and_logs_are_shown_and_do_nothing(place: Place, viewer: Client, tmp_path: Any) -> None:
    bead = place.bead("<img src=x onerror=alert(1)> \u202egnp\u200b")
    place.tick()
    run, _ = place.running(kind="polecat")
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31m<script>alert(1)</script>\x1b[0m \x1b]0;t\x07\xe2\x80\xae \xff\x00\n" + b"x" * 1_000_000)
    type(run).objects.filter(pk=run.pk).update(log_path=str(log))
    for path in ("/towns/main/", f"/beads/{bead.pk}/", f"/runs/{run.pk}/"):
        text = viewer.get(path).content.decode()
        assert "<script>alert" not in text and "<img" not in text.partition("<main")[2], path
        assert "\u202e" not in text and "\u200b" not in text, path
    log.write_bytes(b"\x1b[31m<script>alert(1)</script>\n")
    assert '<span class="a-red">&lt;script&gt;' in viewer.get(f"/runs/{run.pk}/").content.decode()
    assert Bead.objects.get(pk=bead.pk).title.startswith("<img")


@pytest.mark.django_db
def test_a_server_that_cannot_stream_tells_the_browser_not_to_come_again(place: Place, viewer: Client) -> None:
    assert viewer.get("/events/main/").status_code == 204


@pytest.mark.django_db
def test_the_queue_page_shows_one_town_and_leads_to_the_others(place: Place, operator: Client, viewer: Client) -> None:
    place.entry("one")
    alone = queries(operator, "/queue/")
    assert "?town=" not in operator.get("/queue/", headers=LIVE).content.decode().partition("<h1>")[2]
    for number in range(4):
        ledger.create_rig(ledger.create_town(f"a{number}", {}), f"rig{number}", "/none.git", "main")
    assert queries(operator, "/queue/") == alone
    text = operator.get("/queue/").content.decode()
    assert 'data-here="/queue/?town=main"' in text  # the first with a queue; an update is asked of it
    assert '<a href="?town=a3">a3 ' in text
    assert "The queue is empty" in operator.get("/queue/?town=a3").content.decode()
    assert operator.get("/queue/?town=nowhere").status_code == 404


@pytest.mark.django_db
def test_the_queue_of_a_town_that_one_is_not_of_is_not_there(place: Place, viewer: Client) -> None:
    assert viewer.get("/queue/?town=main").status_code == 200
    stranger = Client()
    stranger.force_login(User.objects.create_user("sid"))
    assert "The queue is empty" in stranger.get("/queue/").content.decode()
    assert viewer.get("/queue/?town=other").status_code == 404
    assert "one" not in stranger.get("/queue/?town=main").content.decode().partition("<main")[2]


@pytest.mark.django_db
def test_what_has_left_the_queue_can_be_found_again_with_its_reason(place: Place, operator: Client) -> None:
    entry = place.entry("lost-branch")
    inbox.record(place.town, "entry.reject", entry.pk, {"reason": "it breaks the build"}, actor="test")
    place.tick()
    text = operator.get("/queue/", headers=LIVE).content.decode()
    assert "The queue is empty" in text and "gastown mq submit proj --branch BRANCH" in text
    left = text.partition('id="left"')[2]
    assert f"/reviews/{entry.pk}/" in left and "lost-branch" in left and "it breaks the build" in left
