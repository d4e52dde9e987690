"""The tree that gates see: exactly the candidate's, with a git directory of its own that harms only itself.

A slot is a directory with `tree/` (gates see and write it), `git/` (the server's git directory and index for that
tree: never visible inside) and `state.json`. For each run `tree/.git/` is made anew: it borrows the mirror's objects,
has a copy of the index, HEAD, the base, the target and the tags; a gate may do with it what it likes.

**Switching a kept tree trusts only what the kernel writes.** git compares ctimes in whole seconds, and tells two
things apart that happen within one second only by content *after* conversion; a gate can forge size and mtime. So
after git has switched, everything is looked at once more: what bears a ctime later than the moment in which the tree
was last handed out (nanoseconds, the kernel's own clock; the tree is handed out only when that clock has moved on) and
has not been written since, was changed by a gate and has slipped through: it is made anew. The same look finds what
git does not see: modes, hard links, devices, empty directories, nested repositories, access lists. The index never
records the times of a file that a gate could have touched: it is never refreshed, git only notes what it has just
written. On any doubt the tree is moved away and a fresh one is made.

Stdlib only.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from agents.runtime.gitcmd import GitFailed, check_sha, failure, run_git, started_git
from agents.runtime.gitdirs import View, config_text, git_directory
from agents.runtime.mirrors import repo_lock
from agents.runtime.trash import discard, empty
from agents.runtime.treelook import Look, look, make_readable, now, owned, real_directory, repair
from agents.runtime.treelook import Slot as Slot

TIMEOUT = 900.0
UMASK = 0o022
_MOST_REPAIRS = 20_000
PINNED = {
    "core.bare": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.trustctime": "true",
    "core.checkStat": "default",
    "core.ignoreCase": "false",
    "core.precomposeUnicode": "false",
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.safecrlf": "false",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.preloadIndex": "true",
    "core.sparseCheckout": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.hooksPath": "/dev/null",
    "core.sharedRepository": "umask",
    "index.version": "2",
    "index.sparse": "false",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "all",
    "checkout.workers": "2",
    "checkout.thresholdForParallelism": "1000",
    "gc.auto": "0",
}
# an operator's config (GASTOWN_GIT_CONFIG) is for talking to remotes: its filters and line ends are not the candidate's
ENVIRONMENT = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_ATTR_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


@dataclass(frozen=True)
class Filled:
    """What was put in: `config` of it for the disposable git directory, and the repositories that it borrows from."""

    config: Mapping[str, str] = field(default_factory=dict)
    borrowed: Sequence[Path] = ()


Fill = Callable[[Slot], Filled]


def prepare(slot: Slot, view: View, fill: Fill | None = None) -> Path:
    """Make the slot's tree exactly the tree of `view.sha`, with its disposable git directory; returns the tree.

    `fill` puts in what is no part of the commit itself: submodules, and the content that pointers stand for. Raises
    GitFailed, after a last try with a tree that is new. The caller holds the slot's lock, and nothing of the run that
    had it before is alive.
    """
    _settle(slot, view.mirror)
    try:
        if not (_kept(slot, view) or (os.geteuid() and make_readable(slot.tree) and _kept(slot, view))):
            _start_anew(slot)
            _switch(slot, view, fresh=True)
        return _hand_out(slot, view, fill(slot) if fill is not None else Filled())
    finally:
        empty(slot.trash)


def _settle(slot: Slot, mirror: Path) -> None:
    """Make what stands here a slot: a worktree of the mirror, as slots once were, is moved away."""
    if os.path.lexists(slot.path / ".git") or slot.path.is_symlink():
        discard(slot.path, slot.trash)
        with repo_lock(mirror, exclusive=True):
            run_git(["worktree", "prune"], cwd=mirror, check=False)
    slot.path.mkdir(parents=True, exist_ok=True)


# -- switching ----------------------------------------------------------------------------------------------------


def _kept(slot: Slot, view: View) -> bool:
    """True when the tree that is there is the candidate's now; on any doubt a fresh one will be made."""
    try:
        return _switch(slot, view)
    except (GitFailed, OSError):
        return False


