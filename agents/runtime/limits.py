"""What a run may use: memory, processes, disk, /tmp, time. Who goes beyond it is ended, and told which limit it was.

Standard library only: the shim imports it. Memory and processes are held by the kernel where a cgroup can be made (v2,
else v1), else they are counted once a second; disk is counted; /tmp is a file system of its own with that size. Never
RLIMIT_AS (V8, Go and the JVM reserve address space that they never use) nor RLIMIT_NPROC (it proves nothing as root).
Threads count as processes, as they do for the kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY = 1.0  # seconds between two looks
SHARE = 0.05  # of the time, at most, goes into counting the disk
_SLICE = 0.05
_LONG = 3500  # bytes of a path; the kernel takes 4095, and a name has up to 255
_OURS = 4  # bubblewrap's own two, and what a keeper needs
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PREFIX = "gastown-"
_numbers = itertools.count(1)


def size(value: int) -> str:
    """Bytes in the largest unit that fits: `4G`."""
    for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as a config says them: `6h`, `1m30s`."""
    rest, said = round(seconds), ""
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, factor)
        said += f"{count}{unit}" if count else ""
    return said or f"{seconds:g}s"


@dataclass(frozen=True)
class Limits:
    """In bytes, tasks and seconds. 0: no limit."""

    memory: int = 0
    processes: int = 0
    disk: int = 0
    tmp: int = 0
    wall: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Limits:
        """From a box's `limits`."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if given.get(name)})

    def reached(self, which: str) -> str:
        """`memory limit of 4G reached`."""
        value = getattr(self, which)
        return f"{which} limit of {duration(value) if which == 'wall' else _said(which, value)} reached"

    def rlimits(self) -> None:
        """In the child, before the command: no core files, and no single file larger than the disk limit."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = self.disk or 20 << 30
        resource.setrlimit(resource.RLIMIT_FSIZE, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _said(which: str, value: int) -> str:
    return str(value) if which == "processes" else size(value)


# -- cgroups --------------------------------------------------------------------------------------------------------


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
        tasks = str(limits.processes + _OURS) if limits.processes else "max"
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
        return "processes" if _counter(self._at["pids"] / "pids.events", "max") else ""

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
            given = (base / "cgroup.subtree_control").read_text().split() if base.is_dir() else []
            if not {"memory", "pids"} <= set(given) and os.access(base / "cgroup.subtree_control", os.W_OK):
                with contextlib.suppress(OSError):
                    (base / "cgroup.subtree_control").write_text("+memory +pids")
                    given = ["memory", "pids"]
            if {"memory", "pids"} <= set(given):
                yield True, {"memory": base, "pids": base}
    if "memory" in mounts and "pids" in mounts:
        for memory in _bases(mounts["memory"], own.get("memory", "/")):
            for pids in _bases(mounts["pids"], own.get("pids", "/")):
                yield False, {"memory": memory, "pids": pids}


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


# -- watching -------------------------------------------------------------------------------------------------------


class Watch:
    """Looks, every second, whether a command has gone beyond its limits.

    `tasks`: the process ids below the command; `roots`: what counts as its disk; `tmps`: open directories of its own
    temporary file systems; `group`: its cgroup, if there is one.
    """

    def __init__(
        self,
        limits: Limits,
        tasks: Callable[[], Sequence[int]],
        roots: Sequence[Path],
        tmps: Sequence[int] = (),
        group: Group | None = None,
    ) -> None:
        self.limits, self._tasks, self._roots, self._tmps, self._group = limits, tasks, roots, tmps, group
        self._began = time.monotonic()
        self.next = self._began + EVERY
        self._walk: Iterator[int] | None = None
        self._walked = 0
        self._spent, self._rest_until = 0.0, 0.0
        self._free = {root: _free(root) for root in roots} if limits.disk else {}

    @property
    def deadline(self) -> float | None:
        """When its time is over, on the monotonic clock."""
        return self._began + self.limits.wall if self.limits.wall else None

    def look(self) -> str:
        """Which limit it has reached, as a sentence; an empty string: none."""
        now = time.monotonic()
        self.next = now + EVERY
        if self.deadline is not None and now >= self.deadline:
            return self.limits.reached("wall")
        which = self._kernel() or (self._counted() if self._group is None else "") or self._tmp() or self._disk()
        return self.limits.reached(which) if which else ""

    def last(self, failed: bool, number: int | None) -> str:
        """The same, once it has ended: `failed`, perhaps by the signal `number`."""
        which = self._kernel()
        if not which and self.limits.disk and number == signal.SIGXFSZ:
            which = "disk"
        if not which and failed:
            which = self._tmp()
        if not which and any(before - _free(root) > self.limits.disk // 2 for root, before in self._free.items()):
            used = sum(_sizes(self._roots))  # the file system has lost so much meanwhile: it may have been this one
            which = "disk" if used >= self.limits.disk else ""
        return self.limits.reached(which) if which else ""

    def _kernel(self) -> str:
        return self._group.hit() if self._group is not None else ""

    def _counted(self) -> str:
        tasks = memory = 0
        pids = self._tasks()
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    tasks += int(fields[17])
                    memory += int(fields[21]) * _PAGE
        if self.limits.processes and tasks > self.limits.processes + _OURS:
            return "processes"
        if self.limits.memory and memory > self.limits.memory and _exact(pids, memory) > self.limits.memory:
            return "memory"
        return ""

    def _tmp(self) -> str:
        for handle in self._tmps if self.limits.tmp else ():
            with contextlib.suppress(OSError):
                told = os.fstatvfs(handle)
                if told.f_blocks and (told.f_bfree == 0 or (told.f_files and told.f_ffree == 0)):
                    return "tmp"
        return ""

    def _disk(self) -> str:
        """Go on with the count for a moment; a count that is done is compared, and the next one waits."""
        if not self.limits.disk or time.monotonic() < self._rest_until:
            return ""
        end = time.monotonic() + _SLICE
        if self._walk is None:
            self._walk, self._walked, self._spent = _sizes(self._roots), 0, 0.0
        began = time.monotonic()
        done = True
        for number, used in enumerate(self._walk):
            self._walked += used
            if number % 64 == 63 and time.monotonic() > end:
                done = False
                break
        self._spent += time.monotonic() - began
        if self._walked >= self.limits.disk:
            return "disk"
        if done and self._walked + _unlinked(self._tasks(), self._roots) >= self.limits.disk:
            return "disk"
        if done:
            self._walk = None
            self._rest_until = time.monotonic() + self._spent / SHARE
        return ""


def _unlinked(pids: Sequence[int], roots: Sequence[Path]) -> int:
    """What files take on the disks of `roots` that have no name any more, and are still open in one of these processes:
    no look at the names finds them, and they may fill a disk all the same."""
    devices, found = set(), dict[tuple[int, int], int]()
    for root in roots:
        with contextlib.suppress(OSError):
            devices.add(os.stat(root).st_dev)
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with contextlib.suppress(OSError):
                    told = os.stat(handle.path)
                    if told.st_nlink == 0 and told.st_dev in devices and stat.S_ISREG(told.st_mode):
                        found[told.st_dev, told.st_ino] = told.st_blocks * 512
    return sum(found.values())


def _exact(pids: Sequence[int], rough: int) -> int:
    """Memory in bytes in which what is shared counts once; `rough` where the kernel does not say."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total or rough


def _free(path: Path) -> int:
    with contextlib.suppress(OSError):
        told = os.statvfs(path)
        return told.f_bfree * told.f_frsize
    return 0


def _sizes(roots: Sequence[Path]) -> Iterator[int]:
    """What each file below takes on the disk. Links are not followed; a file with several names counts once each.

    Nothing lies too deep for it: where a path would be longer than the kernel takes, it goes on from an open directory.
    """
    queue: list[tuple[str, _Directory | None]] = [(os.fspath(root), None) for root in roots]
    while queue:
        path, base = queue.pop()
        with contextlib.suppress(OSError):
            if len(os.fsencode(path)) > _LONG:
                base = _Directory(path)
                path = base.path
            with os.scandir(path) as entries:
                for entry in entries:
                    used = 0
                    with contextlib.suppress(OSError):
                        used = entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            queue.append((entry.path, base))
                    yield used


class _Directory:
    """A directory that is held open for as long as anybody is to look below it, and a short path to it."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._handle}"

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._handle)
