"""The people's pages say what is true, harmlessly, and act only on what was seen."""

from __future__ import annotations

import pytest
from django.test import Client

from agents import mail
from beads import inbox, ledger, plans
from beads.models import Fact
from refinery.core.text import sanitize
from tests.db.conftest import SHA, Place

HOSTILE = "<script>alert(1)</script> \u202egnp \u200b"


@pytest.mark.django_db
def test_every_page_shows_a_town_at_work(place: Place, viewer: Client) -> None:
    rows = [{"key": k, "title": f"{k} {HOSTILE}", "after": a} for k, a in (("one", []), ("two", ["one"]))]
    plan = plans.parse(rows, "plan", place.rig, lambda slug: place.rig)
    convoy = ledger.create_convoy(place.rig, f"Square {HOSTILE}", "review-and-merge", plan, actor="test")
    inbox.record(place.town, "convoy.start", convoy.pk, {}, actor="alice")
    entry = place.entry()
    mail.send(place.town, "alice", "overseer", mail.Letter(f"Subject {HOSTILE}", "body"))
    place.tick()
    run = place.running(kind="polecat")[0]
    pages = {
        "/": "main",
        "/towns/main/": "Square",
        f"/convoys/{convoy.pk}/": "Wave 2",
        f"/beads/{convoy.beads.get(plan_key='two').pk}/": "waits for",
        f"/reviews/{entry.pk}/": "feature",
        "/queue/": "feature",
        f"/runs/{run.pk}/": "running",
        "/mail/": "Subject",
    }
    for path, word in pages.items():
        answer = viewer.get(path)
        text = answer.content.decode()
        assert (answer.status_code, word in text) == (200, True), path
        assert "<script>alert" not in text
        assert "default-src 'self'" in answer["Content-Security-Policy"]
        assert "unsafe-inline" not in answer["Content-Security-Policy"]


@pytest.mark.django_db
def test_the_cars_of_one_batch_are_drawn_together(place: Place, viewer: Client) -> None:
    place.town.config["refinery"] |= {"batch": {"max": 2, "wait": "1ms"}}
    place.town.save()
    for number in "1234":
        place.entry(f"branch-{number}", SHA[number])
    place.later(seconds=1)
    place.tick()
    text = viewer.get("/queue/").content.decode()
    assert (text.count('class="coupled"'), text.count('class="coupled joins"')) == (2, 2)
    assert text.count("in one batch with the one before") == 2


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/towns/none/", "/convoys/gt-0/", "/reviews/gt-0/", "/runs/run-0/", "/nowhere/"])
def test_what_is_not_there_is_404_with_a_way_back(viewer: Client, path: str) -> None:
    answer = viewer.get(path)
    assert answer.status_code == 404
    assert b"Back to the towns" in answer.content


@pytest.mark.django_db
def test_a_reviewer_approves_exactly_what_was_seen(reviewer: Client) -> None:
    place = Place(auto_merge=False)
    entry = place.entry(head=SHA["a"])
    stale = reviewer.post(f"/reviews/{entry.pk}/approve/", {"head": SHA["d"]})
    assert stale.status_code == 409
    assert b"the head moved" in stale.content
    assert not Fact.objects.exists()
    assert reviewer.post(f"/reviews/{entry.pk}/approve/", {"head": SHA["a"]}).status_code == 302
    place.tick()
    assert [(v.by, v.decision) for v in entry.verdicts.all()] == [("web:rita", "approve")]


@pytest.mark.django_db
def test_a_reviewer_sends_back_with_file_and_line(place: Place, reviewer: Client) -> None:
    entry = place.entry(head=SHA["a"])
    form = {"head": SHA["a"], "body": "not yet", "items": "a.py:3: name it"}
    assert reviewer.post(f"/reviews/{entry.pk}/request-changes/", form).status_code == 302
    place.tick()
    assert entry.verdicts.get().items == [{"file": "a.py", "line": 3, "problem": "name it"}]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        "gastown/gastown.css",
        "gastown/review.css",
        "gastown/review.js",
        "gastown/live.js",
        "vendor/idiomorph/idiomorph.min.js",
        "gastown/favicon.svg",
        "admin/css/base.css",
    ],
)
def test_style_and_script_are_served(client: Client, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 200
    answer.close()


def test_hostile_text_is_sanitized() -> None:
    assert sanitize("\x1b[31mred\x1b[0m \u202e \u200b\x07") == "red ⟨U+202E⟩ ⟨U+200B⟩⟨U+0007⟩"
