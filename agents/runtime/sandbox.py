"""Where gates run: bubblewrap when it works here, else rlimits in a process group, and then it is said so.

Stdlib only: the shim imports it. In bubblewrap a gate sees the machine read-only, its own worktree and /tmp, no
network (unless it asks), no other process, nothing of GASTOWN_HOME but the bare repository (so that read-only git
works); the whole process tree dies with it.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

BUBBLEWRAP = "bubblewrap"
UNSANDBOXED = "unsandboxed"
_BASE = [
    "--die-with-parent",
    "--new-session",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
]


@functools.cache
def available() -> str:
    """`bubblewrap` when it really can start a sandbox here, else `unsandboxed`."""
    if os.environ.get("GASTOWN_SANDBOX") == "off" or shutil.which("bwrap") is None:
        return UNSANDBOXED
    probe = ["bwrap", *_BASE, "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNSANDBOXED
    return BUBBLEWRAP if done.returncode == 0 else UNSANDBOXED


def wrap(
    argv: Sequence[str],
    *,
    worktree: Path,
    repo: Path,
    hidden: Sequence[Path],
    network: bool,
    kind: str,
    borrowed: Sequence[Path] = (),
) -> list[str]:
    """The command line that runs `argv` in a sandbox of `kind`. `hidden` are directories that it must not see;
    `borrowed`: repositories of submodules, whose objects git reads."""
    if kind != BUBBLEWRAP:
        return list(argv)
    command = ["bwrap", *_BASE, *([] if network else ["--unshare-net"])]
    command += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
    for path in hidden:
        if path.is_dir():
            command += ["--tmpfs", str(path)]
    for path in borrowed:
        command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind", str(repo), str(repo), "--bind", str(worktree), str(worktree)]
    return [*command, "--chdir", str(worktree), "--", *argv]


def inner_status(kind: str, returncode: int) -> tuple[int | None, int | None]:
    """(exit code, signal) of the command inside. bubblewrap and `sh` report a signal n as 128 + n."""
    if returncode < 0:
        return None, -returncode
    if kind == BUBBLEWRAP and 128 < returncode <= 128 + 64:
        return None, returncode - 128
    return returncode, None


def limit() -> None:
    """Rlimits of a gate's process: no core files, and files of at most 20 GiB."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 20 * 2**30
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))
