"""Paths of a gate that outlive its worktree, `node_modules` for one: kept aside, and given to each gate as a copy.

Standard library only: the shim imports it. Kept for each gate, place of a worktree and content of its key files: what
is kept may hold absolute paths, and is only ever put back where it came from. A cache appears whole, by a rename,
after its gate has passed; one process saves at a time; whoever copies from one keeps it from being removed. Nobody
writes to what is kept: two gates never see each other's. Links are kept as links and never followed.

What a gate has left is on trial until the very change that it ran on has landed: code that nobody has accepted yet
could else decide about others by what it leaves behind. One at a time is on trial for each key.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 4 << 30
MOST_FILES = 500_000
KEPT_PER_GATE = 16
KEPT_BYTES = 20 << 30
TRIAL_SECONDS = 3600.0  # as long a change keeps others from putting theirs on trial
_libc = ctypes.CDLL(None, use_errno=True)

Copy = Callable[[Path, Path], bool]


class Cache:
    """What one gate of one run has kept. Its key is taken when it is made: before anything has run."""

    def __init__(
        self, root: Path, worktree: Path, step: Mapping[str, Any], change: str, say: Callable[[str], None]
    ) -> None:
        self.worktree, self.change, self.say = worktree, change, say
        self.paths = [str(path) for path in step["cache"]]
        keys = [str(path) for path in step.get("cache_key") or []]
        gate = _digest(step["name"], step.get("command") or step.get("run") or "", *self.paths)
        self.fixed = bool(keys)
        key = _digest(str(worktree), *(word for path in keys for word in (path, _content(worktree, path))))
        self.place = root / gate / key

    def restore(self, copy: Copy) -> bool:
        """Copy what is kept into the worktree, where nothing is in the way; False when nothing is kept."""
        for number in _versions(self.place):
            with _held(self.place / f"{number}.lock", fcntl.LOCK_SH) as held:
                kept = self.place / str(number)
                if not held or not kept.is_dir():
                    continue
                with contextlib.suppress(OSError):
                    os.utime(self.place)
                return self._copy_all(kept, copy)
        return False

    def _copy_all(self, kept: Path, copy: Copy) -> bool:
        for index, path in enumerate(self.paths):
            source, target = kept / str(index), self.worktree / path
            if not os.path.lexists(source):
                continue
            if not _real(self.worktree, Path(path).parent, make=True) or os.path.lexists(target):
                self.say(f"cache: {path} is there already: left as it is")
            elif not copy(source, target):
                _remove(target)
                self.say(f"cache: {path} could not be restored")
                return False
        return True

    def _wanted(self) -> bool:
        if self.fixed and _versions(self.place):
            return False
        trials = _trials(self.place)
        recent = bool(trials) and trials[0] > (time.time() - TRIAL_SECONDS) * 1e9
        return not recent or _told(self.place, trials[0]).get("of") == self.change

    def save(self, copy: Copy) -> bool:
        """Put the worktree's paths on trial, unless some are kept or tried under this key; False when nothing was."""
        if not self._wanted():
            return False
        found = {index: path for index, path in enumerate(self.paths) if _real(self.worktree, Path(path))}
        size, files = 0, 0
        for path in found.values():
            more, count = _size(self.worktree / path)
            size, files = size + more, files + count
        if not found or size > MOST_BYTES or files > MOST_FILES:
            if found:
                self.say(f"cache: {size >> 20} MiB in {files} files are too much to be kept")
            return False
        self.place.mkdir(parents=True, exist_ok=True)
        with _held(self.place / "saving", fcntl.LOCK_EX) as alone:
            if not alone or not self._wanted():
                return False
            for leftover in self.place.glob("new-*"):
                _remove(leftover)
            number = time.time_ns()
            fresh = self.place / f"new-{number}"
            fresh.mkdir()
            if not all(copy(self.worktree / path, fresh / str(index)) for index, path in found.items()):
                _remove(fresh)
                return False
            _to_disk(fresh)
            (self.place / f"{number}.lock").write_text(json.dumps({"bytes": size, "of": self.change}))
            fresh.rename(self.place / f"trial-{number}")
            for older in _trials(self.place)[1:]:
                _drop(self.place, older)
        _prune_gate(self.place.parent)
        return True


