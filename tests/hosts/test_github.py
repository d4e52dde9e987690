"""GitHub's client against the tests' GitHub: what it reads, how it says that it does not know, what it does once."""

from __future__ import annotations

import time

import pytest

from refinery.core.pullviews import Opinion, PullState, Right
from refinery.hosts.base import Host, HostUnknown, Offer, Seen, Status
from refinery.hosts.opening import host_of
from tests.hosts.conftest import Hosted

MARK = "<!-- gastown:proj -->"


@pytest.fixture
def host(hosted: Hosted) -> Host:
    hosted.open()
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    return host_of(hosted.stage.rig)


def test_a_pull_request_is_read_with_the_rights_of_who_speaks(hosted: Hosted, host: Host) -> None:
    pull = hosted.github.open("ann", "feature", "Add a", "why")
    hosted.github.say(pull, "sam", "hello")
    hosted.github.say(pull, "eve", "/gastown land\nplease")
    hosted.github.review(pull, "rita", "APPROVED")
    found = host.read(1)
    assert (found.number, found.title, found.author, found.state) == (1, "Add a", "ann", PullState.OPEN)
    assert (found.head, found.head_repo, found.branch, found.base) == (pull.head, "acme/proj", "feature", "main")
    assert [(c.by, c.body, c.right) for c in found.commands] == [("eve", "/gastown land", Right.READ)]
    assert [(r.by, r.opinion, r.commit, r.right) for r in found.reviews] == [
        ("rita", Opinion.APPROVE, pull.head, Right.WRITE)
    ]


def test_what_another_has_edited_commands_nothing(hosted: Hosted, host: Host) -> None:
    pull = hosted.github.open("ann", "feature")
    seen = host.poll(Seen()).etags
    said = hosted.github.say(pull, "rita", "/gastown queue")
    hosted.github.edit(said, "/gastown land")
    assert host.poll(Seen(seen)).commanded == frozenset()
    assert host.read(1).commands == ()
    hosted.github.say(pull, "rita", "/gastown land")
    assert [c.body for c in host.read(1).commands] == ["/gastown land"]


def test_what_is_done_twice_is_done_once(hosted: Hosted, host: Host) -> None:
    offer = Offer("feature", "main", "T", "B", draft=True)
    assert host.offer(offer) == host.offer(offer) == 1
    one = host.comment(1, MARK, f"{MARK} first", 0)
    assert host.comment(1, MARK, f"{MARK} second", 0) == one
    assert hosted.said() == f"{MARK} second"
    host.ready(host.read(1))
    host.ready(host.read(1))
    host.report(hosted.pull().head, [Status("gastown", "success", "green")])
    host.close(1)
    host.close(1)
    assert host.read(1).state == PullState.CLOSED


def test_a_comment_that_somebody_has_deleted_is_made_again(hosted: Hosted, host: Host) -> None:
    host.offer(Offer("feature", "main", "T", "B", draft=False))
    one = host.comment(1, MARK, MARK, 0)
    hosted.pull().comments.clear()
    assert host.comment(1, MARK, MARK, one) != one


def test_a_comment_that_is_not_ours_to_change_is_left_and_one_of_ours_is_made(hosted: Hosted, host: Host) -> None:
    pull = hosted.github.open("ann", "feature")
    theirs = hosted.github.say(pull, "eve", MARK)
    hosted.server.fail("PATCH .*/issues/comments/", 403, message="Resource not accessible by integration")
    assert host.comment(1, MARK, f"{MARK} ours", 0) != theirs["id"]
    assert (theirs["body"], hosted.said()) == (MARK, f"{MARK} ours")


@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        ({"status": 503}, "down", 0),
        ({"status": 500, "half": True}, "down", 0),
        ({"status": 429, "headers": (("Retry-After", "7"),)}, "limited", 7),
        ({"status": 403, "message": "You have exceeded a secondary rate limit"}, "limited", 60),
        ({"status": 403, "message": "Resource not accessible by integration"}, "forbidden", 0),
        ({"status": 401}, "denied", 0),
        ({"status": 404}, "gone", 0),
        ({"status": 301, "headers": (("Location", "/elsewhere"),)}, "gone", 0),
        ({"status": 422}, "refused", 0),
    ],
)
def test_what_is_not_known_is_said_so(
    hosted: Hosted, host: Host, fault: dict[str, object], kind: str, wait: int
) -> None:
    hosted.github.open("ann", "feature")
    hosted.server.fail(times=3, **fault)  # type: ignore[arg-type]
    with pytest.raises(HostUnknown) as told:
        host.read(1)
    assert (told.value.kind, told.value.wait) == (kind, wait)


def test_the_primary_limit_tells_until_when(hosted: Hosted, host: Host) -> None:
    reset = str(int(time.time()) + 600)
    hosted.server.fail(status=403, headers=(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", reset)))
    with pytest.raises(HostUnknown) as told:
        host.read(1)
    assert told.value.kind == "limited" and 590 < told.value.wait <= 600


def test_a_look_costs_nothing_where_nothing_has_changed_and_tells_a_call_once(hosted: Hosted, host: Host) -> None:
    pull = hosted.github.open("ann", "feature")
    first = host.poll(Seen())
    assert (set(first.pulls), first.commanded) == ({1}, frozenset())
    hosted.server.answered.clear()
    again = host.poll(Seen(first.etags))
    assert (again.pulls, hosted.server.answered[0]) == ({}, 304)
    hosted.github.say(pull, "sam", "/gastown why")
    second = host.poll(Seen(again.etags))
    assert second.commanded == {1}
    assert host.poll(Seen(second.etags)).commanded == frozenset()


def test_a_second_reading_costs_one_request_and_sees_whatever_has_changed(hosted: Hosted, host: Host) -> None:
    pull = hosted.github.open("ann", "feature", "Add a")
    review = hosted.github.review(pull, "rita", "APPROVED")
    hosted.github.say(pull, "sam", "/gastown why")
    first = host.read(1)
    hosted.server.answered.clear()
    assert host.read(1, first) == first
    assert sorted(hosted.server.answered) == [200, 304, 304, 304, 304]
    hosted.github.dismiss(pull, review)
    hosted.github.people["sam"] = "read"
    hosted.github.say(pull, "rita", "/gastown land")
    second = host.read(1, first)
    assert second.reviews[0].opinion == Opinion.DISMISSED
    assert [(c.by, c.right) for c in second.commands] == [("sam", Right.READ), ("rita", Right.WRITE)]
    head = hosted.stage.commit("feature", {"b.txt": "b\n"}, start="feature")
    hosted.github.people["ann"] = "write"
    third = host.read(1, second)
    assert (third.head, third.authors) == (head, ("ann",))


def test_a_credential_is_for_allowed_places_alone(hosted: Hosted, host: Host, settings: object) -> None:
    settings.GASTOWN_OWNER_CONFIG = ""  # type: ignore[attr-defined]
    with pytest.raises(HostUnknown, match="plain http"):
        host.read(1)
    assert not [r for r in hosted.server.requests if "pulls/1" in r]
