"""Things that are in the way are moved aside at once and removed later, beside everything else.

Making many files just after removing many is ten times slower on ext4: nobody waits for a removal. Stdlib only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path


def discard(path: Path, trash: Path) -> None:
    """Move something away, whatever it is; `empty` removes it later. Links are not followed."""
    trash.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = path.lstat()
    if stat.S_ISDIR(told.st_mode) and told.st_mode & 0o700 != 0o700:
        path.chmod(0o700)  # a directory that cannot be written cannot be moved
    path.rename(trash / uuid.uuid4().hex)


def empty(trash: Path) -> None:
    """Remove what is in the trash, beside everything else: making many files just after removing many is slow."""
    if trash.is_dir() and any(trash.iterdir()):
        threading.Thread(target=_remove_all, args=(trash,), name="trash", daemon=True).start()


def _remove_all(trash: Path) -> None:
    # `rm` and not `shutil.rmtree`: a chain of thousands of directories is no problem for it
    for path in _waiting(trash):
        for command in (["rm", "-rf", "--", path], ["chmod", "-R", "u+rwX", "--", path], ["rm", "-rf", "--", path]):
            if not os.path.lexists(path):
                break
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _waiting(trash: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from (str(path) for path in trash.iterdir())
