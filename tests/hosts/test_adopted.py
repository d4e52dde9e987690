"""The pull request that an agent says it has made: it is taken when the host shows that it is just that; else Gastown
makes one, and says what differs."""

from __future__ import annotations

from typing import Any

import pytest

from refinery.models import HostedPull, ReviewEntry
from tests.hosts.conftest import Hosted


def named(hosted: Hosted, number: int = 1) -> ReviewEntry:
    """An agent has worked, and names a pull request; the offer of ours is held back."""
    hosted.open(agents=True, merge_strategy="pr")
    hosted.stage.hold = {"offer_pull"}
    url = f"{hosted.server.url}/acme/proj/pull/{number}"
    hosted.stage.sling("Write it", f"echo 'answer = 42' > a.py\n---pull---\n{url}")
    entry: ReviewEntry = hosted.stage.until(lambda: ReviewEntry.objects.filter(kind="change", on_remote=True).first())
    return entry


def test_an_agents_own_pull_request_shows_its_change_and_lands(hosted: Hosted) -> None:
    entry = named(hosted)
    stage = hosted.stage
    stage.git("update-ref", "refs/heads/mine", entry.head_sha, cwd=stage.remote)
    pull = hosted.github.open("bot", "mine", "Of the agent's own")
    stage.hold = set()
    row = stage.until(lambda: HostedPull.objects.first())
    assert (row.number, row.entry_id, len(hosted.github.pulls)) == (1, entry.pk, 1)
    entry.refresh_from_db()
    assert entry.branch == "mine"
    hosted.github.review(pull, "rita", "APPROVED")
    hosted.deliver()
    stage.await_phase(entry, "merged")
    assert stage.file("a.py") == "answer = 42"


@pytest.mark.parametrize("how", ["another head", "a fork", "missing"])
def test_one_that_is_not_just_that_is_refused_with_what_differs(hosted: Hosted, how: str) -> None:
    entry = named(hosted, {"missing": 99}.get(how, 1))
    stage = hosted.stage
    stage.git("update-ref", "refs/heads/mine", entry.head_sha, cwd=stage.remote)
    more: dict[str, Any] = {}
    if how == "another head":
        stage.commit("mine", {"b.py": "b\n"}, start="mine")
    if how == "a fork":
        more["fork"] = stage.root / "fork.git"
        stage.git("clone", "-q", "--bare", str(stage.remote), str(more["fork"]), cwd=stage.root)
    hosted.github.open("ann", "mine", "Of the agent's own", **more)
    stage.hold = set()
    row = stage.until(lambda: HostedPull.objects.first())
    assert (row.number, row.offered) == (2, True)
    why = {"another head": "the head of pull request", "a fork": "is in ann/proj", "missing": "#99, which is not there"}
    assert why[how] in row.answer
    stage.until(lambda: hosted.said(2))
    entry.refresh_from_db()
    assert entry.branch != "mine"
