"""A workspace that was made to harm who takes it in: it is judged in time, its files are kept, and nobody else waits.

The class: whatever a run leaves in its git directory, the harvest ends with a verdict. *Unsaved* is only for a mirror
or a disk that cannot be had, never for what the run itself has done: it would be tried again for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import harvest, insides, limits, policy, watching, workspace
from agents.runtime.door import Limits
from tests.acceptance.conftest import Stage
from tests.acceptance.test_workspaces import Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(harvest, "STATUS_SECONDS", 3.0)
    monkeypatch.setattr(harvest, "LOOK_SECONDS", 3.0)
    return Scene(tmp_path)


def take_in(scene: Scene) -> harvest.Harvest:
    """With little time for a pack."""
    within = Limits(seconds=5.0)
    return harvest.take_in(scene.space, "run-1", scene.base, insides.outside(scene.space), within)


def deep(at: Path, name: str, depth: int) -> None:
    """Directories one in the other, deeper than any path can say."""
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(at)
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.fchdir(back)
        os.close(back)


def archived(scene: Scene, found: harvest.Harvest) -> list[str]:
    kind, _, name = found.salvage.partition(":")
    assert kind == "file"
    listed = subprocess.run(["tar", "-tzf", str(scene.home / name)], capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


def test_hostile_refs_deeper_than_any_path_keep_nobody_from_looking(scene: Scene) -> None:
    sha = scene.commit(scene.tree, {"new.txt": "new\n"})
    (scene.tree / ".git" / "refs" / "heads" / "odd").mkdir()
    deep(scene.tree / ".git" / "refs" / "heads" / "odd", "d", 3000)
    found = take_in(scene)
    subprocess.run(["rm", "-rf", str(scene.tree)], check=True)  # not everybody can
    assert (found.head, found.work) == (sha, "new")


def test_hostile_refs_by_a_link_are_not_read(scene: Scene) -> None:
    """They would say where other runs are, and those of other rigs."""
    scene.git("update-ref", "refs/gastown/runs/other", scene.base, cwd=scene.mirror)
    heads = scene.tree / ".git" / "refs" / "heads"
    for place in (heads, heads.parent):
        place.rename(place.with_name("away"))
        place.symlink_to(scene.mirror / "refs")
        seen = workspace.peek(scene.tree)
        assert seen is not None and not seen.branches
        place.unlink()
        place.with_name("away").rename(place)


def test_hostile_objects_that_are_pipes_end_in_a_verdict_and_the_files_are_kept(scene: Scene) -> None:
    objects = scene.tree / ".git" / "objects"
    (objects / "ab").mkdir()
    os.mkfifo(objects / "ab" / ("c" * 38))
    (scene.tree / ".git" / "HEAD").write_text("ab" + "c" * 38 + "\n")
    os.mkfifo(objects / "pack" / "pack-1.idx")
    (objects / "pack" / "pack-1.pack").write_text("none")
    (scene.tree / "work.txt").write_text("hours of work\n")
    found = take_in(scene)
    assert found.work == "refused" and found.head == ""
    assert "./work.txt" in archived(scene, found)


def test_hostile_files_too_large_to_be_hashed_do_not_last_for_ever(scene: Scene) -> None:
    for number in range(3):
        with (scene.tree / f"big{number}").open("wb") as file:
            file.truncate(200 << 30)
    (scene.tree / "work.txt").write_text("hours of work\n")
    found = take_in(scene)
    assert found.work == "uncommitted"
    assert "./work.txt" in archived(scene, found)


def test_hostile_a_head_that_is_a_tag_is_refused_and_the_work_is_saved(scene: Scene) -> None:
    scene.commit(scene.tree, {"new.txt": "new\n"})
    scene.git("tag", "-a", "odd", "-m", "odd", cwd=scene.tree)
    (scene.tree / ".git" / "HEAD").write_text(scene.git("rev-parse", "odd", cwd=scene.tree) + "\n")
    (scene.tree / "work.txt").write_text("work\n")
    found = take_in(scene)
    assert found.work == "refused" and "no commit" in found.text
    assert scene.arrived(found.salvage, "work.txt") == "work"
    assert scene.arrived(found.salvage, "new.txt") == "new"


def test_hostile_damaged_objects_are_mended_from_the_files_where_they_can_be(scene: Scene) -> None:
    scene.commit(scene.tree, {"new.txt": "new\n"})
    tree = scene.git("rev-parse", "HEAD^{tree}", cwd=scene.tree)
    (scene.tree / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    (scene.tree / ".git" / "index").unlink()
    found = take_in(scene)
    assert found.work == "new"
    assert scene.arrived(found.head, "new.txt") == "new"


def test_hostile_branches_that_no_repository_takes_both_keep_no_head_out(scene: Scene) -> None:
    one, two, three = (scene.commit(scene.tree, {"new.txt": f"{n}\n"}) for n in range(3))
    with (scene.tree / ".git" / "packed-refs").open("a") as file:
        file.write(f"{one} refs/heads/x\n{two} refs/heads/x/y\n")
    found = take_in(scene)
    assert (found.head, found.work) == (three, "new")


@pytest.mark.long
def test_hostile_trees_with_more_files_than_a_disk_are_refused_before_they_are_listed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MOST_BYTES", 8 << 20)

    def tree(rows: list[str]) -> str:
        done = subprocess.run(
            ["git", "mktree"], input="\n".join(rows) + "\n", capture_output=True, text=True, cwd=scene.tree
        )
        return done.stdout.strip()

    words = ["git", "hash-object", "-w", "--stdin"]
    blob = subprocess.run(words, input=b"ha", capture_output=True, cwd=scene.tree, check=True).stdout.decode().strip()
    at = tree([f"100644 blob {blob}\tf{n}" for n in range(10)])
    for _ in range(9):
        at = tree([f"040000 tree {at}\td{n}" for n in range(10)])
    root = tree([*scene.git("ls-tree", "HEAD", cwd=scene.tree).splitlines(), f"040000 tree {at}\tbomb"])
    sha = scene.git("commit-tree", root, "-p", scene.base, "-m", "bomb", cwd=scene.tree)
    (scene.tree / ".git" / "HEAD").write_text(f"{sha}\n")
    began = time.monotonic()
    found = take_in(scene)
    assert time.monotonic() - began < 30
    assert found.work == "refused" and "more files" in found.text


def test_s11_what_lies_deeper_than_any_path_counts_for_the_disk(tmp_path: Path) -> None:
    deep(tmp_path, "d" * 200, 60)
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(60):
            os.chdir("d" * 200)
        with open("much", "wb") as file:
            file.write(b"x" * (3 << 20))
    finally:
        os.fchdir(back)
        os.close(back)
    before = len(os.listdir("/proc/self/fd"))
    assert sum(watching.sizes([tmp_path])) >= 3 << 20
    assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 200))], check=True)


def test_s11_files_without_a_name_count_for_the_disk(tmp_path: Path) -> None:
    script = "import os, sys; f = open('much', 'wb'); os.unlink('much'); f.write(b'x' * (3 << 20)); f.flush();"
    script += "print('written', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        for most, told in ((2 << 20, "disk limit of 2M reached"), (8 << 20, "")):
            watch = watching.Watch(limits.Limits(disk=most), lambda: [process.pid], [tmp_path])
            assert watch.look() == told
        process.stdin.close()


@pytest.mark.long
def test_hostile_one_workspace_that_cannot_be_cleared_keeps_no_other_and_nobody_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.open()
    beads = [stage.sling(name, "echo x > x.txt; git add -A; git commit -qm x; exit 3") for name in ("one", "two")]
    for bead in beads:
        stage.await_bead(bead, "failed")
    runner = stage.runner
    from agents.models import Run

    runs = list(Run.objects.filter(bead__in=beads).order_by("pk"))
    root = runner.home / "workspaces"
    for run in runs:
        (root / run.pk).mkdir(parents=True, exist_ok=True)
    bad, cleared = runs[0].pk, []

    def clear(run: Any) -> None:
        if run.pk == bad:
            raise RecursionError("too deep")
        cleared.append(run.pk)
        (root / run.pk).rmdir()

    monkeypatch.setattr(runner.leftovers, "_clear", clear)
    runner.leftovers.clean()
    assert sorted(cleared) == sorted(run.pk for run in runs[1:])
    held, go_on = [], threading.Event()

    def wait() -> None:
        held.append(True)
        go_on.wait(20)

    monkeypatch.setattr(runner.leftovers, "clean", wait)
    runner.leftovers.clean_aside()
    runner.leftovers.clean_aside()
    assert runner.leftovers._cleaner is not None and runner.leftovers._cleaner.is_alive()  # and we are here
    go_on.set()
    runner.leftovers._cleaner.join(5)
    assert len(held) == 1
