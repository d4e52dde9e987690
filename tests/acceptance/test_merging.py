"""Rows M of the scenarios, over a real remote, real gates in real processes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.db import connection

from agents.models import Mail, Run
from agents.runtime.gitcmd import check_branch
from beads import ledger
from beads.errors import Conflict, Invalid
from beads.models import Bead, Escalation
from refinery.decisions import merge_queue, reviews, towns, work
from refinery.executor import perform
from refinery.git.mirror import repo_of
from refinery.models import Candidate, GateResult, Landing, ReviewEntry
from refinery.store import landings
from refinery.tick import reconciler
from tests.acceptance.conftest import WHO, Stage

PYTHON = "python3 -m py_compile $(git ls-files '*.py')"


def test_m1_a_branch_that_breaks_the_gate_is_sent_back_and_the_target_is_untouched(stage: Stage) -> None:
    stage.open(agents=False, gates=[PYTHON])
    before = stage.sha()
    stage.commit("bad", {"bad.py": "x = 1\ndef broken(:\n"})
    entry = stage.await_phase(stage.submit("bad"), "failed")
    assert entry.reason == "gates_failed"
    assert stage.sha() == before
    mail = Mail.objects.get(kind="REWORK_REQUEST")
    assert "bad.py:2" in mail.body  # not what the target fails with, which has no Python to compile
    assert GateResult.objects.get(entry=entry).outcome == "fail"


@pytest.mark.long
def test_m1_with_polecats_the_rework_lands_on_the_same_entry(stage: Stage) -> None:
    stage.open(gates=[PYTHON])
    bead = stage.sling("Broken first", "echo 'def broken(:' > a.py\n---rework---\necho 'ok = 1' > a.py")
    bead = stage.await_bead(bead, "closed", "failed")
    assert bead.resolution == "merged"
    entry = ReviewEntry.objects.get(source=bead)
    assert entry.rework_count == 1
    assert stage.file("a.py") == "ok = 1"
    assert stage.log() == ["Broken first", "Change README.md, signs.txt"]
    rework = Bead.objects.get(purpose="rework")
    assert (rework.status, rework.resolution, rework.parent_id) == ("closed", "done", entry.pk)
    assert Mail.objects.get(kind="REWORK_REQUEST").recipient == entry.author


def test_m2_a_branch_pushed_between_gate_and_landing_is_gated_again_at_its_new_head(stage: Stage) -> None:
    stage.open(agents=False, auto_merge=False)
    stage.commit("feature", {"f.txt": "old\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    reviews.approve(entry, by=WHO)
    new = stage.commit("feature", {"f.txt": "new\n"}, force=True)
    stage.until(lambda: ReviewEntry.objects.get(pk=entry.pk).head_sha == new)
    entry = stage.await_phase(entry, "awaiting_human")  # M7: the approval was of the older head
    assert "f.txt" not in stage.git("ls-tree", "--name-only", "main", cwd=stage.remote)
    reviews.approve(entry, by=WHO)
    entry = stage.await_phase(entry, "merged")
    assert stage.file("f.txt") == "new"


def test_m3_a_target_that_moves_before_the_push_means_build_and_gate_again(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stage.hold.add("land")
    stage.until(lambda: Landing.objects.filter(entry=entry).exists())
    outside = stage.commit("main", {"outside.txt": "o\n"})
    stage.hold.clear()
    entry = stage.await_phase(entry, "merged")
    assert [x.state for x in entry.landings.all()] == ["moved", "landed"]
    assert stage.git("merge-base", "main", outside, cwd=stage.remote) == outside
    assert GateResult.objects.filter(tree_sha=stage.git("rev-parse", "main^{tree}", cwd=stage.remote)).exists()


def test_m4_a_head_that_the_target_has_already_closes_without_a_commit(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("old", {})
    stage.git("push", "-q", str(stage.remote), "HEAD:refs/heads/main")
    stage.commit("empty", {})
    before = stage.sha()
    bead = stage.sling("By hand", "")
    contained = stage.await_phase(stage.submit("old", bead=bead), "merged")
    empty = stage.await_phase(stage.submit("empty"), "merged")
    assert (contained.reason, empty.reason) == ("already_merged", "already_merged")
    assert Bead.objects.get(pk=bead.pk).resolution == "already_merged"
    assert stage.sha() == before


def test_m5_a_remote_that_refuses_the_push_holds_the_entry_and_tells_a_person(stage: Stage) -> None:
    stage.open(agents=False)
    hook = stage.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    stage.commit("feature", {"f.txt": "f\n"})
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    before = stage.sha()
    bead = stage.sling("By hand", "")
    entry = stage.await_phase(stage.submit("feature", bead=bead), "awaiting_human")
    assert entry.held == "push_refused"
    assert "main is protected" in entry.held_text
    assert stage.sha() == before
    assert stage.sha("feature") == entry.head_sha
    assert Bead.objects.get(pk=bead.pk).status == "in_review"
    assert Escalation.objects.get(closed_at=None).about_id == entry.pk
    hook.unlink()
    merge_queue.retry_entry(entry, by=WHO)
    assert stage.await_phase(entry, "merged").merge_sha == stage.sha()


@pytest.mark.parametrize("gate", ["no-such-command-here", "kill -9 $$", "exit 126"])
def test_m6_a_gate_that_cannot_be_run_is_an_error_and_nobodys_fault(stage: Stage, gate: str) -> None:
    stage.open(gates=[gate])
    before = stage.sha()
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    check = ReviewEntry.objects.get(kind="check")  # on the target itself it cannot be run either
    assert (entry.held, check.held) == ("", "gates_broken")
    assert {r.outcome for r in GateResult.objects.all()} == {"error"}
    assert stage.sha() == before
    assert Escalation.objects.get().about_id == check.pk
    assert not Mail.objects.filter(kind="REWORK_REQUEST").exists()
    assert not Bead.objects.filter(purpose="rework").exists()


@pytest.mark.parametrize("when", ["queued", "gating", "reviewing"])
def test_m8_a_cancelled_bead_is_never_merged_and_its_runs_are_stopped(stage: Stage, when: str) -> None:
    gates = ["while true; do sleep 0.1; done"] if when == "gating" else ["true"]
    stage.open(gates=gates, code_review=True)
    before = stage.sha()
    bead = stage.sling("By hand", "")
    stage.rig.refresh_from_db()
    towns.park(stage.rig, by=WHO)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature", bead=bead)
    if when != "queued":
        towns.unpark(stage.rig, by=WHO)
        kind = "gates" if when == "gating" else "refinery"
        stage.until(lambda: Run.objects.filter(bead_id=entry.pk, kind=kind, state="running").exists())
    work.cancel_bead(Bead.objects.get(pk=bead.pk), by=WHO, reason="not wanted")
    entry = stage.await_phase(entry, "failed")
    assert entry.reason == "cancelled"
    assert stage.await_bead(bead, "closed").resolution == "cancelled"
    stage.until(lambda: not Run.objects.exclude(state="ended").exists())
    assert stage.sha() == before


def test_m9_the_same_head_submitted_at_once_from_two_sides_is_one_entry(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("feature", {"f.txt": "f\n"})
    found: list[str] = []

    def submit() -> None:
        try:
            found.append(stage.submit("feature").pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(found) == {ReviewEntry.objects.get().pk}


def test_m9_a_new_head_supersedes_the_older_entry(stage: Stage) -> None:
    stage.open(agents=False)
    towns.park(stage.rig, by=WHO)
    stage.commit("feature", {"f.txt": "1\n"})
    old = stage.submit("feature")
    stage.commit("feature", {"f.txt": "2\n"}, force=True)
    new = stage.submit("feature")
    old.refresh_from_db()
    assert (old.state, old.reason, old.superseded_by_id) == ("failed", "superseded", new.pk)
    towns.unpark(stage.rig, by=WHO)
    stage.await_phase(new, "merged")
    assert stage.file("f.txt") == "2"


def test_m10_a_push_whose_record_was_lost_is_recognised_and_not_done_twice(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stage.hold.add("land")
    stage.until(lambda: Landing.objects.filter(entry=entry).exists())
    stage.hold.clear()
    landing = Landing.objects.get(entry=entry)
    # the executor pushed and was killed before it could record anything
    landings.begin_push(landing.pk)
    repo_of(stage.rig).land(str(stage.remote), "main", landing.expected_sha, Candidate.objects.get(entry=entry).sha)
    entry = stage.await_phase(entry, "merged")
    assert stage.log() == ["Change f.txt", "Change README.md, signs.txt"]
    assert Landing.objects.count() == 1


def test_m11_two_ticks_and_two_executors_at_once_make_one_candidate_and_one_landing(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stop = threading.Event()

    def other() -> None:
        from beads.models import Effect

        try:
            while not stop.is_set():
                reconciler.tick(stage.town)
                for effect in Effect.objects.filter(state="pending"):
                    perform.run_effect(effect.pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        entry = stage.await_phase(entry, "merged")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert Candidate.objects.count() == Landing.objects.count() == Run.objects.count() == 1
    assert len(stage.log()) == 2


def test_m12_m16_entries_that_conflict_pairwise_all_land_and_each_tree_was_gated(stage: Stage) -> None:
    stage.open(gates=["test -s signs.txt"])
    beads = [stage.sling(f"Sign {n}", f"sed -i '2s/.*/sign {n}/' signs.txt") for n in ("north", "south", "west")]
    for bead in beads:
        assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    tasks = Bead.objects.filter(purpose="conflict")
    assert tasks.count() >= 2
    assert all(task.status == "closed" and "signs.txt" in task.body and task.priority == 1 for task in tasks)
    assert {"sign north", "sign south", "sign west"} <= set(stage.file("signs.txt").splitlines())
    trees = stage.git("log", "--first-parent", "--format=%T", "-3", "main", cwd=stage.remote).split()
    assert set(trees) <= set(GateResult.objects.filter(outcome="pass").values_list("tree_sha", flat=True))


@pytest.mark.parametrize(
    "name",
    ["--upload-pack=x", "a;rm -rf", "x..y", "b" * 300, b"\xff\xfe", "", "a b", "a\nb", "x.lock", "@{u}", "/a", "a//b"],
)
def test_m13_hostile_branch_names_are_refused_with_the_reason(name: str | bytes) -> None:
    with pytest.raises(Invalid) as refused:
        check_branch(name)
    assert refused.value.details["field"] == "branch"
    assert "\n" not in refused.value.message


def test_m13_at_submit_nothing_is_left_behind(stage: Stage) -> None:
    stage.open(agents=False)
    with pytest.raises(Invalid):
        stage.submit("--upload-pack=touch hacked")
    with pytest.raises(Invalid, match="no branch nope"):
        stage.submit("nope")
    assert not Bead.objects.exists()


@pytest.mark.long
def test_m14_entries_for_different_targets_go_their_own_ways(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("release", {"r.txt": "r\n"})
    stage.commit("one", {"one.txt": "1\n"})
    stage.commit("two", {"two.txt": "2\n"})
    one, two = stage.submit("one"), stage.submit("two", target="release")
    stage.await_phase(one, "merged")
    stage.await_phase(two, "merged")
    assert "two.txt" not in stage.git("ls-tree", "--name-only", "main", cwd=stage.remote)
    assert "one.txt" not in stage.git("ls-tree", "--name-only", "release", cwd=stage.remote)
    assert stage.file("two.txt", "release") == "2"


def test_m7_an_approval_of_a_head_that_moved_is_refused(stage: Stage) -> None:
    stage.open(agents=False, auto_merge=False)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    with pytest.raises(Conflict, match="the head moved"):
        reviews.approve(entry, by=WHO, head="0" * 40)
    assert not entry.verdicts.exists()


def test_a_gate_sees_the_candidate_read_only_git_and_its_own_tmp(stage: Stage, tmp_path: Path) -> None:
    check = (
        "git status --short && git log -1 --format=%s && git diff --stat $GASTOWN_BASE HEAD && "
        'test "$(git rev-parse HEAD)" = "$GASTOWN_CANDIDATE" && test "$CI" = true && test -z "$GASTOWN_TOKEN" && '
        'test -f f.txt && test -z "$DATABASE_URL" && touch /tmp/mine'
    )
    stage.open(agents=False, gates=[check])
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "merged", "failed", "awaiting_human")
    assert entry.state == "merged", GateResult.objects.get().output


def test_what_was_escalated_is_settled_when_it_lands(stage: Stage) -> None:
    stage.open(agents=False, gates=["no-such-command-here"])
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    assert Escalation.objects.filter(closed_at=None).count() == 1
    ledger.set_config(stage.rig, {"refinery": {"gates": ["true"]}})
    stage.await_phase(entry, "merged")
    stage.until(lambda: not ReviewEntry.objects.filter(state="active").exists())
    assert not Escalation.objects.filter(closed_at=None).exists()
    assert [g.outcome for g in entry.gate_results.all()] == ["error", "pass"]
