"""The review page over real git repositories: whose approval counts, and for which head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.test import Client

from beads import inbox
from beads.actors import Actor
from beads.models import Fact
from refinery.decisions import reviews
from refinery.executor import head_poll
from refinery.store import verdicts
from tests.db.conftest import Place
from tests.web.ground import Ground, page, person, post


def test_an_approval_is_of_the_head_that_was_seen(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    seen = entry.head_sha
    head = ground.push("feature", {"a.py": "def f():\n    return 2\n", "more.txt": "added later\n"})
    inbox.record(ground.place.town, "entry.head_seen", entry.pk, {"head": head})
    ground.settle()
    answer = post(rita, entry, "approve")
    assert answer.status_code == 409
    text = answer.content.decode()
    assert "The head moved" in text
    assert "added later" in text
    assert "return" not in text.split("What changed since")[1]
    assert not Fact.objects.filter(kind="entry.verdict").exists()
    entry.refresh_from_db()
    assert "added later" in page(rita, entry, f"?since={seen}")
    kept = rita.post(f"/reviews/{entry.pk}/request-changes/", {"head": seen, "body": "my long text"})
    assert (kept.status_code, b"my long text" in kept.content) == (409, True)


def test_a_push_that_nobody_told_of_is_noticed_at_approval_and_asks_again(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    head = ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    answer = post(rita, entry, "approve")
    assert answer.status_code == 409
    ground.settle()
    entry.refresh_from_db()
    assert entry.head_sha == head
    assert not entry.verdicts.exists()
    assert "return" in page(rita, entry)
    assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert entry.verdicts.get().head_sha == head


def test_a_push_while_it_waits_is_seen_and_asked_about(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "approve")
    ground.settle()
    assert head_poll.look(ground.place.now) == 0
    head = ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    assert head_poll.look(ground.place.now) == 1
    ground.settle()
    entry.refresh_from_db()
    assert entry.head_sha == head
    text = page(rita, entry)
    assert "waits for a person" in text
    assert "an older head: does not count" in text
    ground.place.later(hours=1)
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "active"
    ground.remote.rename(ground.remote.with_suffix(".away"))
    assert head_poll.look(ground.place.now) == 0  # unknown: nothing follows


def test_two_clicks_are_one_approval_and_it_lands_after_the_delay(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    for _ in range(2):
        assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert entry.verdicts.count() == 1
    assert "merges by itself" in page(rita, entry)
    ground.place.later(minutes=6)
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "merged"
    assert ground.git("rev-parse", "main", cwd=ground.remote) == entry.merge_sha
    assert "return" in page(rita, entry)  # a permalink
    assert post(rita, entry, "approve").status_code == 302  # a late second click
    assert post(rita, entry, "reject", reason="no").status_code == 409


def test_waiting_for_a_person_is_free(ground: Ground) -> None:
    ground.push("one", {"one.txt": "1\n"})
    ground.push("two", {"two.txt": "2\n"})
    one, two = ground.submit("one"), ground.submit("two")
    rita = person("rita")
    ground.place.later(days=30)
    ground.settle()
    one.refresh_from_db()
    assert (one.state, one.admitted_at) == ("active", None)
    assert post(rita, two, "merge").status_code == 302
    ground.settle()
    two.refresh_from_db()
    assert two.state == "merged"


def test_so_many_distinct_people_must_approve_this_head(tmp_path: Path, db: None, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    ground = Ground(tmp_path, pr={"required_approvals": 2, "auto_merge_delay": "1s"})
    rita, olaf = person("rita"), person("olaf")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "merge")
    reviews.approve(entry, by=Actor("cli", "rita"))  # the same person by another door
    ground.settle()
    ground.place.later(hours=1)
    ground.settle()
    assert "<strong>1 of 2</strong>" in page(olaf, entry)
    post(olaf, entry, "approve")
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "merged"


def test_an_objection_stands_until_its_author_approves(tmp_path: Path, db: None, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    ground = Ground(tmp_path)
    rita, olaf = person("rita"), person("olaf")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    verdicts.record(
        entry, verdicts.Review(head=entry.head_sha, decision="request_changes", by="web:rita", feedback="no")
    )
    verdicts.record(entry, verdicts.Review(head=entry.head_sha, decision="approve", by="web:olaf"))
    assert "web:rita asked for changes" in page(olaf, entry)
    post(rita, entry, "approve")
    ground.settle()
    assert "merges by itself" in page(olaf, entry)


def test_the_author_may_not_approve(ground: Ground) -> None:
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit(by=Actor("web", "ann"))
    ann = person("ann")
    assert "your own change" in page(ann, entry)
    for verb in ("approve", "merge"):
        answer = post(ann, entry, verb)
        assert (answer.status_code, b"your own change" in answer.content) == (403, True)
    by_commit = person("annie", "Ann@Example.org")
    assert post(by_commit, entry, "approve").status_code == 403
    assert not Fact.objects.filter(kind="entry.verdict").exists()
    assert post(person("rita", "rita@example.org"), entry, "approve").status_code == 302


def test_who_wrote_it_cannot_be_read_so_nobody_known_by_mail_may_approve(place: Place) -> None:
    entry = place.entry()
    rita = person("rita", "rita@example.org")
    answer = rita.post(f"/reviews/{entry.pk}/approve/", {"head": entry.head_sha}, follow=True)
    assert "cannot be read" in str(next(iter(answer.context["messages"])))
    assert not Fact.objects.exists()


def test_a_viewer_may_not_act(ground: Ground, viewer: Client) -> None:
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    text = page(viewer, entry, "?at=0.n2")
    assert "<form" not in text.split("<main")[1]
    for verb in ("approve", "merge", "request-changes", "comment", "resolve", "reopen", "reject", "retry"):
        assert post(viewer, entry, verb).status_code == 403
    assert post(person("rita"), entry, "explode").status_code == 404
