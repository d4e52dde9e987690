"""What a reading of a pull request believes: of its head, and of what it was merged as, git has the last word."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from agents.runtime.gitcmd import GitFailed
from beads.models import Rig
from refinery.core import effects
from refinery.executor import pulls
from refinery.models import HostedPull
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
