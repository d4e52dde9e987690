"""Whether a command goes beyond its limits: looked at while it runs. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agents.runtime.cgroups import OURS, Group
from agents.runtime.limits import Limits

EVERY = 1.0  # seconds between two looks
SHARE = 0.05  # of the time, at most, goes into counting the disk
_SLICE = 0.05
_LONG = 3500  # bytes of a path; the kernel takes 4095, and a name has up to 255
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
        if self.limits.wall:
            return self._began + self.limits.wall
        return None

    def look(self) -> str:
        """Which limit it has reached, as a sentence; an empty string: none."""
        now = time.monotonic()
        self.next = now + EVERY
        if self.deadline is not None and now >= self.deadline:
            return self.limits.reached("wall")
        which = self._kernel() or (self._counted() if self._group is None else "") or self._tmp() or self._disk()
        if which:
            return self.limits.reached(which)
        return ""

    def last(self, failed: bool, number: int | None) -> str:
        """The same, once it has ended: `failed`, perhaps by the signal `number`."""
        which = self._kernel()
        if not which and self.limits.disk and number == signal.SIGXFSZ:
            which = "disk"
        if not which and failed:
            which = self._tmp()
        if not which and any(before - _free(root) > self.limits.disk // 2 for root, before in self._free.items()):
            used = sum(sizes(self._roots))  # the file system has lost so much meanwhile: it may have been this one
            which = ""
            if used >= self.limits.disk:
                which = "disk"
        if which:
            return self.limits.reached(which)
        return ""

    def _kernel(self) -> str:
        if self._group is not None:
            return self._group.hit()
        return ""

    def _counted(self) -> str:
        tasks = memory = 0
        pids = self._tasks()
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    tasks += int(fields[17])
                    memory += int(fields[21]) * _PAGE
        if self.limits.processes and tasks > self.limits.processes + OURS:
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
        """Count the disk for a short while, going on where the last call stopped. Returns `disk` when the limit is
        reached, else an empty string. After a whole count it pauses, so that counting takes little of the time."""
        if not self.limits.disk or time.monotonic() < self._rest_until:
            return ""
        end = time.monotonic() + _SLICE
        if self._walk is None:
            self._walk, self._walked, self._spent = sizes(self._roots), 0, 0.0
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


def sizes(roots: Sequence[Path]) -> Iterator[int]:
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
