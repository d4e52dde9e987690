"""Our changes as pull requests: offered as drafts, reviewed there, reworked, approved, landed, closed."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Mail
from beads import secrets
from beads.actors import Actor
from beads.models import Bead, Convoy, Escalation
from refinery.decisions import reviews
from refinery.models import HostedPull, Landing, ReviewEntry, RigHost
from refinery.tick import reconciler
from tests.hosts.conftest import Hosted


def change(hosted: Hosted, name: str = "feature") -> ReviewEntry:
    """A person's branch, submitted, which people are to review."""
    hosted.stage.commit(name, {f"{name}.txt": "x\n"})
    return hosted.stage.submit(name)


def test_an_agents_change_is_offered_reworked_after_a_line_comment_approved_and_landed(hosted: Hosted) -> None:
    hosted.open(agents=True, merge_strategy="pr", gates=["test -f a.py"])
    stage = hosted.stage
    bead = stage.sling("Write @everyone `it`", "echo 'answer = 41' > a.py\n---rework---\necho 'answer = 42' > a.py")
    row = stage.until(lambda: HostedPull.objects.first())
    pull = hosted.pull()
    assert (pull.title, pull.base) == ("Write @everyone `it`", "main")
    assert "answer = 41" in pull.body and bead.pk in pull.body.replace("&#45;", "-")
    stage.until(lambda: not pull.draft)
    assert hosted.github.statuses[pull.head]["gastown/test -f a.py"]["state"] == "success"
    first = pull.head
    hosted.github.review(pull, "rita", "CHANGES_REQUESTED", "not yet", [("a.py", 1, "42, surely")])
    hosted.deliver()
    stage.until(lambda: pull.head != first)
    assert "a.py:1: 42, surely" in Mail.objects.get(kind="REWORK_REQUEST").body
    assert "a.py:1: 42, surely" in Bead.objects.get(purpose="rework").body
    entry = stage.until(lambda: (e := hosted.entry()) and e.head_sha == pull.head and e)
    assert entry.branch == pull.branch
    stage.await_phase(entry, "awaiting_human")
    hosted.github.review(pull, "rita", "APPROVED")
    hosted.deliver()
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert stage.file("a.py") == "answer = 42"
    stage.until(lambda: pull.state == "closed" and HostedPull.objects.get(pk=row.pk).ended_at)
    entry.refresh_from_db()
    assert entry.merge_sha in hosted.said()
    assert len(hosted.github.pulls) == 1


