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

import contextlib
import functools
import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from agents.runtime.gitcmd import GitFailed, check_sha, failure, repo_lock, run_git, started_git
from agents.runtime.gitdirs import View, config_text, git_directory
from agents.runtime.trash import discard, empty

TIMEOUT = 900.0
UMASK = 0o022
_MODES = (0o100644, 0o100755)
_OPEN = 0o755
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
class Slot:
    """A place for gates; its holder has the lock beside it."""

    path: Path

    @property
    def tree(self) -> Path:
        """What gates see."""
        return self.path / "tree"

    @property
    def git(self) -> Path:
        """The server's git directory for the tree."""
        return self.path / "git"

    @property
    def trash(self) -> Path:
        """Where things wait for their removal: in the pool, so that getting there is a rename."""
        return self.path.parent / "trash"


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
        if not (_kept(slot, view) or (os.geteuid() and _opened(slot.tree) and _kept(slot, view))):
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
    began = _tick(slot.path / "clock")
    stamp = began
    if not fresh:
        stamp = int(str(state.get("stamp", began)))
        # without a state it was never finished; with a clock that was set back ctimes say nothing
        if stamp >= began or not _own(slot.tree):
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
    look = _compare(slot, view, candidate, stamp, began)
    if look.faults and (look.severe or not fresh) and len(look.faults) < _MOST_REPAIRS:
        _repair(slot, look)
        git("checkout", "--quiet", "--force", "--detach", view.sha)
        look = _compare(slot, view, candidate, stamp, began)
    if fresh and look.severe:
        raise GitFailed(f"a fresh check-out of {view.sha[:12]} is not what the commit says: {look}")
    # a fresh tree has been touched by nobody: modes that differ are the file system's own, as an inherited access list
    if not fresh and (look.severe or look.faults):
        return False
    _note(slot, {"gitlinks": candidate.gitlinks, "attributes": candidate.attributes})
    return True


def _clear(slot: Slot, state: Mapping[str, Any]) -> None:
    """Move away what git would not: the last run's git directory, and what lies where submodules are."""
    if os.path.lexists(slot.tree / ".git"):
        discard(slot.tree / ".git", slot.trash)
    for path in state.get("gitlinks", ()):
        if _real_directory(slot.tree, path):
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


