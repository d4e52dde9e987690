"""The one way a git process is started, and what of git the runner, the shim and the refinery share.

Stdlib only: the shim imports it. The environment is built from scratch (no system or user config, no hooks, no
prompts, no LFS downloads), every call has a time-out after which the whole process group is killed, and no option,
ref or URL from outside reaches git unchecked.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from agents.runtime import failures, processes
from agents.runtime.failures import GitFailed as GitFailed
from agents.runtime.failures import disk_failure as disk_failure
from agents.runtime.failures import refusal as refusal
from agents.runtime.names import check_branch as check_branch
from agents.runtime.names import check_remote_url as check_remote_url
from agents.runtime.names import redact as redact

TIMEOUT = 60.0
NETWORK_TIMEOUT = 3600.0  # what is still coming in may take that long: silence ends sooner
ASK_SILENCE = 15.0  # for so many seconds nothing at all happens: the remote is taken to be away
SILENCE = 30.0  # likewise, while objects come; git's own servers say every 5 s that they are at work
PUSH_SILENCE = 60.0  # likewise, while the remote's hooks may be at work
PACK_TIMEOUT = 1200.0
PIPE = subprocess.PIPE
WAITING = 0.3  # seconds of processor time: who waits for a socket looks at it now and then
# of what one git process has for itself: objects come from outside, and a few bytes of them may stand for gigabytes
MEMORY = max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, 1 << 30)
ASKPASS = Path(__file__).with_name("askpass")
# what they write is for others than us: another user's remote, trees that gates and agents see
SEEN_BY_OTHERS = frozenset({"push", "checkout", "checkout-index", "read-tree", "reset", "worktree"})
SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
RIG = "GASTOWN_GIT_RIG"  # whose host keys were pinned, for the sentence that says how to renew them

_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    "safe.directory": "*",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "user.useConfigOnly": "false",
    "commit.gpgSign": "false",
    "core.quotePath": "false",
}


@dataclass(frozen=True)
class GitResult:
    """What a git process gave."""

    returncode: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout, decoded and stripped."""
        return self.stdout.decode("utf-8", "replace").strip()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The scrubbed environment. `GASTOWN_GIT_CONFIG` may name a config file, for credential helpers."""
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.environ.get("GASTOWN_GIT_CONFIG", "/dev/null"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": "/dev/null/none",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Gastown",
        "GIT_AUTHOR_EMAIL": "gastown@gastown.invalid",
        "GIT_COMMITTER_NAME": "Gastown",
        "GIT_COMMITTER_EMAIL": "gastown@gastown.invalid",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
    }
    for name in ("SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env | more_config(_CONFIG, 0) | dict(extra or {})


def more_config(config: Mapping[str, str], first: int = len(_CONFIG)) -> dict[str, str]:
    """Variables that add to the config that every git process here gets, and go over it."""
    told = {"GIT_CONFIG_COUNT": str(first + len(config))}
    for number, (key, value) in enumerate(config.items(), first):
        told[f"GIT_CONFIG_KEY_{number}"], told[f"GIT_CONFIG_VALUE_{number}"] = key, value
    return told


def next_config(env: Mapping[str, str]) -> int:
    """Where config goes that is added to what `env` already adds; see `more_config`."""
    return int(env.get("GIT_CONFIG_COUNT", len(_CONFIG)))


@dataclass(frozen=True)
class Patience:
    """How long git may take, in seconds, and for how many nothing at all may happen (0: for ever)."""

    seconds: float
    silence: float = 0.0


@dataclass(frozen=True)
class Started:
    """A git process at work; `rig`: whose remote it talks to with a credential of the rig's own."""

    name: str
    process: subprocess.Popen[bytes]
    rig: str = "RIG"

    def result(
        self, *, input: bytes | None = None, timeout: float = TIMEOUT, check: bool = True, silence: float = 0.0
    ) -> GitResult:
        """Wait for its end. Raises GitFailed on a time-out, when for `silence` seconds (0: for ever) it and what it has
        started did nothing at all and, with `check`, on a non-zero exit."""
        end, quiet = time.monotonic() + timeout, _Quiet(self.process.pid)
        while True:
            try:
                step = end - time.monotonic()
                if silence:
                    step = min(step, silence, 1.0)
                out, err = self.process.communicate(input, timeout=max(step, 0.001))
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() >= end:
                    raise GitFailed(f"git {self.name} took longer than {timeout:.0f} s", kind="timeout") from None
                if silence and quiet.seconds() >= silence:
                    said = f"git {self.name}: the remote has been silent for {silence:.0f} s"
                    raise GitFailed(said, kind="silent") from None
                input = None  # it has it
        result = GitResult(self.process.returncode, out, err.decode("utf-8", "replace"))
        if check and result.returncode:
            raise failure(self.name, result, self.rig)
        return result

    def at_most(self, most: int, what: str, *, timeout: float = TIMEOUT) -> bytes:
        """Its output. Raises GitFailed as `result` does, and, of the kind `unfit` and with the sentence `what`, when
        it is longer than `most` bytes, or git has not the memory for it. For answers whose length a change decides."""
        assert self.process.stdout is not None
        late = threading.Timer(timeout, self.process.kill)
        late.start()
        try:
            out = self.process.stdout.read(most + 1)
        finally:
            late.cancel()
        if len(out) > most:
            raise GitFailed(what, kind="unfit")
        rest = self.result(timeout=timeout, check=False)
        if rest.returncode == -signal.SIGKILL:
            raise GitFailed(f"git {self.name} took longer than {timeout:.0f} s", kind="timeout")
        if rest.returncode and "out of memory" in rest.stderr.lower():
            raise GitFailed(what, kind="unfit")
        if rest.returncode:
            raise failure(self.name, rest, self.rig)
        return out


