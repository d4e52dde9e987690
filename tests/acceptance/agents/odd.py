"""What agents do with git as they are outside, by name: each does a bead's work in some odd way, or loses it.

`do(name, bead)` works in the current directory, the run's workspace, and returns the arguments of `gt_done`. `RIGHT`
says what may become of such a bead: `landed` with its file on the target, `failed` with a reason, `nothing` (it has
changed nothing, and a person is told), or `asked`: a person is to say. Never is it closed as merged without its file.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

RIGHT: dict[str, frozenset[str]] = {}
_DEEDS: dict[str, Callable[[str], dict[str, Any]]] = {}
LANDS, MAY_FAIL = frozenset({"landed"}), frozenset({"landed", "failed"})


def do(name: str, bead: str) -> dict[str, Any]:
    """Do it; returns what `gt_done` is told."""
    return _DEEDS[name](bead)


def _deed(right: frozenset[str]) -> Callable[[Callable[[str], dict[str, Any]]], Callable[[str], dict[str, Any]]]:
    def register(deed: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
        name = deed.__name__
        _DEEDS[name], RIGHT[name] = deed, right
        return deed

    return register


def git(*arguments: str, cwd: str = ".", given: bytes = b"", check: bool = True) -> str:
    """One git command; an agent that is told no gives up."""
    done = subprocess.run(["git", *arguments], cwd=cwd, input=given, stdout=subprocess.PIPE, check=check)
    return done.stdout.decode(errors="replace").strip()


def write(bead: str) -> None:
    """The bead's own file."""
    Path("work").mkdir(exist_ok=True)
    Path("work", f"{bead}.txt").write_text(f"{bead}\n")


def commit(bead: str, *more: str) -> None:
    """Commit all that there is."""
    git("add", "-A")
    git("commit", "-q", *more, "-m", f"Work of {bead}")


# -- work that is there, in an unusual place or shape ---------------------------------------------------------------


@_deed(LANDS)
def otherbranch(bead: str) -> dict[str, Any]:
    """Commits on a branch of its own, names it, and goes back."""
    git("checkout", "-q", "-b", f"feature/{bead}")
    write(bead)
    commit(bead)
    git("checkout", "-q", "-")
    return {"branch": f"feature/{bead}"}


@_deed(MAY_FAIL)
def unnamed(bead: str) -> dict[str, Any]:
    """As `otherbranch`, without a word about the branch."""
    otherbranch(bead)
    return {}


@_deed(MAY_FAIL)
def detached(bead: str) -> dict[str, Any]:
    """Commits on no branch at all."""
    git("checkout", "-q", "--detach")
    write(bead)
    commit(bead)
    return {}


@_deed(LANDS)
def behind(bead: str) -> dict[str, Any]:
    """Goes back behind where it began, and works from there."""
    git("reset", "-q", "--hard", "HEAD~1", check=False)
    write(bead)
    commit(bead)
    return {}


@_deed(LANDS)
def stash(bead: str) -> dict[str, Any]:
    """Puts its work on the stash and takes what is on top, like everybody else."""
    git("stash", "pop", check=False)  # there is nothing of its own yet
    write(bead)
    git("add", "-A")
    git("stash", "-q")
    git("stash", "pop")
    commit(bead)
    return {}


@_deed(LANDS)
def hooks(bead: str) -> dict[str, Any]:
    """Sets a folder of hooks that refuse every commit (husky), and commits without them."""
    hook = Path(".husky", "pre-commit")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git("config", "core.hooksPath", str(hook.parent.absolute()))
    write(bead)
    git("add", "work")
    git("commit", "-q", "--no-verify", "-m", f"Work of {bead}")
    hook.unlink()
    hook.parent.rmdir()
    return {}


@_deed(LANDS)
def crlf(bead: str) -> dict[str, Any]:
    """Wants other line ends, and has its files so."""
    git("config", "core.autocrlf", "true")
    write(bead)
    commit(bead)
    git("checkout", "-q", "HEAD", "--", ".")
    return {}


