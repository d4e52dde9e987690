"""Files that only we can read (0600), each there whole or not at all. Stdlib only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(file: Path, text: str) -> None:
    """Write the file, over one that is there."""
    name = _aside(file, text)
    try:
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def write_once(file: Path, text: str) -> None:
    """Write the file unless it is there; of two who do so at once, one is first and its file stays."""
    if file.exists():
        return
    name = _aside(file, text)
    try:
        os.link(name, file)
    except FileExistsError:
        pass  # the other one was first
    finally:
        os.unlink(name)


def folder_to_disk(folder: Path) -> None:
    """The names in it outlast a loss of power from now on."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _aside(file: Path, text: str) -> str:
    """A new file beside it with this text."""
    descriptor, name = tempfile.mkstemp(dir=file.parent)  # made with 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as handle:
            handle.write(text)
    except BaseException:
        os.unlink(name)
        raise
    return name
