"""Control groups around commands, v2 or v1, where this process may make some. Stdlib only."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agents.runtime.limits import Limits

OURS = 4  # bubblewrap's own two, and what a keeper needs
_PREFIX = "gastown-"
_numbers = itertools.count(1)


class Group:
    """A cgroup (v2), or one for memory and one for processes (v1), around one command."""

    def __init__(self, directories: Mapping[str, Path], v2: bool) -> None:
        self._at = dict(directories)
        self._v2 = v2

    @classmethod
    def make(cls, limits: Limits) -> Group | None:
        """One with these limits; None where none can be made here."""
        for v2, bases in _hierarchies():
            name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
            group = cls({what: base / name for what, base in bases.items()}, v2)
            try:
                group._make(limits)
            except OSError:
                group.remove()
            else:
                return group
        return None

    def _make(self, limits: Limits) -> None:
        for path in set(self._at.values()):
            path.mkdir()
        tasks = "max"
        if limits.processes:
            tasks = str(limits.processes + OURS)
        (self._at["pids"] / "pids.max").write_text(tasks)
        memory = self._at["memory"]
        if self._v2:
            (memory / "memory.max").write_text(str(limits.memory or "max"))
            with contextlib.suppress(OSError):
                (memory / "memory.swap.max").write_text("0" if limits.memory else "max")
            with contextlib.suppress(OSError):
                (memory / "memory.oom.group").write_text("1")
        elif limits.memory:
            (memory / "memory.limit_in_bytes").write_text(str(limits.memory))
            with contextlib.suppress(OSError):
                (memory / "memory.memsw.limit_in_bytes").write_text(str(limits.memory))

    def joining(self) -> Callable[[], None]:
        """What the child calls before the command: from then on it is in the group."""
        files = [os.fsencode(path / "cgroup.procs") for path in sorted(set(self._at.values()))]

        def join() -> None:
            """Only system calls: this runs between fork and exec."""
            for file in files:
                handle = os.open(file, os.O_WRONLY)
                os.write(handle, b"0")
                os.close(handle)

        return join

    def add(self, pid: int) -> None:
        """Take a process in, and with it all that it will start."""
        for path in set(self._at.values()):
            (path / "cgroup.procs").write_text(str(pid))

    def hit(self) -> str:
        """`memory` or `processes` when the kernel has said no to the group; else an empty string."""
        source = self._at["memory"] / ("memory.events" if self._v2 else "memory.oom_control")
        if _counter(source, "oom_kill"):
            return "memory"
        if _counter(self._at["pids"] / "pids.events", "max"):
            return "processes"
        return ""

    def pids(self) -> list[int]:
        """Who is in it."""
        with contextlib.suppress(OSError, ValueError):
            return [int(word) for word in (self._at["pids"] / "cgroup.procs").read_text().split()]
        return []

    def remove(self) -> None:
        """End whoever is in it, and remove it."""
        for path in set(self._at.values()):
            _empty(path)


def _empty(path: Path) -> None:
    for _ in range(100):
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                for word in (path / "cgroup.procs").read_text().split():
                    if int(word) > 0:
                        os.kill(int(word), signal.SIGKILL)
            time.sleep(0.01)


def _foreign(path: Path) -> bool:
    """True when somebody is in it whom we cannot see: another container may share these groups with us."""
    with contextlib.suppress(OSError):
        return "0" in (path / "cgroup.procs").read_text().split()
    return True


def _counter(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _hierarchies() -> Iterator[tuple[bool, dict[str, Path]]]:
    """Where groups may be made: (is it v2, controller → directory above). They may turn out not to be writable."""
    own: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    mounts: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup2":
                mounts[""] = Path(where)
            elif kind == "cgroup":
                mounts |= dict.fromkeys(options.split(","), Path(where))
    if "" in mounts:
        for base in _bases(mounts[""], own.get("", "/")):
            if _delegates(base):
                yield True, {"memory": base, "pids": base}
    if "memory" in mounts and "pids" in mounts:
        for memory in _bases(mounts["memory"], own.get("memory", "/")):
            for pids in _bases(mounts["pids"], own.get("pids", "/")):
                yield False, {"memory": memory, "pids": pids}


def _delegates(base: Path) -> bool:
    """True when groups below `base` (v2) can hold memory and processes; that is switched on where it may be."""
    wanted, control = {"memory", "pids"}, base / "cgroup.subtree_control"
    if not base.is_dir():
        return False
    if wanted <= set(control.read_text().split()):
        return True
    if os.access(control, os.W_OK):
        with contextlib.suppress(OSError):
            control.write_text("+memory +pids")
            return True
    return False


def _bases(mount: Path, own: str) -> list[Path]:
    """Our own group, and the mount's root, for a container may see its own group as that; ours without our groups."""
    path = mount / own.strip("/")
    if path.name.startswith(_PREFIX):
        path = path.parent
    return [p for p in dict.fromkeys([path, mount]) if p.is_dir() and os.access(p, os.W_OK)]


def clean() -> int:
    """Remove the groups that dead shims have left, with whoever is in them; returns how many there were."""
    found = 0
    for _, bases in _hierarchies():
        for base in set(bases.values()):
            for path in base.glob(f"{_PREFIX}*-*"):
                owner = path.name.removeprefix(_PREFIX).partition("-")[0]
                if owner.isdigit() and not Path(f"/proc/{owner}").exists() and not _foreign(path):
                    found += 1
                    _empty(path)
    return found
