"""What a run may use: memory, processes, disk, /tmp, time. Who goes beyond it is ended, and told which limit it was
(`cgroups`: what the kernel holds; `watching`: what is counted).

Standard library only: the shim imports it. Memory and processes are held by the kernel where a cgroup can be made (v2,
else v1), else they are counted once a second; disk is counted; /tmp is a file system of its own with that size. Never
RLIMIT_AS (V8, Go and the JVM reserve address space that they never use) nor RLIMIT_NPROC (it proves nothing as root).
Threads count as processes, as they do for the kernel.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    if which == "processes":
        return str(value)
    return size(value)
