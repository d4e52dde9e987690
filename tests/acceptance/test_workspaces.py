"""A run's workspace is a repository of its own, and what it made comes back through one door.

Here without a server: the workspace is made, something happens in it as an agent would do it, and it is taken in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from agents.runtime import door, gitcmd, harvest, insides, mirrors, trash, workspace
from agents.runtime.harvest import Harvest
from agents.runtime.workspace import Plan, Workspace

BRANCH = "gt/ada/gt-1/1"


class Scene:
    """A remote with a tag, the mirror, and one workspace of run-1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.remote, self.home = root / "remote.git", root / "home with space"
        self.home.mkdir()
        self.git("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=root)
        self.git("init", "-q", "-b", "main", str(root / "clone"), cwd=root)
        self.clone = root / "clone"
        self.base = self.commit(self.clone, {"README.md": "# Project\n", "src/a.txt": "one\n"})
        self.git("tag", "-a", "v1.0", "-m", "v1.0")
        self.git("push", "-q", "--follow-tags", str(self.remote), "main")
        self.mirror = self.home / "repos" / "1.git"
        mirrors.ensure_bare(self.mirror)
        mirrors.fetch(self.mirror, str(self.remote), "main")
        self.space = self.make("run-1")
        self.tree = self.space.tree

    def git(self, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@gastown.invalid"}
        done = subprocess.run(["git", *words], cwd=cwd or self.clone, env=env, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, where: Path, files: dict[str, str]) -> str:
        for name, text in files.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_text(text)
        self.git("add", "-A", cwd=where)
        self.git("commit", "-q", "-m", f"Change {', '.join(files)}", cwd=where)
        return self.git("rev-parse", "HEAD", cwd=where)

    def make(self, run: str) -> Workspace:
        space = Workspace(self.home / "workspaces" / run, self.mirror)
        workspace.make(space, Plan(self.base, "main", {"main": self.base}, branch=BRANCH, agent="ada"))
        return space

    def take_in(self) -> Harvest:
        return harvest.take_in(self.space, "run-1", self.base, insides.outside(self.space))

    def arrived(self, ref: str, name: str) -> str:
        return self.git("show", f"{ref}:{name}", cwd=self.mirror)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_g23_the_commands_that_an_agent_types_work(scene: Scene) -> None:
    sha = scene.commit(scene.tree, {"src/a.txt": "two\n"})
    assert scene.git("diff", "--stat", "origin/main...HEAD", cwd=scene.tree).startswith("src/a.txt")
    assert scene.git("describe", "--tags", cwd=scene.tree) == f"v1.0-1-g{sha[:7]}"
    assert scene.git("rev-parse", "--abbrev-ref", "@{u}", cwd=scene.tree) == "origin/main"
    scene.git("fetch", "-q", "origin", cwd=scene.tree)
    assert scene.git("status", "-sb", cwd=scene.tree) == f"## {BRANCH}...origin/main [ahead 1]"
    assert scene.git("log", "--oneline", "origin/main", cwd=scene.tree).count("\n") == 0


def test_commits_arrive_in_the_mirror_and_nowhere_else(scene: Scene) -> None:
    sha = scene.commit(scene.tree, {"new.txt": "new\n"})
    found = scene.take_in()
    assert (found.work, found.head, found.salvage) == ("new", sha, "")
    assert scene.arrived("refs/gastown/runs/run-1", "new.txt") == "new"
    assert scene.git("branch", "--list", "gt/*", cwd=scene.remote) == ""
    assert not list((scene.mirror / "objects").glob("incoming-*"))


def test_what_was_not_committed_is_saved_and_the_workspace_is_left_as_it_is(scene: Scene) -> None:
    (scene.tree / "precious.txt").write_text("precious\n")
    (scene.tree / "src/a.txt").unlink()
    found = scene.take_in()
    assert (found.work, found.head) == ("uncommitted", scene.base)
    assert scene.arrived(found.salvage, "precious.txt") == "precious"
    assert scene.git("ls-tree", "-r", "--name-only", found.salvage, "src", cwd=scene.mirror) == ""
    assert scene.git("status", "--porcelain", cwd=scene.tree).splitlines() == ["D src/a.txt", "?? precious.txt"]


def test_work_that_is_taken_in_twice_is_still_work(scene: Scene) -> None:
    """Its shim died after the first time, before it could say so."""
    sha = scene.commit(scene.tree, {"new.txt": "new\n"})
    scene.git("checkout", "-q", "-b", "aside", cwd=scene.tree)
    aside = scene.commit(scene.tree, {"aside.txt": "aside\n"})
    scene.git("checkout", "-q", "-", cwd=scene.tree)
    assert scene.take_in() == scene.take_in()
    found = scene.take_in()
    assert (found.work, found.head, found.branches) == ("new", sha, {"aside": aside})


def test_nothing_is_nothing(scene: Scene) -> None:
    found = scene.take_in()
    assert (found.work, found.head, found.salvage) == ("nothing", scene.base, "")


def test_g1_commits_on_another_branch_arrive_under_its_name(scene: Scene) -> None:
    scene.git("checkout", "-q", "-b", "feature/x", cwd=scene.tree)
    sha = scene.commit(scene.tree, {"work.txt": "work\n"})
    scene.git("checkout", "-q", "-", cwd=scene.tree)
    found = scene.take_in()
    assert (found.work, found.head, found.branches) == ("nothing", scene.base, {"feature/x": sha})
    assert scene.arrived("refs/gastown/branches/run-1/feature/x", "work.txt") == "work"


def test_g1_a_branch_that_is_only_moved_along_has_no_work_of_its_own(scene: Scene) -> None:
    newer = scene.commit(scene.clone, {"other.txt": "by somebody else\n"})
    scene.git("push", "-q", str(scene.remote), "main")
    mirrors.fetch(scene.mirror, str(scene.remote), "main")
    scene.git("reset", "-q", "--hard", newer, cwd=scene.tree)  # its objects are borrowed
    found = scene.take_in()
    assert (found.work, found.head) == ("nothing", newer)


@pytest.mark.parametrize("again", [False, True])
def test_g5_g12_without_its_git_directory_the_files_are_saved_and_nothing_is_let_in(scene: Scene, again: bool) -> None:
    (scene.tree / "precious.txt").write_text("precious\n")
    shutil.rmtree(scene.tree / ".git")
    if again:
        scene.git("init", "-q", "-b", "main", cwd=scene.tree)
        scene.commit(scene.tree, {"more.txt": "more\n"})
    found = scene.take_in()
    assert found.work == "refused"
    assert ("made anew" if again else "gone") in found.text
    assert scene.arrived(found.salvage, "precious.txt") == "precious"
    assert mirrors.resolve(scene.mirror, "refs/gastown/runs/run-1") is None


def test_g11_a_repository_inside_is_refused_and_its_files_are_saved(scene: Scene) -> None:
    inner = scene.tree / "front end"
    inner.mkdir()
    scene.git("init", "-q", cwd=inner)
    scene.commit(inner, {"app.js": "app\n"})
    scene.commit(scene.tree, {"README.md": "# Project, with a front end\n"})
    found = scene.take_in()
    assert found.work == "refused"
    assert "front end" in found.text and ".gitmodules" in found.text
    assert scene.arrived(found.salvage, "front end/app.js") == "app"


@pytest.mark.parametrize(
    "what",
    [
        "tree {tree}\nparent {base}\nauthor A <a@b.c> 1 +0000\ncommitter A <a@b.c> 99999999999999999999 +0000\n\nx\n",
        "tree {base}\nparent {base}\nauthor A <a@b.c> 1 +0000\ncommitter A <a@b.c> 1 +0000\n\nx\n",
        "tree {tree}\nparent {gone}\nauthor A <a@b.c> 1 +0000\ncommitter A <a@b.c> 1 +0000\n\nx\n",
    ],
    ids=["a date beyond all dates", "a tree that is a commit", "a parent that is nowhere"],
)
def test_what_git_finds_wrong_with_is_not_let_in(scene: Scene, what: str) -> None:
    tree = scene.git("rev-parse", "HEAD^{tree}", cwd=scene.tree)
    raw = what.format(tree=tree, base=scene.base, gone="1" * 40)
    (scene.root / "raw").write_text(raw)
    made = scene.git("hash-object", "-t", "commit", "-w", "--literally", str(scene.root / "raw"), cwd=scene.tree)
    (scene.tree / ".git/refs/heads" / BRANCH).write_text(f"{made}\n")
    found = scene.take_in()
    assert (found.work, found.head) == ("refused", "")
    assert found.text
    assert gitcmd.run_git(["cat-file", "-e", made], cwd=scene.mirror, check=False).returncode != 0


def test_a_commit_is_not_let_in_on_one_of_which_only_half_is_here(scene: Scene) -> None:
    """A fetch that was cut off can leave a commit without its files: git's own check is content with its name."""
    half = scene.commit(scene.tree, {"half.txt": "half\n"})
    (scene.tree / "half.txt").unlink()
    sha = scene.commit(scene.tree, {})
    raw = scene.root / "raw"
    raw.write_text(scene.git("cat-file", "commit", half, cwd=scene.tree) + "\n")
    assert scene.git("hash-object", "-t", "commit", "-w", str(raw), cwd=scene.mirror) == half

    def pack(shas: Sequence[str]) -> subprocess.Popen[bytes]:
        """Of the commit alone."""
        words = ["git", "pack-objects", "-q", "--stdout"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, cwd=scene.tree, stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin is not None
        process.stdin.write(f"{sha}\n".encode())
        process.stdin.close()
        return process

    offer = door.Offer("", sha, "refs/gastown/runs/run-1")
    verdict = door.deliver(scene.mirror, "run-1", scene.base, [offer], pack)[""]
    assert "did not arrive whole" in verdict.refused
    assert door.head_of(scene.mirror, "run-1") == ""


def test_s1_nothing_that_a_run_has_configured_is_executed_when_its_work_is_taken_in(scene: Scene) -> None:
    trap, sprung = scene.root / "trap.sh", scene.root / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch '{sprung}'\nexit 0\n")
    trap.chmod(0o755)
    git = scene.tree / ".git"
    scene.commit(scene.tree, {".gitattributes": "* filter=evil\n", "x.txt": "x\n"})
    (git / "hooks").mkdir()
    for hook in ("reference-transaction", "post-index-change", "pre-commit", "post-checkout"):
        (git / "hooks" / hook).symlink_to(trap)
    with (git / "config").open("a") as config:
        config.write(f'[core]\n\tfsmonitor = "{trap}"\n\tpager = "{trap}"\n\thooksPath = "{git}/hooks"\n')
        config.write(
            f'[filter "evil"]\n\tclean = "{trap}"\n\tsmudge = "{trap}"\n[uploadpack]\n\tpackObjectsHook = "{trap}"\n'
        )
    (scene.tree / "dirty.txt").write_text("dirty\n")
    found = scene.take_in()
    assert found.work == "new"
    assert scene.arrived(found.salvage, "dirty.txt") == "dirty"
    assert not sprung.exists()


def test_g6_g7_g8_g9_what_a_run_sets_is_its_own(scene: Scene) -> None:
    scene.git("config", "core.hooksPath", "/nowhere", cwd=scene.tree)
    scene.git("config", "core.autocrlf", "true", cwd=scene.tree)
    scene.git("sparse-checkout", "set", "docs", cwd=scene.tree)
    (scene.tree / "README.md").write_text("mine\n")
    scene.git("stash", cwd=scene.tree)
    other = scene.make("run-2")
    assert scene.git("stash", "list", cwd=other.tree) == ""
    assert scene.git("config", "--get", "core.hooksPath", cwd=other.tree, check=False) == ""
    assert (other.tree / "src/a.txt").read_text() == "one\n"
    assert "hooksPath" not in (scene.mirror / "config").read_text()


def test_what_a_workspace_borrows_is_not_pruned_while_it_lives(scene: Scene) -> None:
    """The target was moved away from what the run stands on, no tag holds that, and the mirror is packed as hard as git
    can."""
    scene.base = scene.commit(scene.clone, {"untagged.txt": "held by nothing but the run\n"})
    scene.git("push", "-q", str(scene.remote), "main")
    mirrors.fetch(scene.mirror, str(scene.remote), "main")
    space = scene.make("run-2")
    scene.git("checkout", "-q", "--orphan", "new")
    scene.commit(scene.clone, {"new.txt": "all is new\n"})
    scene.git("push", "-q", "--force", str(scene.remote), "new:main")
    mirrors.fetch(scene.mirror, str(scene.remote), "main")
    gitcmd.run_git(["gc", "--quiet", "--prune=now"], cwd=scene.mirror)
    assert scene.git("fsck", "--full", "--no-dangling", cwd=space.tree) == ""
    sha = scene.commit(space.tree, {"late.txt": "late\n"})
    assert harvest.take_in(space, "run-2", scene.base, insides.outside(space)).head == sha
    workspace.release(space)
    gitcmd.run_git(["update-ref", "-d", "refs/gastown/runs/run-2"], cwd=scene.mirror)
    gitcmd.run_git(["gc", "--quiet", "--prune=now"], cwd=scene.mirror)
    assert gitcmd.run_git(["cat-file", "-e", scene.base], cwd=scene.mirror, check=False).returncode != 0


def test_a_workspace_that_cannot_be_made_leaves_nothing(scene: Scene) -> None:
    space = Workspace(scene.home / "workspaces" / "run-3", scene.mirror)
    with pytest.raises(gitcmd.GitFailed):
        workspace.make(space, Plan("1" * 40, "main", {"main": scene.base}, branch=BRANCH))
    assert not space.root.exists()
    assert scene.git("for-each-ref", "refs/gastown/workspaces/run-3", cwd=scene.mirror) == ""


def test_a_discarded_workspace_goes_whatever_became_of_it(scene: Scene) -> None:
    outside = scene.root / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (scene.tree / "link").symlink_to(outside)
    (scene.tree / "locked" / "inner").mkdir(parents=True)
    (scene.tree / "locked" / "inner" / "x").write_text("x")
    (scene.tree / "locked" / "inner").chmod(0)
    (scene.tree / "locked").chmod(0)
    os.mkfifo(scene.tree / "pipe")
    workspace.discard(scene.space)
    assert not scene.space.root.exists()
    trash._remove_all(scene.home / "trash")
    assert not list((scene.home / "trash").iterdir())
    assert (outside / "kept").exists()


def test_looking_at_a_workspace_never_waits_and_follows_no_link(scene: Scene) -> None:
    git = scene.tree / ".git"
    (git / "HEAD").unlink()
    os.mkfifo(git / "HEAD")
    assert workspace.peek(scene.tree) is None
    (git / "HEAD").unlink()
    (git / "HEAD").symlink_to("/etc/passwd")
    assert workspace.peek(scene.tree) is None