def _switch(slot: Slot, view: View, *, fresh: bool = False) -> bool:
    """Make the tree the candidate's. False, GitFailed or OSError: it cannot be done with this one."""
    state = {} if fresh else _state(slot)
    began = now(slot.path / "clock")
    stamp = began
    if not fresh:
        stamp = int(str(state.get("stamp", began)))
        # without a state it was never finished; with a clock that was set back ctimes say nothing
        if stamp >= began or not owned(slot.tree):
            return False
        slot.tree.chmod(0o755)
        _clear(slot, state)
    _write_git(slot.git, view.mirror)
    git = functools.partial(_run, slot.git, slot.tree)
    listing = ["ls-tree", "-r", "-z", "--full-tree", check_sha(view.sha)]
    with started_git(listing, cwd=view.mirror, env=ENVIRONMENT) as listed:
        if not fresh:
            # first of all: git reads .gitattributes of the tree where the index has none
            git("clean", "-ffdxq")
        candidate = _Listing.parse(listed.result(timeout=TIMEOUT).stdout)
    renewed = not fresh and state.get("attributes") != candidate.attributes
    if renewed:
        # what a file looks like depends on the attributes: git would keep those whose content is the same
        (slot.git / "index").unlink(missing_ok=True)
    git("checkout", "--quiet", "--force", "--detach", view.sha)
    if renewed:
        git("clean", "-ffdxq")
    seen = _compare(slot, view, candidate, stamp, began)
    if seen.faults and (seen.severe or not fresh) and len(seen.faults) < _MOST_REPAIRS:
        repair(slot, seen)
        git("checkout", "--quiet", "--force", "--detach", view.sha)
        seen = _compare(slot, view, candidate, stamp, began)
    if fresh and seen.severe:
        raise GitFailed(f"a fresh check-out of {view.sha[:12]} is not what the commit says: {seen}")
    # a fresh tree has been touched by nobody: modes that differ are the file system's own, as an inherited access list
    if not fresh and (seen.severe or seen.faults):
        return False
    _note(slot, {"gitlinks": candidate.gitlinks, "attributes": candidate.attributes})
    return True


def _clear(slot: Slot, state: Mapping[str, Any]) -> None:
    """Move away what git would not: the last run's git directory, and what lies where submodules are."""
    if os.path.lexists(slot.tree / ".git"):
        discard(slot.tree / ".git", slot.trash)
    for path in state.get("gitlinks", ()):
        if real_directory(slot.tree, path):
            discard(slot.tree / path, slot.trash)


@dataclass(frozen=True)
class _Listing:
    """What a candidate's tree has: how many files and links, its gitlinks, and a digest of its attributes."""

    count: int
    gitlinks: list[str]
    attributes: str

    @classmethod
    def parse(cls, listing: bytes) -> _Listing:
        """From `ls-tree -r -z`."""
        count, gitlinks, attributes = listing.count(b"\0"), [], sha256()
        if b"160000 commit " in listing or b".gitattributes\0" in listing:
            for entry in listing.split(b"\0")[:-1]:
                if entry.startswith(b"160000 "):
                    gitlinks.append(os.fsdecode(entry.partition(b"\t")[2]))
                elif entry.endswith((b"\t.gitattributes", b"/.gitattributes")):
                    attributes.update(entry + b"\0")
        return cls(count - len(gitlinks), gitlinks, attributes.hexdigest())