@_deed(LANDS)
def sparse(bead: str) -> dict[str, Any]:
    """Wants to see a part of the repository only."""
    git("sparse-checkout", "set", "docs")
    write(bead)
    git("add", "--sparse", f"work/{bead}.txt")
    git("commit", "-q", "-m", f"Work of {bead}")
    return {}


@_deed(LANDS)
def skipped(bead: str) -> dict[str, Any]:
    """Tells the index to look away from a file, and writes nonsense into it."""
    name = git("ls-files", "-z").split("\0")[0]
    if name:
        git("update-index", "--skip-worktree", "--", name)
        Path(name).write_text("nonsense\n")
    write(bead)
    commit(bead)
    return {}


@_deed(LANDS)
def big(bead: str) -> dict[str, Any]:
    """Brings 3 MB of noise."""
    Path("big").mkdir(exist_ok=True)
    Path("big", f"{bead}.bin").write_bytes(os.urandom(3_000_000))
    write(bead)
    commit(bead)
    return {}


@_deed(LANDS)
def locked(bead: str) -> dict[str, Any]:
    """Leaves an index lock behind, as a git that was killed does."""
    write(bead)
    commit(bead)
    Path(git("rev-parse", "--git-path", "index.lock")).touch()
    return {}


@_deed(LANDS)
def elsewhere(bead: str) -> dict[str, Any]:
    """Bends the remote's address, as S8 does: whoever pushes by this config pushes into nowhere."""
    write(bead)
    commit(bead)
    address = git("config", "--get", "remote.origin.url", check=False) or "/"
    git("config", f"url./nowhere/{bead}.insteadOf", address)
    return {}


@_deed(MAY_FAIL)
def author(bead: str) -> dict[str, Any]:
    """A commit whose author and date no tool of today would write."""
    write(bead)
    git("add", "-A")
    tree, parent = git("write-tree"), git("rev-parse", "HEAD")
    lines = [f"tree {tree}", f"parent {parent}", "author . <.> 18446744073709551615 +0000"]
    raw = "\n".join([*lines, "committer A <a@example.org> 1700000000 +0000", "", f"Work of {bead}", ""])
    made = git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", given=raw.encode())
    git("update-ref", "HEAD", made)
    return {}


# -- work that git would lose ---------------------------------------------------------------------------------------


@_deed(frozenset({"landed", "failed", "nothing", "asked"}))
def nothing(bead: str) -> dict[str, Any]:
    """Finds that nothing is to be done."""
    return {"summary": "nothing to do"}


@_deed(MAY_FAIL)
def uncommitted(bead: str) -> dict[str, Any]:
    """Forgets to commit."""
    write(bead)
    return {}


@_deed(MAY_FAIL)
def nested(bead: str) -> dict[str, Any]:
    """Makes a repository within the repository, and commits that."""
    Path("frontend").mkdir(exist_ok=True)
    git("init", "-q", cwd="frontend")
    Path("frontend", f"{bead}.js").write_text("app\n")
    git("add", "-A", cwd="frontend")
    git("commit", "-q", "-m", "scaffold", cwd="frontend")
    write(bead)
    commit(bead)
    return {}


@_deed(MAY_FAIL)
def rmgit(bead: str) -> dict[str, Any]:
    """Removes what it takes for rubbish."""
    write(bead)
    _without_git()
    return {}


@_deed(MAY_FAIL)
def reinit(bead: str) -> dict[str, Any]:
    """Begins a history of its own."""
    write(bead)
    _without_git()
    git("init", "-q")
    commit(bead)
    return {}


@_deed(MAY_FAIL)
def orphan(bead: str) -> dict[str, Any]:
    """A branch without a past."""
    git("checkout", "-q", "--orphan", f"fresh/{bead}")
    write(bead)
    commit(bead)
    return {}


def _without_git() -> None:
    subprocess.run(["rm", "-rf", ".git"], check=True)
