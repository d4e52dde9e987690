"""What a coding agent keeps of its sessions, from one run to the next: out of a run's HOME when it has ended, and into
the HOME of the next one that goes on with it.

Standard library only: the shim imports it. What is kept was written by an agent. It is copied, never read into
anything, never executed, and seen by nobody but the next run: directories and plain files only, each entry by its
directory's own handle so that no link is followed, with modes of ours, within `MOST_BYTES`, `MOST_ENTRIES` and
`DEEPEST`. What is larger is dropped as a whole: the next run then begins anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 50 << 20
MOST_ENTRIES = 2000
DEEPEST = 12
_STORE = "store"
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TooMuch(Exception):
    """It is more than is kept."""


@dataclass
class _Left:
    """How much more may be copied."""

    size: int = MOST_BYTES
    entries: int = MOST_ENTRIES

    def take(self, *, size: int = 0, entries: int = 0) -> None:
        """Take so many bytes, or entries. Raises TooMuch."""
        self.size -= size
        self.entries -= entries
        if self.size < 0:
            raise TooMuch(f"it is larger than {MOST_BYTES >> 20} MiB")
        if self.entries < 0:
            raise TooMuch(f"it has more than {MOST_ENTRIES} files")


def keep(home: Path, place: Path, parts: Sequence[str]) -> str:
    """Keep these parts of a HOME at `place`, in place of what was kept there; returns what is to be said of it, or an
    empty string. Nothing may be at work in that HOME any more.

    A HOME that has none of them leaves alone what was kept before. Raises nothing: a session is not worth a run.
    """
    fresh = place / f"new-{uuid.uuid4().hex}"
    why = ""
    try:
        if not _copy_parts(home, fresh, parts):
            return ""
    except TooMuch as error:
        why = f"its session is not kept: {error}"
    except OSError as error:
        why = f"its session cannot be kept: {error.strerror or error}"
    finally:
        if why:
            shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(place / _STORE, ignore_errors=True)  # of before; a crash here leaves none, and the next begins anew
    if not why:
        try:
            fresh.rename(place / _STORE)
        except OSError as error:
            return f"its session cannot be kept: {error.strerror or error}"
    return why


def is_kept(place: Path) -> bool:
    """True when something is kept there."""
    return (place / _STORE).is_dir()


def bring(place: Path, home: Path, parts: Sequence[str]) -> bool:
    """Put what is kept at `place` into a fresh HOME; False when nothing is, or it cannot be (then nothing is there)."""
    try:
        return _copy_parts(place / _STORE, home, parts)
    except (OSError, TooMuch):
        for part in parts:
            _remove(home / part)
        return False


def is_lost(step: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """True when an agent that was to go on with a session has ended saying that there is none: it has done nothing."""
    lost = (step.get("instead") or {}).get("lost")
    if not lost or result["outcome_raw"]["exit_code"] in (None, 0):
        return False
    return re.search(lost, result["output"]) is not None


def forget(root: Path, subject: str) -> None:
    """Drop everything that is kept below `root` of one bead."""
    if subject and "/" not in subject and subject not in (".", ".."):
        shutil.rmtree(root / subject, ignore_errors=True)


# -- copying ----------------------------------------------------------------------------------------------------------


def _copy_parts(source: Path, target: Path, parts: Sequence[str]) -> bool:
    """Copy each part that is there; False when none is. A part that is reached by a link is not there."""
    left, found = _Left(), False
    for part in parts:
        handle = _directory(source, part.split("/")[:-1])
        if handle is None:
            continue
        try:
            name = part.rpartition("/")[2]
            if not _is_there(handle, name):
                continue
            (target / part).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(handle, name, target / part, left, DEEPEST)
            found = True
        finally:
            os.close(handle)
    return found


def _directory(root: Path, names: Sequence[str]) -> int | None:
    """A handle of the directory below `root`, none of it a link; None when there is none."""
    handle = None
    try:
        handle = os.open(root, _NO_LINK | os.O_DIRECTORY)
        for name in names:
            inner = os.open(name, _NO_LINK | os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = inner
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle


def _is_there(directory: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        return stat.S_ISDIR(kind) or stat.S_ISREG(kind)
    return False


def _copy(directory: int, name: str, target: Path, left: _Left, depth: int) -> None:
    """Copy one entry of a directory, with what is below it; what is neither directory nor plain file is left out.
    Raises TooMuch or OSError."""
    left.take(entries=1)
    told = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISDIR(told.st_mode):
        if depth == 0:
            raise TooMuch(f"it is nested deeper than {DEEPEST} levels")
        target.mkdir(mode=0o700, exist_ok=True)
        inner = os.open(name, _NO_LINK | os.O_DIRECTORY, dir_fd=directory)
        try:
            with os.scandir(inner) as entries:
                for entry in entries:
                    _copy(inner, entry.name, target / entry.name, left, depth - 1)
        finally:
            os.close(inner)
    elif stat.S_ISREG(told.st_mode):
        _copy_file(directory, name, target, left)


def _copy_file(directory: int, name: str, target: Path, left: _Left) -> None:
    """Copy a plain file. A sparse one counts as large as it says it is, before anything of it is read."""
    handle = os.open(name, _NO_LINK, dir_fd=directory)
    with os.fdopen(handle, "rb") as source:
        told = os.fstat(handle)
        if not stat.S_ISREG(told.st_mode):
            return
        if told.st_size > left.size:
            raise TooMuch(f"it is larger than {MOST_BYTES >> 20} MiB")
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
            while data := source.read(1 << 20):
                left.take(size=len(data))
                copy.write(data)
        os.utime(target, ns=(told.st_atime_ns, told.st_mtime_ns))  # CLIs look for the latest


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
