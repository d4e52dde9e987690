"""What a reading of a pull request believes: of its head, and of what it was merged as, git has the last word."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from agents.runtime.gitcmd import GitFailed
from beads.models import Rig
from refinery.core import effects
from refinery.executor import hearing, pulls
from refinery.hosts import answers, reading
from refinery.models import HostedPull, ReviewEntry
from tests.hosts.conftest import Hosted


@pytest.fixture
def feature(hosted: Hosted) -> Hosted:
    """A pull request that concerns us."""
    hosted.open()
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature")
    HostedPull.objects.create(rig=hosted.stage.rig, number=pull.number, wanted_at=timezone.now())
    return hosted


def read(hosted: Hosted) -> dict[str, Any]:
    found = pulls.read(effects.ReadPull(hosted.stage.rig.pk, 1))
    assert found is not None and found[0] == "pull.read", found
    state: dict[str, Any] = found[2]["state"]
    return state


def test_the_head_of_an_open_pull_request_is_the_one_that_git_has(feature: Hosted) -> None:
    old = feature.pull().head
    new = feature.stage.commit("feature", {"b.txt": "b\n"}, start="feature")
    feature.github.late[1] = old  # an answer from before the push
    assert read(feature)["head"] == new
    feature.stage.git("push", "-q", str(feature.stage.remote), ":feature")
    feature.github.late[1] = old
    assert read(feature)["head"] == old  # closed with its branch: nothing is newer


def test_what_it_was_merged_as_is_believed_by_git_alone_and_where_git_does_not_say_nothing_is_told(
    feature: Hosted,
) -> None:
    feature.github.squash(feature.pull())
    assert read(feature)["on_target"] is True
    feature.pull().merge_sha = "d" * 40
    assert read(feature)["on_target"] is False
    feature.pull().base = "gone"
    assert read(feature)["on_target"] is False
    Rig.objects.update(remote_url=str(feature.stage.root / "nowhere.git"))
    with pytest.raises(GitFailed):
        read(feature)


def test_strangers_crowd_nobody_out(feature: Hosted) -> None:
    pull = feature.pull()
    first = feature.github.review(pull, "rita", "CHANGES_REQUESTED", "no")
    feature.github.say(pull, "sam", "/gastown queue")
    for number in range(130):
        feature.github.review(pull, ("eve", "sam")[number % 2], ("APPROVED", "COMMENTED")[number % 2])
        feature.github.say(pull, "eve", "/gastown land")
    found = read(feature)
    assert [r["opinion"] for r in found["reviews"] if r["by"] != "sam"] == ["request_changes"]
    assert found["reviews"][0]["id"] == first["id"] and len(found["reviews"]) == 51
    assert found["commands"][0]["by"] == "sam" and len(found["commands"]) == 11 and found["whole"]


def test_what_cannot_be_read_to_its_end_is_not_whole(feature: Hosted, monkeypatch: Any) -> None:
    for _ in range(200):
        feature.github.say(feature.pull(), "eve", "so many words")
    assert read(feature)["whole"] is True
    monkeypatch.setattr(reading, "MOST", 2)
    assert read(feature)["whole"] is False
    monkeypatch.undo()
    for who in ("rita", "sam") * 51:
        feature.github.review(feature.pull(), who, "APPROVED")
    found = read(feature)
    assert (len(found["reviews"]), found["whole"]) == (100, False)
    monkeypatch.setattr(reading, "LOGINS", 1)
    assert read(feature)["whole"] is False


def test_what_cannot_be_read_to_its_end_is_not_queued(feature: Hosted, monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "REVIEWS", 1)
    for who in ("rita", "sam"):
        feature.github.review(feature.pull(), who, "APPROVED")
    feature.github.say(feature.pull(), "sam", "/gastown queue")
    feature.deliver()
    feature.stage.until(lambda: "more reviews or comments than can be read" in feature.said())
    assert not ReviewEntry.objects.exclude(kind="check").exists()


def test_who_has_made_it_is_known_when_each_commit_is_an_accounts_or_an_agents(feature: Hosted) -> None:
    found = read(feature)
    assert (found["authors"], found["authors_known"]) == (["ann"], True)
    del feature.github.people["ann"]  # her mail is linked to no account
    found = read(feature)
    assert (found["authors"], found["authors_known"]) == ([], False)


@pytest.mark.parametrize(
    ("count", "mail", "known"),
    [(249, "toast@gastown.invalid", True), (250, "toast@gastown.invalid", False), (1, "toast@example.org", False)],
)
def test_agents_have_no_account_and_what_is_longer_than_is_told_is_not_known(
    count: int, mail: str, *, known: bool
) -> None:
    row = {"author": None, "commit": {"author": {"name": "toast", "email": mail}}}
    assert answers.authors([row] * count) == ((), known)


def test_a_linked_person_is_known_by_the_mail_of_their_commits_whatever_the_case_of_their_login(
    hosted: Hosted, django_user_model: Any
) -> None:
    hosted.open(pr={"people": {"Rita": "rita-here"}})
    django_user_model.objects.create_user("rita-here", email="rita@example.org")
    by = hearing.actor(hosted.stage.rig, "rita")
    assert (str(by), by.mail) == ("pr:rita-here", "rita@example.org")
    assert str(hearing.actor(hosted.stage.rig, "sam")) == "github:sam"