@dataclass
class _Look:
    """What a look at the whole tree has found. `faults`: (kind, path) that can be repaired; `severe`: what cannot."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    severe: str = ""

    def __str__(self) -> str:
        return self.severe or ", ".join(f"{kind} {path!r}" for kind, path in self.faults[:5])


def _compare(slot: Slot, view: View, candidate: _Listing, stamp: int, began: int) -> _Look:
    """Look at everything in the tree, and let git compare its index with the candidate.

    Each file is one that git wrote just now, or one that nobody has touched since the tree was handed out, when it was
    as the index said: that the files are as the index says needs no second look by git.
    """
    asked = ["diff-index", "--cached", "--ignore-submodules=all", "--no-ext-diff", "--quiet", view.sha, "--"]
    with started_git(asked, cwd=slot.tree, env=_where(slot.git, slot.tree)) as comparing:
        look = _look(slot.tree, set(candidate.gitlinks), stamp, began)
        answer = comparing.result(timeout=TIMEOUT, check=False)
    if answer.returncode not in (0, 1):
        raise failure("diff-index", answer)
    if answer.returncode:
        look.severe = "the index differs"
    elif not look.faults and look.count != candidate.count:
        look.severe = f"{look.count} files in place of {candidate.count}"
    return look


def _look(tree: Path, gitlinks: set[str], stamp: int, began: int) -> _Look:
    """Each entry of the tree: its kind, mode, links, lists and whether a gate has changed it since the `stamp`."""
    look = _Look()
    directories = [""]
    while directories:
        at = directories.pop()
        empty = True
        with os.scandir(os.path.join(tree, at)) as entries:
            for entry in entries:
                empty = False
                told = entry.stat(follow_symlinks=False)
                mode = told.st_mode
                if (
                    (mode in _MODES or stat.S_ISLNK(mode))
                    and told.st_nlink == 1
                    and not stamp < told.st_ctime_ns <= began
                    and entry.name != ".git"
                ):
                    look.count += 1  # of 50,000 entries 50,000 come here: what is above is all that is done for them
                    continue
                path = os.path.join(at, entry.name)
                if entry.name == ".git":
                    look.faults.append(("repository", path))
                elif stat.S_ISDIR(mode):
                    directories.append(path)
                    if mode & 0o5777 != _OPEN:
                        look.faults.append(("directory", path))
                else:
                    look.faults.append(("file", path))
        if at in gitlinks:
            if not empty:
                look.faults.append(("repository", at))
        elif empty and at:
            look.faults.append(("empty", at))
        if any(name.startswith(("user.", "system.posix_acl", "trusted.")) for name in _lists(os.path.join(tree, at))):
            look.faults.append(("directory", at))
    return look


def _lists(directory: str) -> list[str]:
    try:
        return os.listxattr(directory, follow_symlinks=False)
    except OSError:  # a file system that has none
        return []


def _repair(slot: Slot, look: _Look) -> None:
    """Take away what should not be there; git makes anew what should. Files last found in a directory go before it."""
    for kind, path in look.faults:
        where = slot.tree / path
        if kind == "file":
            with contextlib.suppress(FileNotFoundError):
                where.unlink()
        elif kind == "repository" and os.path.lexists(where):
            discard(where, slot.trash)
        elif kind == "directory" and where.is_dir():
            for name in _lists(str(where)):
                if name.startswith(("user.", "system.posix_acl", "trusted.")):
                    os.removexattr(where, name, follow_symlinks=False)
            where.chmod(0o755)
    for kind, path in sorted(look.faults, key=lambda fault: -len(fault[1])):
        with contextlib.suppress(OSError):
            if kind == "empty":
                where = slot.tree / path
                while where != slot.tree:
                    where.rmdir()
                    where = where.parent


def _hand_out(slot: Slot, view: View, filled: Filled) -> Path:
    """Give the tree its git directory, and remember the moment: whatever a gate does bears a later ctime."""
    told = replace(view, config={**view.config, **filled.config})
    git_directory(slot.tree / ".git", told, index=slot.git / "index")
    borrowed = sorted({str(path) for path in filled.borrowed})
    _note(slot, {**_state(slot), "borrowed": borrowed, "stamp": _tick(slot.path / "clock")})
    return slot.tree


def borrowed(tree: Path) -> list[str]:
    """The repositories beside the mirror that git needs to see, for reading, in a tree that `prepare` has made."""
    return [str(path) for path in _state(Slot(tree.parent)).get("borrowed", [])]


def _tick(clock: Path) -> int:
    """The kernel's time for files now, in nanoseconds. Returns when it has moved on: all that comes is later."""
    descriptor = os.open(clock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.utime(descriptor)
        now = os.fstat(descriptor).st_mtime_ns
        while True:
            os.utime(descriptor)
            if os.fstat(descriptor).st_mtime_ns != now:
                return now
            time.sleep(0.0005)
    finally:
        os.close(descriptor)


def _own(tree: Path) -> bool:
    """True for a directory that is one and is ours; a gate without walls may have put a link in its place."""
    try:
        told = tree.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid()


def _real_directory(tree: Path, path: str) -> bool:
    """True when each part of `path` is a directory and no link."""
    at = tree
    for part in Path(path).parts:
        at = at / part
        try:
            if not stat.S_ISDIR(at.lstat().st_mode):
                return False
        except OSError:
            return False
    return True


def _opened(tree: Path) -> bool:
    """Make all directories readable again, for a server that is not root: git cannot look into the others.

    Only those that are not: a `chmod -R` would touch the ctime of every file. False when that cannot be done.
    """
    waiting = [str(tree)]
    try:
        while waiting:
            at = waiting.pop()
            if os.lstat(at).st_mode & 0o700 != 0o700:
                os.chmod(at, _OPEN)  # a directory and no link: that was just seen
            with os.scandir(at) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return False
    return True


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
    return found if isinstance(found, dict) else {}


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
