"""What the shim does with processes: its command dies with it, daemons are its own, nothing below it survives.

Linux, standard library only: the shim imports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of whatever a descendant leaves behind."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name(title: str) -> None:
    """What `ps` and `top` call this process: 15 characters at most."""
    _libc.prctl(_PR_SET_NAME, title.encode()[:15])


def die_with_shim() -> None:
    """In the child: die with the shim."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`. As a subreaper the shim also inherits daemons."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        for task in Path(f"/proc/{parent}/task").glob("*"):
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    found.append(int(child))
                    queue.append(int(child))
    return found


def activity(pid: int) -> tuple[int, float]:
    """The bytes that a process has read and written so far, and its seconds of processor time; nothing of one that has
    ended, or where the kernel does not count it."""
    moved, ticks = 0, 0
    with contextlib.suppress(OSError):
        moved = sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/io").read_text().splitlines()[:2])
    with contextlib.suppress(OSError):
        ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return moved, ticks / os.sysconf("SC_CLK_TCK")


def kill_descendants(number: int, root: int | None = None) -> None:
    """Signal everything below `root` (None: us); for SIGKILL again until nothing is left, for what is killed may have
    just forked."""
    for _ in range(100 if number == signal.SIGKILL else 1):
        living = [pid for pid in descendants(os.getpid() if root is None else root) if not _zombie(pid)]
        if not living:
            return
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            time.sleep(0.005)


def marked(variable: str) -> dict[str, list[int]]:
    """The processes that carry an environment variable, by its value. Only those we may look into."""
    found: dict[str, list[int]] = {}
    prefix = f"{variable}=".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                for word in (entry / "environ").read_bytes().split(b"\0"):
                    if word.startswith(prefix):
                        value = word.removeprefix(prefix).decode("utf-8", "replace")
                        found.setdefault(value, []).append(int(entry.name))
    return found


def kill_marked(variable: str, value: str) -> int:
    """Kill what a shim that was killed has left behind, until nothing is left; returns how many there were."""
    count = 0
    for _ in range(100):
        living = [pid for pid in marked(variable).get(value, []) if pid != os.getpid() and not _zombie(pid)]
        if not living:
            break
        count += len(living)
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return count


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True