class _Quiet:
    """How long a process and all that it has started have neither read nor written anything, nor computed for long.
    Whatever the transport is: bytes of a socket are handed on through pipes between git's processes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.moved, self.computed = -1, 0.0
        self.since = time.monotonic()

    def seconds(self) -> float:
        """Seconds without any of it, as seen by calling this now and then."""
        found = [processes.activity(pid) for pid in (self.pid, *processes.descendants(self.pid))]
        moved, computed = sum(one[0] for one in found), sum(one[1] for one in found)
        if moved != self.moved or computed >= self.computed + WAITING:
            self.moved, self.computed, self.since = moved, computed, time.monotonic()
        return time.monotonic() - self.since


@contextlib.contextmanager
def started_git(
    args: Sequence[str],
    *,
    cwd: Path | str,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    umask: int = -1,
    memory: int = MEMORY,
) -> Iterator[Started]:
    """`git ARGS` in `cwd`, at work beside the body, and ended with it, with all that it has started.

    `stdin`: the file that it reads; PIPE: its result needs an input. `umask`: for what it makes; -1: as ours, but for
    what others are to see. `memory`: the most bytes that it may have for itself. Credentials in a URL are kept from
    its arguments, which everybody may read.
    """
    words, secrets = _without_credentials(args)
    if umask < 0 and args[0] in SEEN_BY_OTHERS:
        umask = 0o022
    process = subprocess.Popen(
        ["git", *words],
        cwd=cwd,
        env=environment({**secrets, **(env or {})}),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        umask=umask,
    )
    with contextlib.suppress(OSError):  # it has ended already
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
    try:
        yield Started(args[0], process, (env or {}).get(RIG, "RIG"))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def run_git(
    args: Sequence[str],
    *,
    cwd: Path | str,
    timeout: float | Patience = TIMEOUT,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> GitResult:
    """Run `git ARGS` in `cwd`. `timeout`: in seconds, or with how long a remote may be silent. Raises GitFailed as
    `Started.result` does."""
    patience = timeout
    if not isinstance(patience, Patience):
        patience = Patience(patience)
    stdin = subprocess.DEVNULL
    if input is not None:
        stdin = PIPE
    with started_git(args, cwd=cwd, env=env, stdin=stdin) as started:
        return started.result(input=input, timeout=patience.seconds, check=check, silence=patience.silence)


def ssh_signature(key: Path, payload: bytes) -> str:
    """What ssh signs `payload` with, for git (source: gitformat-signature(5)). `key`: a private key's file. Raises
    GitFailed."""
    words = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key)]
    try:
        done = subprocess.run(
            words, input=payload, capture_output=True, env=environment(), timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"the commit cannot be signed: {error}", kind="credential") from error
    if done.returncode:
        said = ["ssh-keygen failed", *done.stderr.decode("utf-8", "replace").strip().splitlines()]
        raise GitFailed(f"the commit cannot be signed: {said[-1][:200]}", kind="credential")
    return done.stdout.decode("ascii", "replace")


def failure(what: str, result: GitResult, rig: str = "RIG") -> GitFailed:
    """The typed error for a failed git process: see `failures.failure`. `rig`: see `Started`."""
    return failures.failure(what, result.returncode, result.stderr, rig)


def _without_credentials(args: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments with credentials taken out of http URLs, and the variables from which `askpass` tells them."""
    words, told = list(args), {}
    for at, word in enumerate(words):
        if found := re.fullmatch(r"(https?://)([^/@\s]*)@([^/@\s]+)(/.*)?", word):
            scheme, secret, host, path = found.groups()
            user, _, password = secret.partition(":")
            words[at] = f"{scheme}{host}{path or ''}"
            told = {"GASTOWN_GIT_HOST": scheme + host, "GIT_ASKPASS": str(ASKPASS)}
            told |= {"GASTOWN_GIT_USER": unquote(user), "GASTOWN_GIT_PASSWORD": unquote(password)}
    return words, told


def check_sha(sha: str) -> str:
    """Return a full object id or raise GitFailed."""
    if not SHA.fullmatch(sha):
        raise GitFailed(f"not an object id: {sha[:80]!r}")
    return sha