def promote(root: Path, changes: Container[str]) -> int:
    """Keep for all what these changes have on trial, for they have landed; returns how many caches that were."""
    count = 0
    for trial in root.glob("*/*/trial-*"):
        place, number = trial.parent, int(trial.name.removeprefix("trial-"))
        if _told(place, number).get("of") in changes:
            with _held(place / "saving", fcntl.LOCK_EX) as alone, contextlib.suppress(OSError):
                if alone:
                    trial.rename(place / str(number))
                    count += 1
                    for older in _versions(place)[1:]:
                        _drop(place, older)
    return count


def prune(root: Path, before: float, most: int = KEPT_BYTES) -> int:
    """Remove what was last used before then (Unix seconds), and the longest unused beyond `most` bytes in all."""
    count, total = 0, 0
    if not root.is_dir():
        return 0
    places = [place for gate in root.iterdir() if gate.is_dir() for place in gate.iterdir() if place.is_dir()]
    for place in sorted(places, key=_used, reverse=True):
        size = sum(_size_of(place, number) for number in _saved(place))
        if _used(place) >= before and total + size <= most:
            total += size
        else:
            count += _drop_place(place)
    for gate in root.iterdir():
        with contextlib.suppress(OSError):
            gate.rmdir()
    return count


def _prune_gate(gate: Path) -> None:
    for place in sorted((p for p in gate.iterdir() if p.is_dir()), key=_used, reverse=True)[KEPT_PER_GATE:]:
        _drop_place(place)


def _drop_place(place: Path) -> bool:
    """Remove a place, unless somebody saves to it or copies from it."""
    with _held(place / "saving", fcntl.LOCK_EX) as alone:
        if not alone or not all(_drop(place, number) for number in _saved(place)):
            return False
        shutil.rmtree(place, ignore_errors=True)
        return True


def _drop(place: Path, number: int) -> bool:
    with _held(place / f"{number}.lock", fcntl.LOCK_EX) as unused:
        if unused:
            _remove(place / str(number))
            _remove(place / f"trial-{number}")
            (place / f"{number}.lock").unlink(missing_ok=True)
        return unused


@contextlib.contextmanager
def _held(path: Path, how: int) -> Iterator[bool]:
    """Hold a lock on a file (`how`: shared or exclusive) during the body. Yields False, without waiting, where somebody
    else holds it or the file cannot be opened."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


def _versions(place: Path, mark: str = "") -> list[int]:
    """What is kept at a place, newest first: the moment in which each was saved."""
    try:
        names = [p.name.removeprefix(mark) for p in place.iterdir() if p.name.startswith(mark)]
    except OSError:
        return []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _trials(place: Path) -> list[int]:
    """What is on trial at a place, newest first."""
    return _versions(place, "trial-")


def _saved(place: Path) -> list[int]:
    """All of a place: what is on trial, then what is kept, the oldest first."""
    return [*_trials(place), *reversed(_versions(place))]


def _used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _told(place: Path, number: int) -> dict[str, Any]:
    """What was noted of something that was saved: its `bytes`, and the change `of` which it is."""
    try:
        told = json.loads((place / f"{number}.lock").read_text())
    except (OSError, ValueError):
        return {}
    if isinstance(told, dict):
        return told
    return {}


def _size_of(place: Path, number: int) -> int:
    """The bytes of something that was saved; 0 when nothing was noted of it."""
    try:
        return int(_told(place, number)["bytes"])
    except (ValueError, KeyError, TypeError):
        return 0


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _real(worktree: Path, path: Path, *, make: bool = False) -> bool:
    """True when a path in the worktree is there and no part of it is a link."""
    at = worktree
    for part in path.parts:
        at = at / part
        try:
            kind = at.lstat().st_mode
        except OSError:
            if not make:
                return False
            at.mkdir()
            continue
        if stat.S_ISLNK(kind) or not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            return False
    return True


def _content(worktree: Path, path: str) -> str:
    """The digest of a key file's content; a file that is not there, or only by a link, has none."""
    if not _real(worktree, Path(path)) or not (worktree / path).is_file():
        return "none"
    try:
        with (worktree / path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return "none"


def _size(path: Path) -> tuple[int, int]:
    """Bytes on the disk, and files, of a tree; links are not followed."""
    if not path.is_dir():
        return path.lstat().st_blocks * 512, 1
    size, count = 0, 0
    for where, directories, files in os.walk(path):
        for name in (*directories, *files):
            count += 1
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(where, name)).st_blocks * 512
        if size > MOST_BYTES or count > MOST_FILES:
            break
    return size, count


def _to_disk(path: Path) -> None:
    """A crash of the machine must not leave a cache that looks whole and is not."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _libc.syncfs(directory)
    finally:
        os.close(directory)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
