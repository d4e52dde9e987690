"""`gt` in a run's box: its folder, which this server has written, and the Python that runs it.

The folder is named by what is in it (the program, the table of commands, the interpreter's path), so it is never
changed once it is there: runs of an older server keep theirs. What the repository or the workspace has of that name
does not count: ours is first on PATH, and its Python is named by its whole path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import py_compile
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agents.runtime import gt, sandbox, trash
from agents.runtime.box import BUBBLEWRAP, Box, refused

SOURCES = Path(gt.__file__).parent
OLDEST = (3, 9)
KEPT_SECONDS = 60 * 86400.0
_START = "import sys; sys.path.insert(0, {lib!r}); import gt.commands; gt.commands.start({table!r})"


@dataclass(frozen=True)
class Shown:
    """What a box has to show for `gt`: the folder that goes first on its PATH, and all paths that must be seen."""

    path: Path
    read_only: tuple[str, ...]


def shown(home: Path, table: Sequence[Mapping[str, Any]], box: Box) -> Shown | None:
    """Make `gt` ready for runs in boxes like this one; None where no Python can be shown there. Raises OSError."""
    found = _python(box, str(home))
    if found is None:
        return None
    python, more = found
    folder = _written(home, json.dumps(list(table)), python)
    return Shown(folder / "bin", (str(folder), *more))


def _python(box: Box, home: str) -> tuple[str, tuple[str, ...]] | None:
    """The interpreter that runs `gt` there, and what has to be shown besides for it: ours where it is seen, one that
    is there, or else the folder of ours."""
    ours = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    prefix = os.path.realpath(sys.base_prefix)
    if not box.boxed or (box.sees(ours) and box.sees(prefix)):
        return ours, ()
    for path in _pythons(box):
        if _fit(path, box.bwrap, tuple(root for root in box.read_only if path.startswith(f"{root}/"))):
            return path, ()
    inside = f"{ours}/".startswith(f"{prefix}/")
    return (ours, (prefix,)) if inside and not refused(prefix, home, os.path.expanduser("~")) else None


def _pythons(box: Box) -> Iterator[str]:
    """Every `python3` that is seen on the box's PATH."""
    for folder in box.search_path(os.environ.get("PATH", "")).split(":"):
        found = shutil.which("python3", path=folder)
        if found and box.sees(found):
            yield os.path.realpath(found)


@cache
def _fit(python: str, bwrap: str, roots: tuple[str, ...]) -> bool:
    """True for a Python that works in a box, with its standard library, and is not too old."""
    asked = f"import json, socket, sys; sys.exit(sys.version_info < {OLDEST!r})"
    try:
        return sandbox.ask(Box(BUBBLEWRAP, bwrap, read_only=roots), [python, "-IS", "-c", asked])[0] == 0
    except OSError:
        return False


@cache
def _sources() -> dict[str, bytes]:
    """The program, as this process has found it: read once, not for each run."""
    return {one.name: one.read_bytes() for one in sorted(SOURCES.glob("*.py"))}


def forget_old(home: Path) -> None:
    """Put aside the folders that no run has been given for longer than a run may last: of servers of before."""
    for folder in (home / "gt").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
                trash.discard(folder, home / "trash")


def _written(home: Path, table: str, python: str) -> Path:
    """The folder with the program. Whoever comes first writes it, whole or not at all."""
    sources = _sources()
    mark = hashlib.sha256(repr((sorted(sources.items()), table, python)).encode()).hexdigest()[:16]
    folder = home / "gt" / mark
    if (folder / "bin" / "gt").exists():
        os.utime(folder)
        return folder
    made = home / "gt" / f".{mark}.{os.getpid()}.{os.urandom(4).hex()}"
    lib = made / "lib" / "gt"
    lib.mkdir(parents=True)
    (made / "bin").mkdir()
    for name, content in sources.items():
        (lib / name).write_bytes(content)
    (made / "table.json").write_text(table)
    start = _START.format(lib=str(folder / "lib"), table=str(folder / "table.json"))
    program = made / "bin" / "gt"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} -IS -c {shlex.quote(start)} "$@"\n')
    program.chmod(0o755)
    for one in lib.glob("*.py"):  # inside nothing can be written beside it; a Python of another version does without
        py_compile.compile(str(one), doraise=True)
    try:
        made.rename(folder)
    except OSError:
        shutil.rmtree(made)
        if not (folder / "bin" / "gt").exists():
            raise
    return folder