def test_approvals_count_for_the_gated_head_by_who_may_write_and_has_not_made_it(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    hosted.github.people["ann"] = "write"
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    pull = hosted.pull()
    hosted.github.review(pull, "eve", "APPROVED")  # may only read
    hosted.github.review(pull, "ann", "APPROVED")  # has written its commit
    old = hosted.github.review(pull, "rita", "APPROVED")
    old["sha"] = "f" * 40  # of another head
    hosted.deliver()
    hosted.stage.until(lambda: "does not count" in hosted.said())
    assert hosted.stage.phase(entry) == "awaiting_human"
    assert not entry.verdicts.exists()
    hosted.github.review(pull, "sam", "APPROVED")
    hosted.deliver()
    hosted.stage.await_phase(entry, "merged")
    assert entry.verdicts.get().by == "github:sam"


def test_a_dismissed_approval_counts_no_more(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr", pr={"auto_merge_delay": "1h"})
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    pull = hosted.pull()
    review = hosted.github.review(pull, "rita", "APPROVED")
    hosted.deliver()
    hosted.stage.until(lambda: entry.verdicts.filter(decision="approve").exists())
    hosted.github.dismiss(pull, review)
    hosted.deliver()
    hosted.stage.until(lambda: entry.verdicts.filter(decision="withdraw").exists())
    assert "waits for a person's approval" in _why(hosted, entry)


def test_people_who_are_linked_are_one_on_both_sides(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr", pr={"people": {"rita": "rita-here"}, "required_approvals": 2})
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    hosted.github.review(hosted.pull(), "rita", "APPROVED")
    hosted.deliver()
    hosted.stage.until(lambda: entry.verdicts.exists())
    assert entry.verdicts.get().by == "pr:rita-here"
    assert hosted.stage.phase(entry) == "awaiting_human"


@pytest.mark.parametrize("how", ["close", "squash", "push"])
def test_what_others_do_there_is_seen_and_answered(hosted: Hosted, how: str) -> None:
    hosted.open(merge_strategy="pr")
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    pull = hosted.pull()
    if how == "push":
        head = hosted.stage.commit("feature", {"more.txt": "m\n"}, start="feature")
        hosted.server.github.refresh()
        hosted.deliver()
        hosted.stage.until(lambda: ReviewEntry.objects.get(pk=entry.pk).head_sha == head)
        return
    getattr(hosted.github, how)(pull)
    hosted.deliver()
    ended = hosted.stage.await_phase(entry, "merged", "failed")
    told: dict[str, Any] = {"close": ("failed", "rejected"), "squash": ("merged", "already_merged")}
    assert (ended.state, ended.reason) == told[how]
    hosted.stage.until(lambda: HostedPull.objects.get().ended_at)
    assert not Landing.objects.exists()


def test_a_host_that_is_down_for_a_while_loses_nothing_and_lets_nothing_land(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    fault = hosted.server.fail(status=503, times=10_000)
    hosted.stage.until(lambda: RigHost.objects.exclude(trouble="").exists())
    reviews.approve(ReviewEntry.objects.get(pk=entry.pk), by=Actor("web", "rita"))
    for _ in range(5):
        hosted.stage.step()
    assert "not known" in _why(hosted, entry)
    assert not Landing.objects.exists()
    fault.times = 0
    hosted.stage.await_phase(entry, "merged")


def _why(hosted: Hosted, entry: ReviewEntry) -> str:
    return next(d.why for d in reconciler.explain(hosted.stage.town) if d.subject == f"entry {entry.pk}")


def test_a_push_that_protection_refuses_is_told_there_with_its_words(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and not hosted.pull().draft)
    guard = hosted.stage.remote / "hooks/pre-receive"
    guard.parent.mkdir(exist_ok=True)
    guard.write_text("#!/bin/sh\necho 'GH006: Protected branch update failed' >&2\nexit 1\n")
    guard.chmod(0o755)
    hosted.github.review(hosted.pull(), "rita", "APPROVED")
    hosted.deliver()
    hosted.stage.until(lambda: ReviewEntry.objects.get(pk=entry.pk).held == "push_refused")
    HostedPull.objects.update(told_at=None)  # half a minute goes by
    hosted.stage.until(lambda: "GH006" in hosted.said())
    assert hosted.pull().state == "open"
    assert hosted.github.statuses[hosted.pull().head]["gastown"]["state"] == "error"


def test_a_token_without_the_right_to_say_statuses_is_told_of_and_all_else_goes_on(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    hosted.server.fail("POST .*/statuses/", 403, message="Resource not accessible by integration", times=10_000)
    entry = change(hosted)
    hosted.stage.until(lambda: hosted.row() and hosted.stage.phase(entry) == "awaiting_human")
    hosted.github.review(hosted.pull(), "rita", "APPROVED")
    hosted.deliver()
    hosted.stage.await_phase(entry, "merged")
    (told,) = Escalation.objects.filter(key="effect:report_pull:main")
    assert "not accessible" in told.bead.body
    assert not RigHost.objects.exclude(trouble="").exists()


def test_a_refused_token_is_told_with_the_command_that_mends_it(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    hosted.github.token = "ghp_revoked"
    told = hosted.stage.until(lambda: Escalation.objects.filter(key="pr-host:proj", closed_at=None).first())
    assert "gastown secret set GITHUB_TOKEN" in told.bead.body
    secrets.set_secret(hosted.stage.town, "GITHUB_TOKEN", "ghp_revoked", "test")
    hosted.stage.until(lambda: not Escalation.objects.filter(key="pr-host:proj", closed_at=None).exists())


@pytest.mark.long
def test_a_convoy_is_one_pull_request_whose_commits_are_its_beads(hosted: Hosted) -> None:
    hosted.open(agents=True, merge_strategy="pr")
    stage = hosted.stage
    convoy = stage.convoy("Signs", {"one": ("echo 1 > one.txt", []), "two": ("echo 2 > two.txt", ["one"])})
    stage.until(lambda: hosted.row() and not hosted.pull().draft)
    pull = hosted.pull()
    assert pull.title == "Land convoy: Signs"
    assert all(bead.title in pull.body for bead in convoy.beads.all())
    with hosted.server.lock:
        assert len(hosted.github.commits(pull)) == 2
    hosted.github.review(pull, "rita", "APPROVED")
    hosted.deliver()
    stage.until(lambda: Convoy.objects.get(pk=convoy.pk).landed_sha)
    assert (stage.file("one.txt"), stage.file("two.txt")) == ("1", "2")
    stage.until(lambda: HostedPull.objects.get().ended_at)
    assert len(hosted.github.pulls) == 1
