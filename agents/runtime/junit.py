"""JUnit reports, the shim's side: collected from a gate's worktree and sent compressed; `agents.reports` reads them.

The collector follows no links, opens only regular files, and has bounds.
"""

from __future__ import annotations

import base64
import itertools
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from beads import globs

MAX_FILES = 200
MAX_FILE = 8 << 20
MAX_READ = 16 << 20
MAX_SENT = 192 << 10
MAX_LOOKED_AT = 20_000
MAX_DEPTH = 64

Mark = tuple[int, int, int, int]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def marks(worktree: Path, pattern: str) -> dict[str, Mark]:
    """The reports that are there now, and by what a newly written one can be told from them."""
    return {path: _mark(os.fstat(file)) for path, file in _found(worktree, pattern)}


def collect(
    worktree: Path, pattern: str, before: Mapping[str, Mark], clean: Callable[[bytes], bytes] = bytes
) -> tuple[list[dict[str, str]], str]:
    """The reports written since `before`: `[{path, data}]`, and a note on what was left out.

    `clean` takes secrets out.
    """
    reports: list[dict[str, str]] = []
    note, room, left = "", MAX_SENT, MAX_READ
    for path, file in _found(worktree, pattern):
        status = os.fstat(file)
        if before.get(path) == _mark(status):
            continue
        left -= status.st_size
        if len(reports) >= MAX_FILES or status.st_size > MAX_FILE or left < 0:
            note = f"{path}: more than {MAX_FILES} reports, or larger than {MAX_FILE >> 20} MiB: not read"
            continue
        with open(file, "rb", closefd=False) as handle:
            data = base64.b64encode(zlib.compress(clean(handle.read(MAX_FILE)))).decode()
        if len(data) > room:
            note = f"{path}: the reports are too large to be sent: not read"
            continue
        room -= len(data)
        reports.append({"path": path.encode("utf-8", "replace").decode()[:500], "data": data})
    if not reports and not note:
        note = f"no new report matches {pattern}"
    return reports, note


def _mark(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _found(worktree: Path, pattern: str) -> Iterator[tuple[str, int]]:
    """Regular files below the worktree that match, each with an open descriptor, closed when the next is asked for."""
    parts = pattern.strip("/").split("/")
    fixed = list(itertools.takewhile(lambda part: "*" not in part and "?" not in part, parts[:-1]))
    start = _directory(worktree, fixed)
    if start is None:
        return
    wanted = ["/" + "/".join(parts)]
    left = MAX_LOOKED_AT
    waiting = [("/".join(fixed), start)]
    try:
        while waiting:
            where, at = waiting.pop()
            try:
                with os.scandir(at) as rows:
                    names = sorted((row.name, row.is_dir(follow_symlinks=False)) for row in rows)
                for name, directory in names:
                    path = f"{where}/{name}".lstrip("/")
                    left -= 1
                    if left < 0:
                        return
                    if directory and path.count("/") < MAX_DEPTH and name != ".git" and len(waiting) < 500:
                        if len(parts) > path.count("/") + 1 or "**" in parts:
                            waiting.append((path, os.open(name, _DIRECTORY, dir_fd=at)))
                    elif not directory and globs.matches(wanted, path):
                        yield from _opened(path, name, at)
            except OSError:
                continue
            finally:
                os.close(at)
    finally:
        for _, at in waiting:
            os.close(at)


def _directory(worktree: Path, names: Sequence[str]) -> int | None:
    """The descriptor of a directory below the worktree, reached through no link; None when there is none."""
    try:
        at = os.open(worktree, _DIRECTORY)
    except OSError:
        return None
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=at)
        except OSError:
            return None
        finally:
            os.close(at)
        at = below
    return at


def _opened(path: str, name: str, at: int) -> Iterator[tuple[str, int]]:
    try:
        file = os.open(name, _FILE, dir_fd=at)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            yield path, file
    finally:
        os.close(file)