def _compare(slot: Slot, view: View, candidate: _Listing, stamp: int, began: int) -> Look:
    """Look at everything in the tree, and let git compare its index with the candidate.

    Each file is one that git wrote just now, or one that nobody has touched since the tree was handed out, when it was
    as the index said: that the files are as the index says needs no second look by git.
    """
    asked = ["diff-index", "--cached", "--ignore-submodules=all", "--no-ext-diff", "--quiet", view.sha, "--"]
    with started_git(asked, cwd=slot.tree, env=_where(slot.git, slot.tree)) as comparing:
        seen = look(slot.tree, set(candidate.gitlinks), stamp, began)
        answer = comparing.result(timeout=TIMEOUT, check=False)
    if answer.returncode not in (0, 1):
        raise failure("diff-index", answer)
    if answer.returncode:
        seen.severe = "the index differs"
    elif not seen.faults and seen.count != candidate.count:
        seen.severe = f"{seen.count} files in place of {candidate.count}"
    return seen


def _hand_out(slot: Slot, view: View, filled: Filled) -> Path:
    """Give the tree its git directory, and remember the moment: whatever a gate does bears a later ctime."""
    told = replace(view, config={**view.config, **filled.config})
    git_directory(slot.tree / ".git", told, index=slot.git / "index")
    borrowed = sorted({str(path) for path in filled.borrowed})
    _note(slot, {**_state(slot), "borrowed": borrowed, "stamp": now(slot.path / "clock")})
    return slot.tree


def borrowed(tree: Path) -> list[str]:
    """The repositories beside the mirror that git needs to see, for reading, in a tree that `prepare` has made."""
    return [str(path) for path in _state(Slot(tree.parent)).get("borrowed", [])]


# -- git directories ------------------------------------------------------------------------------------------------


def _where(git: Path, tree: Path) -> dict[str, str]:
    return {**ENVIRONMENT, "GIT_DIR": str(git), "GIT_WORK_TREE": str(tree)}


def _run(git: Path, tree: Path, *arguments: str) -> bytes:
    with started_git(arguments, cwd=tree, env=_where(git, tree), umask=UMASK) as at_work:
        return at_work.result(timeout=TIMEOUT).stdout


def _write_git(git: Path, mirror: Path) -> None:
    """The server's git directory for a tree, with exactly our config; its index stays. The lock of the slot is held."""
    (git / "objects" / "info").mkdir(parents=True, exist_ok=True, mode=0o700)
    (git / "refs").mkdir(exist_ok=True)
    (git / "objects" / "info" / "alternates").write_text(f"{mirror / 'objects'}\n")
    (git / "config").write_text(config_text(PINNED))
    (git / "HEAD").write_text("ref: refs/heads/none\n")  # what was checked out last, the mirror may have forgotten
    for leftover in git.glob("*.lock"):  # of a server that died
        leftover.unlink()


def populate(tree: Path, git: Path, view: View) -> None:
    """Check `view.sha` out into the empty directory `tree`, with a git directory of its own; `git` is ours, for now.

    Raises GitFailed.
    """
    _write_git(git, view.mirror)
    _run(git, tree, "checkout", "--quiet", "--force", "--detach", check_sha(view.sha))
    _run(git, tree, "diff-index", "--ignore-submodules=all", "--no-ext-diff", "--quiet", view.sha, "--")
    git_directory(tree / ".git", view, index=git / "index")


# -- what is remembered, and what is removed ------------------------------------------------------------------------


def _state(slot: Slot) -> dict[str, Any]:
    try:
        found = json.loads((slot.path / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    if isinstance(found, dict):
        return found
    return {}


def _note(slot: Slot, state: Mapping[str, Any]) -> None:
    fresh = slot.path / "state.new"
    fresh.write_text(json.dumps(state))
    fresh.rename(slot.path / "state.json")


def _start_anew(slot: Slot) -> None:
    """An empty tree and an empty index."""
    (slot.path / "state.json").unlink(missing_ok=True)
    for path in (slot.tree, slot.git):
        if os.path.lexists(path):
            discard(path, slot.trash)
    slot.tree.mkdir()
    slot.tree.chmod(0o755)
