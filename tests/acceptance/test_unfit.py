"""Changes that must not be built end at once, with their reason, and the lane goes on: through the whole town."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.errors import Refused
from beads.models import Bead, Effect, Escalation, Rig
from refinery.decisions import merge_queue, towns
from refinery.executor import perform
from refinery.git.mirror import repo_of
from refinery.models import GateResult, ReviewEntry
from tests.acceptance.conftest import WHO, Stage


def raw(stage: Stage, branch: str, author: bytes) -> None:
    """A branch whose commit has just this author line."""
    stage.commit(branch, {f"{branch}.txt": "x\n"})
    tree, parent = stage.git("rev-parse", "HEAD^{tree}"), stage.git("rev-parse", "HEAD^")
    body = f"tree {tree}\nparent {parent}\n".encode() + b"author " + author
    body += b"\ncommitter Ok <ok@example.org> 1700000000 +0530\n\nOdd\n"
    command = ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"]
    sha = subprocess.run(command, cwd=stage.clone, input=body, capture_output=True, check=True).stdout.decode().strip()
    stage.git("push", "-q", "--force", str(stage.remote), f"{sha}:refs/heads/{branch}")


def unrelated(stage: Stage, branch: str) -> None:
    stage.git("checkout", "-q", "--orphan", branch)
    stage.git("commit", "-q", "-m", "anew")
    stage.git("push", "-q", str(stage.remote), f"HEAD:refs/heads/{branch}")


def test_g5_g11_what_is_unfit_fails_at_once_with_its_reason_and_the_lane_goes_on(stage: Stage) -> None:
    stage.open(agents=False)
    unrelated(stage, "island")
    stage.git("checkout", "-q", "-f", "-B", "link", "main")
    stage.git("init", "-q", "-b", "main", "frontend")
    stage.git("commit", "-q", "--allow-empty", "-m", "inside", cwd=stage.clone / "frontend")
    stage.commit("link", {"x.txt": "x\n"}, start=None)
    shutil.rmtree(stage.clone / "frontend")
    stage.commit("innocent", {"y.txt": "y\n"})
    island, link, innocent = (stage.submit(name) for name in ("island", "link", "innocent"))
    stage.await_phase(innocent, "merged")
    failed = stage.await_phase(island, "failed")
    assert (failed.reason, failed.bead.status) == ("unfit", "failed")
    assert failed.reason_text.startswith("island has no commit in common with main")
    failed = stage.await_phase(link, "failed")
    assert "frontend: a repository inside the repository" in failed.reason_text
    assert not Escalation.objects.filter(key__startswith="effect:").exists()
    assert sorted(stage.git("ls-tree", "--name-only", "main", cwd=stage.remote).split()) == [
        "README.md", "signs.txt", "y.txt",
    ]  # fmt: skip


@pytest.mark.long
def test_g4_odd_authors_land_and_hold_nobody_up(stage: Stage) -> None:
    stage.open(agents=False)
    lines = {
        "dot": b". <a@example.org> 1700000000 +0530",
        "negative": b"Old <a@example.org> -100000 +0000",
        "undated": b"No Date <a@example.org>",
        "far": b"Far <a@example.org> 18446744073709551615 +0000",
    }
    for name, line in lines.items():
        raw(stage, name, line)
    entries = [stage.submit(name) for name in lines]
    for entry in entries:
        stage.await_phase(entry, "merged")
    authors = set(stage.git("log", "--format=%an %ad", "--date=raw", "-4", "main", cwd=stage.remote).splitlines())
    when = "1700000000 +0530"
    assert authors == {f". {when}", f"Old {when}", f"No Date {when}", f"Far {when}"}


@pytest.mark.long
def test_g14_an_evil_merge_fails_under_rebase_and_lands_when_it_is_squashed(stage: Stage) -> None:
    stage.open(agents=False, merge_method="rebase")
    stage.commit("evil", {"b.txt": "b\n"})
    branch = stage.git("rev-parse", "HEAD")
    stage.commit("main", {"m.txt": "m\n"})
    stage.git("checkout", "-q", "-B", "evil", branch)
    stage.git("merge", "-q", "--no-commit", "--no-ff", "main")
    stage.commit("evil", {"fix.txt": "needed\n"}, start=None)
    entry = stage.await_phase(stage.submit("evil"), "failed")
    assert entry.reason == "unfit"
    assert 'Set merge_method to "squash" or "merge"' in entry.reason_text
    ledger.set_config(stage.rig, configs.validate({"refinery": {"merge_method": "squash"}}))
    merge_queue.retry_entry(entry, by=WHO)
    stage.await_phase(entry, "merged")
    assert stage.file("fix.txt") == "needed"


def test_g22_g16_the_committer_is_the_configs_and_the_title_is_real(stage: Stage) -> None:
    stage.open(agents=False)
    ledger.set_config(stage.rig, configs.validate({"git": {"name": "Robo", "email": "robo@example.org"}}))
    stage.commit("feature", {"f.txt": "f\n"})
    stage.git("commit", "-q", "--allow-empty", "-m", "fixup! Change f.txt")
    stage.git("push", "-q", str(stage.remote), "HEAD:refs/heads/feature")
    entry = stage.await_phase(stage.submit("feature"), "merged")
    assert entry.bead.title == "Change f.txt"
    assert stage.git("log", "-1", "--format=%s|%cn <%ce>", "main", cwd=stage.remote) == (
        "Change f.txt|Robo <robo@example.org>"
    )


def test_g3_the_same_change_in_another_rig_is_gated_and_lands_there(stage: Stage) -> None:
    stage.open(agents=False, auto_merge=False)
    stage.commit("feature", {"f.txt": "f\n"})
    fork = stage.root / "fork.git"
    stage.git("clone", "-q", "--bare", str(stage.remote), str(fork), cwd=stage.root)
    waits = stage.await_phase(stage.submit("feature"), "awaiting_human")
    told: dict[str, Any] = {"refinery": {"auto_merge": True}}
    rig = towns.add_rig("main", "fork", str(fork), None, told)
    second, _ = merge_queue.submit(rig, merge_queue.Submission("feature"), by=WHO)
    stage.await_phase(second, "merged")
    trees = set(GateResult.objects.values_list("tree_sha", flat=True))
    assert (len(trees), GateResult.objects.count()) == (1, 2)  # each rig's own
    assert Run.objects.filter(kind="gates", bead=second.pk).count() == 1
    assert ReviewEntry.objects.get(pk=waits.pk).state == "active"
    assert not Bead.objects.filter(status="failed").exists()


@pytest.mark.parametrize("what", ["shallow", "sha256"])
def test_g20_a_remote_that_cannot_be_served_is_refused_with_its_reason_and_leaves_nothing(
    stage: Stage, what: str
) -> None:
    ledger.create_town("main", {})
    remote = stage.root / f"{what}.git"
    if what == "shallow":
        stage.commit("main", {"second.txt": "2\n"})
        stage.git("clone", "-q", "--bare", "--depth", "1", f"file://{stage.remote}", str(remote))
        said = ("the remote is shallow", "git fetch --unshallow")
    else:
        work = stage.root / "work"
        stage.git("init", "-q", "-b", "main", "--object-format=sha256", str(work))
        stage.git("commit", "-q", "--allow-empty", "-m", "First", cwd=work)
        stage.git("clone", "-q", "--bare", str(work), str(remote))
        said = ("SHA-256", "cannot be used")
    with pytest.raises(Refused) as refused:
        towns.add_rig("main", "proj", str(remote), None, {})
    assert all(word in str(refused.value) for word in said), refused.value
    assert refused.value.details == {"field": "remote_url"}
    assert not Rig.objects.exists() and not list((Path(stage.runner.home) / "repos").glob("new-*"))
    towns.add_rig("main", "proj", str(stage.remote), None, {})  # the same name, for one that can
    assert not list((Path(stage.runner.home) / "repos").glob("new-*"))


def test_g4_what_fails_here_again_and_again_is_held_with_its_reason_and_told_of_its_entry(stage: Stage) -> None:
    stage.open(agents=False)
    stage.commit("main", {".gitattributes": "*.log merge=union\n"})
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    in_the_way = repo_of(stage.rig).path / "gastown"
    in_the_way.write_text("in the way")
    builds = Effect.objects.filter(kind="build", state="pending")
    stage.until(lambda: builds.filter(attempts=1, error__contains="attributes").exists())
    builds.update(attempts=perform.STRUGGLING - 1, next_try_at=timezone.now())
    held = stage.await_phase(entry, "awaiting_human")
    assert held.held == "build_error"
    assert held.held_text.startswith("the target's attributes: ")
    assert Escalation.objects.get(closed_at=None).about_id == entry.pk
    in_the_way.unlink()
    merge_queue.retry_entry(held, by=WHO)
    stage.await_phase(entry, "merged")
