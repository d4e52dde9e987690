"""Pull requests as facts: what is asked of the host, once each, and what follows from its answers; no host is here."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from beads import inbox
from beads.models import Effect
from refinery.core import pullviews
from refinery.core.pullviews import Pull, PullState
from refinery.core.rules import pullreports, pulls
from refinery.models import HostedPull, ReviewEntry, RigHost
from refinery.tick import snapshot
from tests.db.conftest import SHA, Place


@pytest.fixture
def hosted(db: None) -> Place:
    place = Place(merge_strategy="pr")
    place.town.config["pr"] = {"provider": "github", "credential": "TOKEN", "repository": "acme/proj"}
    place.town.save()
    return place


def say(place: Place, what: str, subject: object, **told: Any) -> None:
    inbox.record(place.town, what, str(subject), told)
    place.tick()


def polled(place: Place, **told: Any) -> None:
    Effect.objects.filter(kind="poll_host").update(state="done")
    say(place, "host.polled", place.rig.pk, at=place.now.isoformat(), **told)


def read(place: Place, entry: ReviewEntry, **more: Any) -> None:
    """The host's answer to what was asked."""
    place.later(seconds=1)
    Effect.objects.filter(kind="read_pull").update(state="done")
    pull = Pull(7, entry.head_sha, "acme/proj", entry.branch, "main", "T", "bot", PullState.OPEN)
    state = pullviews.dump(pull) | more
    say(place, "pull.read", f"{place.rig.pk}#7", at=place.now.isoformat(), state=state)


def offered(place: Place) -> ReviewEntry:
    entry = place.entry()
    polled(place)
    Effect.objects.filter(kind="offer_pull").update(state="done")
    say(place, "pull.offered", entry.pk, number=7, head=entry.head_sha)
    read(place, entry)
    return entry


def test_an_entry_is_offered_read_and_told_of_each_asked_once_and_the_plan_rests(hosted: Place) -> None:
    entry = offered(hosted)
    row = HostedPull.objects.get()
    assert (row.number, row.entry_id, row.offered, row.head) == (7, entry.pk, True, entry.head_sha)
    (report,) = hosted.effects("report_pull")
    Effect.objects.filter(pk=report.pk).update(state="done")
    said = {"gastown": pullreports.mark(entry.head_sha, *report.payload["statuses"][0][1:])}
    say(hosted, "pull.reported", row.pk, said=said)
    (tell,) = hosted.effects("tell_pull")
    Effect.objects.filter(pk=tell.pk).update(state="done")
    say(hosted, "pull.told", row.pk, digest=tell.payload["digest"], comment=99)
    hosted.tick(1)
    row.refresh_from_db()
    assert (row.comment, row.told, row.said) == (99, tell.payload["digest"], said)
    assert len(hosted.effects("offer_pull")) == len(hosted.effects("read_pull")) == 1


def test_what_is_kept_of_the_statuses_is_of_one_head_and_bounded(hosted: Place) -> None:
    entry = offered(hosted)
    row = HostedPull.objects.get()
    for number in range(3):
        told = {f"gastown/{number}-{n}": pullreports.mark(entry.head_sha, "success", "") for n in range(100)}
        say(hosted, "pull.reported", row.pk, said=told)
    row.refresh_from_db()
    assert len(row.said) == 200 and "gastown/2-99" in row.said
    say(hosted, "pull.reported", row.pk, said={"gastown": pullreports.mark(SHA["9"], "pending", "")})
    row.refresh_from_db()
    assert list(row.said) == ["gastown"]


def test_an_answer_that_was_lost_is_asked_for_again(hosted: Place) -> None:
    hosted.entry()
    polled(hosted)
    Effect.objects.filter(kind="offer_pull").update(state="done")  # and its fact never came
    hosted.tick()
    (again,) = hosted.effects("offer_pull")
    assert again.state == "pending"


def test_a_late_reading_changes_nothing_that_a_later_one_has_said(hosted: Place) -> None:
    entry = offered(hosted)
    early = hosted.now
    read(hosted, entry, title="new")
    state = pullviews.dump(Pull(7, SHA["9"], "acme/proj", entry.branch, "main", "old", "bot", PullState.CLOSED))
    say(hosted, "pull.read", f"{hosted.rig.pk}#7", at=early.isoformat(), state=state)
    assert HostedPull.objects.get().state["title"] == "new"
    entry.refresh_from_db()
    assert entry.state == "active"


def test_a_host_that_does_not_say_is_left_alone_and_what_it_has_said_before_stays(hosted: Place) -> None:
    offered(hosted)
    before = HostedPull.objects.get().state
    say(hosted, "host.unknown", hosted.rig.pk, kind="limited", error="too many", wait=120.0)
    known = RigHost.objects.get()
    assert known.next_try_at is not None and (known.next_try_at - hosted.now).total_seconds() > 100
    asked = Effect.objects.count()
    say(hosted, "host.hint", hosted.rig.pk, event="pull_request", number=7)
    assert Effect.objects.count() == asked
    assert HostedPull.objects.get().state == before
    polled(hosted)
    assert RigHost.objects.get().trouble == ""


def test_one_pull_request_that_cannot_be_read_makes_the_pauses_grow_though_each_look_works(hosted: Place) -> None:
    pauses = []
    for _ in range(6):
        polled(hosted)
        say(hosted, "host.unknown", hosted.rig.pk, kind="down", error="half an answer", wait=0.0)
        known = RigHost.objects.get()
        assert known.next_try_at is not None
        pauses.append(round((known.next_try_at - hosted.now).total_seconds()))
        hosted.later(seconds=pauses[-1] + 1)
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert known.failures > pulls.PATIENCE
    hosted.later(seconds=60)
    polled(hosted)
    calm = RigHost.objects.get()
    assert (calm.failures, calm.since, calm.next_try_at) == (0, None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"state": "closed"}, "rejected"), ({"base": "release"}, "rejected"), ({"whole": False}, "rejected")],
)
def test_what_is_closed_or_aimed_elsewhere_there_leaves_the_queue(
    hosted: Place, change: dict[str, Any], reason: str
) -> None:
    entry = offered(hosted)
    read(hosted, entry, **change)
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("failed", reason)


@pytest.mark.parametrize("change", [{"on_target": False}, {"head": SHA["9"], "on_target": True}])
def test_what_was_merged_there_otherwise_than_it_was_reviewed_here_leaves_the_queue(
    hosted: Place, change: dict[str, Any]
) -> None:
    entry = offered(hosted)
    read(hosted, entry, state="merged", merge_sha=SHA["8"], **change)
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("failed", "rejected")
    assert "merged on its host" in entry.reason_text and "not as it was reviewed" in entry.reason_text


def test_what_was_merged_there_as_it_was_reviewed_is_merged(hosted: Place) -> None:
    entry = offered(hosted)
    read(hosted, entry, state="merged", merge_sha=SHA["8"], on_target=True)
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == ("merged", "already_merged")


def test_a_town_without_a_host_asks_nothing_of_it(place: Place) -> None:
    place.entry()
    place.tick()
    with CaptureQueriesContext(
        connection,
    ) as asked:
        snapshot.load(place.town, place.now)
    assert not [q for q in asked.captured_queries if "hostedpull" in q["sql"] or "righost" in q["sql"]]
    assert not Effect.objects.filter(kind="poll_host").exists()
