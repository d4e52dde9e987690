"""People's own pull requests: called by a comment, gated, landed exactly as gated, told in one comment."""

from __future__ import annotations

from refinery.models import HostedPull, ReviewEntry
from tests.hosts.conftest import Hosted


def test_a_pull_request_is_queued_by_a_comment_and_landed(hosted: Hosted) -> None:
    hosted.open(gates=["test -f a.txt"])
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature", "Add a")
    hosted.github.people["ann"] = "write"
    hosted.github.say(pull, "sam", "looks good")
    hosted.github.say(pull, "ann", "/gastown queue")
    assert set(hosted.deliver()) == {202}
    entry = hosted.stage.until(lambda: hosted.entry())
    assert (entry.branch, entry.author, entry.bead.title) == ("feature", "github:ann", "Add a")
    hosted.stage.await_phase(entry, "merged")
    entry.refresh_from_db()
    assert hosted.stage.sha() == entry.merge_sha
    assert hosted.stage.file("a.txt") == "a"
    hosted.stage.until(lambda: pull.state == "closed")
    hosted.stage.until(lambda: entry.merge_sha in hosted.said())
    hosted.stage.until(lambda: HostedPull.objects.get().ended_at)
    assert pull.head in hosted.github.statuses
    assert hosted.github.statuses[pull.head]["gastown"]["state"] == "success"


def test_a_comment_by_somebody_without_rights_does_nothing_and_is_answered(hosted: Hosted) -> None:
    hosted.open()
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature")
    hosted.github.say(pull, "eve", "/gastown land")
    hosted.deliver()
    hosted.stage.until(lambda: "may not write" in hosted.said())
    assert not ReviewEntry.objects.exclude(kind="check").exists()


def test_hooks_that_are_lost_altogether_are_made_good_by_looking(hosted: Hosted) -> None:
    hosted.open()
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature")
    hosted.stage.step()
    hosted.github.say(pull, "sam", "/gastown land")
    hosted.server.lose_hooks()
    entry = hosted.stage.until(lambda: hosted.entry())
    hosted.stage.await_phase(entry, "merged")


def test_who_says_land_approves_only_the_commit_that_is_named(hosted: Hosted) -> None:
    hosted.open(merge_strategy="pr")
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature")
    hosted.github.say(pull, "sam", "/gastown land")
    hosted.deliver()
    entry = hosted.stage.until(lambda: hosted.entry())
    hosted.stage.until(lambda: f"land {pull.head}" in hosted.said())
    assert not entry.verdicts.exists()
    hosted.github.say(pull, "sam", f"/gastown land {'b' * 40}")
    hosted.deliver()
    hosted.stage.until(lambda: "its head is" in hosted.said())
    assert not entry.verdicts.exists()
    hosted.github.say(pull, "sam", f"/gastown land {pull.head}")
    hosted.deliver()
    hosted.stage.await_phase(entry, "merged")


def test_a_fork_is_taken_from_githubs_own_ref(hosted: Hosted) -> None:
    hosted.open()
    stage = hosted.stage
    fork = stage.root / "fork.git"
    stage.git("clone", "-q", "--bare", str(stage.remote), str(fork), cwd=stage.root)
    stage.git("checkout", "-q", "-B", "work", "origin/main", check=False)
    stage.git("commit", "-q", "--allow-empty", "-m", "x", check=False)
    (stage.clone / "b.txt").write_text("b\n")
    stage.git("add", "-A")
    stage.git("commit", "-q", "-m", "Add b")
    stage.git("push", "-q", str(fork), "HEAD:refs/heads/work")
    pull = hosted.github.open("ann", "work", "Add b", fork=fork)
    hosted.github.say(pull, "sam", "/gastown queue")
    hosted.deliver()
    entry = stage.until(lambda: hosted.entry())
    assert entry.branch == "refs/pull/1/head"
    stage.await_phase(entry, "merged")
    assert stage.file("b.txt") == "b"


def test_a_doubled_hook_and_a_doubled_command_make_one_entry(hosted: Hosted) -> None:
    hosted.open()
    hosted.stage.commit("feature", {"a.txt": "a\n"})
    pull = hosted.github.open("ann", "feature")
    hosted.github.say(pull, "sam", "/gastown queue")
    hosted.github.say(pull, "sam", "/gastown queue")
    assert set(hosted.deliver(times=2)) == {202}
    entry = hosted.stage.until(lambda: hosted.entry())
    hosted.stage.await_phase(entry, "merged")
    assert ReviewEntry.objects.exclude(kind="check").count() == 1
