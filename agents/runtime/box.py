"""What a command is run in, as data, and the line that makes bubblewrap do it. Pure but for looking at what is there.

Standard library only: the shim imports it. Inside: an unprivileged uid without capabilities (also when we are root),
all namespaces of its own, no nested user namespaces, `/usr` and its like, chosen files of `/etc`, what the spec names,
an empty home, a `/tmp` of its own; nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agents.runtime import network

BUBBLEWRAP = "bubblewrap"
UNSANDBOXED = "unsandboxed"
HOME = "/home/agent"
TREE = "/gastown/tree"  # where an agent's checkout is seen: its CLI knows sessions, trust and caches by that path
USER = "agent"
UID = 1000  # not 65534: that is also what the kernel shows for files of others
PATH = "/usr/local/bin:/usr/bin:/bin"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_NONE_OF = ("/", "/proc", "/sys", "/dev", "/run", "/var/run")  # never shown as a whole, whoever names them
# of /etc: how names of libraries, programs, certificates, time zones and file types are found; registries; never
# credentials, nor git's (a helper or a rewritten address there is the server's)
_ETC = (
    "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl/certs ssl/openssl.cnf ssl/cert.pem ca-certificates "
    "ca-certificates.conf pki/tls/certs pki/tls/cert.pem pki/tls/openssl.cnf pki/ca-trust crypto-policies localtime "
    "timezone mime.types os-release debian_version redhat-release services protocols inputrc fonts pip.conf xdg/pip "
    "npmrc bash.bashrc terminfo magic java* python3* php perl ImageMagick* maven gradle R"
)
_MISSING = re.compile(r"(?:^|[\s:'\"`])([\w./+-]+)['\"`]?: (?:command )?(?:not found|No such file or directory)")
FILES = {
    "/etc/passwd": f"{USER}:x:{UID}:{UID}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "/etc/group": f"{USER}:x:{UID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost box\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "/etc/resolv.conf": "# names are resolved outside, by the proxy\n",
    "/etc/hostname": "box\n",
}


@dataclass(frozen=True)
class Box:
    """What one command is to be run in; made by `agents.boxes`, handed over as JSON.

    `read_only`, `writable`: paths, shown where they are outside. `tree`: a writable one that is shown at `TREE` alone,
    or empty. `home`: a directory for HOME, or empty: one in memory.
    `path`: first in PATH. `env`: what is added to a command's variables. `network`: `["none"]`, `["open"]` or patterns.
    `allow`: the owner's exceptions for addresses that are not public. `tools`: the server's URL, or empty: no tool API.
    `limits`: see `Limits`. `secrets`: values that no record may hold. `notes`: what the run's log is told first.
    """

    kind: str
    bwrap: str = ""
    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    tree: str = ""
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
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in cls.__dataclass_fields__
        }
        return cls(**known)

    def for_step(self, step: Mapping[str, Any]) -> Box:
        """The box of one step: its own network, limits and `nested`, where it says something of them."""
        told = step.get("network", self.network)
        if isinstance(told, bool):  # a run that was queued before there were lists
            word = "none"
            if told:
                word = "open"
            told = [word]
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
        named = [*self.read_only, *self.writable, *self.trees]
        return tuple(dict.fromkeys([*(r for r in _SYSTEM if os.path.isdir(r)), *named]))

    @property
    def trees(self) -> tuple[str, ...]:
        """The names that `tree` has outside."""
        return tuple(dict.fromkeys([self.tree, os.path.realpath(self.tree)])) if self.tree else ()

    def inside(self, path: str) -> str:
        """Where a path is seen in here."""
        if not self.boxed:
            return path
        for root in self.trees:
            if path == root or path.startswith(f"{root}/"):
                return TREE + path.removeprefix(root)
        return path

    def sees(self, path: str) -> bool:
        """True when this path is shown, and what it points to as well."""
        both = (os.path.abspath(path), os.path.realpath(path))
        return all(any(one == root or one.startswith(f"{root.rstrip('/')}/") for root in self.roots) for one in both)

    def search_path(self, given: str) -> str:
        """PATH inside: what the config puts first, what is visible of the given one, the usual."""
        words = [*self.path, *(w for w in given.split(":") if w.startswith("/") and self.sees(w)), *PATH.split(":")]
        return ":".join(dict.fromkeys(words))

    def environment(self, env: Mapping[str, str], own: Mapping[str, str] | None = None) -> dict[str, str]:
        """A command's variables inside: what goes for all of the run, and over that the step's own."""
        given = {"LANG": "C.UTF-8", "TERM": "dumb", **self.env, **env}
        given["PATH"] = self.search_path(given.get("PATH", ""))
        given |= {"HOME": HOME, "USER": USER, "LOGNAME": USER, "SHELL": "/bin/sh"}
        return given | network.variables(self.proxied, self.tools) | dict(own or {})

    def unseen(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
        """Why the command cannot be started inside, though it can outside; an empty string when it can."""
        if not self.boxed:
            return ""
        program = argv[0]
        if "/" in program:
            found: str | None = os.path.join(cwd, program)
        else:
            inside = env.get("PATH") or self.search_path("")
            found = shutil.which(program, path=":".join(w for w in inside.split(":") if self.sees(w)))
            found = found or shutil.which(program)  # on our own PATH, outside
        if found is None or not os.path.exists(found):
            return ""
        for path in (found, _interpreter(found)):
            if path and os.path.exists(path) and not self.sees(path):
                which, where = path, "read_only or path"
                if any(path.startswith(f"{root.rstrip('/')}/") for root in self.roots):
                    which = os.path.realpath(path)
                if "/" in program:
                    where = "read_only"
                return f"{which} is outside the sandbox: add its directory to [sandbox] {where}"
        return ""

    def missing(self, output: str, env: Mapping[str, str], cwd: str) -> str:
        """Why a command that was not found, as its output says, is not there, where it is only outside; else an empty
        string."""
        found = _MISSING.findall("\n".join(output.splitlines()[-40:]))
        return next((why for name in reversed(found) if (why := self.unseen([name], env, cwd))), "")

    # -- the line --

    def options(self, cwd: str, env: Mapping[str, str], files: Mapping[str, int]) -> list[str]:
        """bubblewrap's options, but for the descriptors of its protocol. `cwd`: as it is called outside; `files`: what
        to put where, as descriptors."""
        made = ["--unshare-user", "--uid", str(UID), "--gid", str(UID), "--cap-drop", "ALL", "--unshare-pid"]
        made += ["--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "box"]
        made += ["--new-session", "--die-with-parent", "--clearenv"]
        if not self.nested:
            made.append("--disable-userns")
        made += self._system()
        for place, handle in files.items():
            made += ["--perms", "0444", "--file", str(handle), place]
        made += self._shown()
        made += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", self.inside(cwd)]
        for name, value in env.items():
            made += ["--setenv", name, value]
        return made

    @property
    def _tmp(self) -> str:
        """The size of a file system in memory, in bytes."""
        return str(int(self.limits.get("tmp") or 1 << 30))

    def _system(self) -> list[str]:
        """The machine's programs, /proc, /dev, /tmp and /etc."""
        made: list[str] = []
        for root in _SYSTEM:
            if os.path.islink(root):
                made += ["--symlink", os.readlink(root), root]
            elif os.path.isdir(root):
                made += ["--ro-bind", root, root]
        made += ["--proc", "/proc"]
        for path in _kernel():
            made += ["--ro-bind-try", path, path]
        made += ["--dev", "/dev"]
        for place in ("/dev/shm", "/tmp"):  # noqa: S108 - inside
            made += ["--perms", "1777", "--size", self._tmp, "--tmpfs", place]
        for name in _ETC.split():
            for path in sorted(glob.glob(f"/etc/{name}")):
                made += ["--ro-bind-try", path, path]
        return made

    def _shown(self) -> list[str]:
        """Home, and what else is the run's own to see."""
        made = ["--perms", "0700", "--size", self._tmp, "--tmpfs", HOME]
        if self.home:
            made = ["--bind", self.home, HOME]
        if self.tree:
            made += ["--bind", self.tree, TREE]
        # what lies deeper goes over what is above it, whichever of the two may be written
        shown = [(path, "--ro-bind") for path in self.read_only] + [(path, "--bind") for path in self.writable]
        for path, how in sorted(dict(shown).items(), key=lambda one: one[0].rstrip("/").count("/")):
            if not any(path == root or path.startswith(f"{root}/") for root in _SYSTEM) or how == "--bind":
                made += [how, path, path]
        return made


@functools.cache
def _kernel() -> tuple[str, ...]:
    """What of /proc is the kernel's and no process's. It goes by who opens it: where the server is root, the box's user
    is root for it, and without any capability could write `/proc/sys/kernel/core_pattern`, and so be root outside.
    bubblewrap covers less."""
    found = []
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                mode = entry.stat(follow_symlinks=False).st_mode
                whole = stat.S_ISDIR(mode) and not entry.name.isdigit()
                if whole or (stat.S_ISREG(mode) and mode & 0o222):
                    found.append(entry.path)
    return tuple(sorted({*found, "/proc/sys"}))


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
