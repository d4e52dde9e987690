"""A look at every file of a slot's tree, and what it finds taken away: see `trees` for why git alone cannot be trusted.

Stdlib only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from agents.runtime.trash import discard

_MODES = (0o100644, 0o100755)
_OPEN = 0o755


@dataclass(frozen=True)
class Slot:
    """A place for gates; its holder has the lock beside it."""

    path: Path

    @property
    def tree(self) -> Path:
        """The directory in which gates run: the candidate's files."""
        return self.path / "tree"

    @property
    def git(self) -> Path:
        """The server's git directory for the tree."""
        return self.path / "git"

    @property
    def trash(self) -> Path:
        """Where things wait for their removal: in the pool, so that getting there is a rename."""
        return self.path.parent / "trash"


@dataclass
class Look:
    """What a look at the whole tree has found. `faults`: (kind, path) that can be repaired; `severe`: what cannot."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    severe: str = ""

    def __str__(self) -> str:
        return self.severe or ", ".join(f"{kind} {path!r}" for kind, path in self.faults[:5])


def look(tree: Path, gitlinks: set[str], stamp: int, began: int) -> Look:
    """Each entry of the tree: its kind, mode, links, lists and whether a gate has changed it since the `stamp`."""
    found = Look()
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
                    found.count += 1  # of 50,000 entries 50,000 come here: what is above is all that is done for them
                    continue
                path = os.path.join(at, entry.name)
                if entry.name == ".git":
                    found.faults.append(("repository", path))
                elif stat.S_ISDIR(mode):
                    directories.append(path)
                    if mode & 0o5777 != _OPEN:
                        found.faults.append(("directory", path))
                else:
                    found.faults.append(("file", path))
        if at in gitlinks:
            if not empty:
                found.faults.append(("repository", at))
        elif empty and at:
            found.faults.append(("empty", at))
        if any(name.startswith(("user.", "system.posix_acl", "trusted.")) for name in _lists(os.path.join(tree, at))):
            found.faults.append(("directory", at))
    return found


def _lists(directory: str) -> list[str]:
    try:
        return os.listxattr(directory, follow_symlinks=False)
    except OSError:  # a file system that has none
        return []


def repair(slot: Slot, seen: Look) -> None:
    """Take away what should not be there; git makes anew what should. Files last found in a directory go before it."""
    for kind, path in seen.faults:
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
    for kind, path in sorted(seen.faults, key=lambda fault: -len(fault[1])):
        with contextlib.suppress(OSError):
            if kind == "empty":
                where = slot.tree / path
                while where != slot.tree:
                    where.rmdir()
                    where = where.parent


def owned(tree: Path) -> bool:
    """True for a directory that is one and is ours; a gate without walls may have put a link in its place."""
    try:
        told = tree.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid()


def real_directory(tree: Path, path: str) -> bool:
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


def make_readable(tree: Path) -> bool:
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


def now(clock: Path) -> int:
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
