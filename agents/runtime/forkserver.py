"""Shims without the start of an interpreter: a process that has loaded everything forks one for each run.

Started by the runner as a script, without Django and with a clean environment; they speak JSON over a socket pair. It
starts nothing by itself, and ends when its runner does; the shims go on. Standard library only. A shim is its child,
so who asks for exit codes asks here; one whose server was killed is watched by its name alone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path[0:1] = [str(Path(__file__).resolve().parents[2])]

from agents.runtime import processes

SCRIPT = Path(__file__)
MESSAGE = 64 << 10
ANSWER_SECONDS = 20.0
UNKNOWN = 255  # how a shim ended whose server was killed


def alive(pid: int) -> bool:
    """True while `pid` is a shim, or a server of shims; of this release or of another, which may lie elsewhere."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.rpartition(b"/")[2] == SCRIPT.name.encode() for word in words)


class Child:
    """A shim, as its runner sees it."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """Its exit code (-n: ended by signal n), or None while it lives."""
        if self.returncode is None:
            self._server.listen()
        if self.returncode is None and self._server.lost(self) and not alive(self.pid):
            self.returncode = UNKNOWN
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"shim {self.pid} has not ended within {seconds:g} s")
            time.sleep(0.01)
        return code


class ForkServer:
    """The runner's side. Threads may share it. `env` is what the shims see."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._lock = threading.RLock()
        self._children: dict[int, Child] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self, spec: Path, log: Path, descriptors: Sequence[int] = ()) -> Child:
        """A shim for the run that `spec` tells of, which prints into `log` and holds `descriptors`. Raises OSError.

        A server that was killed is started anew before, and never in the midst of it: nothing is started twice.
        """
        with self._lock:
            channel = self.ready()
            message = json.dumps({"spec": str(spec), "log": str(log)}).encode()
            try:
                socket.send_fds(channel, [message], list(descriptors))
                told = self._read(ANSWER_SECONDS)
            except OSError as error:
                self.close()
                raise OSError(f"the server of shims does not answer: {error}") from error
            if "error" in told:
                raise OSError(f"a shim cannot be started: {told['error']}")
            child = self._children[told["started"]] = Child(self, told["started"])
            return child

    def ready(self) -> socket.socket:
        """Start the server, or find that it lives."""
        with self._lock:
            self.listen()
            if self._channel is not None:
                return self._channel
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(SCRIPT), str(theirs.fileno())],
                    env=self._env,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                )
            self._channel = ours
            return ours

    def listen(self) -> None:
        """Take note of who has ended."""
        with self._lock:
            while self._channel is not None and select.select([self._channel], [], [], 0)[0]:
                try:
                    self._read(0.0)
                except OSError:
                    self.close()

    def lost(self, child: Child) -> bool:
        """True when nobody will say any more how `child` ends."""
        return self._children.get(child.pid) is not child

    def close(self) -> None:
        """Let the server end; the shims go on."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._children.clear()
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
                self._process = None

    def _read(self, seconds: float) -> dict[str, Any]:
        """The next message that is not about an end. Raises OSError when there is none, or nobody to send one."""
        assert self._channel is not None
        end = time.monotonic() + seconds
        while select.select([self._channel], [], [], max(end - time.monotonic(), 0))[0]:
            data = self._channel.recv(MESSAGE)
            if not data:
                raise ConnectionResetError("it has ended")
            told: dict[str, Any] = json.loads(data)
            if "ended" not in told:
                return told
            child = self._children.pop(told["ended"], None)
            if child is not None:
                child.returncode = told["code"]
        if seconds:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return {}


# -- the server -----------------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork a shim for each message, and tell of each that has ended, until the runner is gone."""
    from agents.runtime import shim  # and all that it needs: what the forks share

    gc.freeze()
    processes.name("gastown-shims")
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched: list[socket.socket | int] = [channel, ended]
    while True:
        ready = select.select(watched, [], [])[0]
        if ended in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(ended, 4096)
            _reap(channel)
        if channel in ready:
            data, descriptors, _, _ = socket.recv_fds(channel, MESSAGE, 8)
            if not data:
                return
            told = json.loads(data)
            try:
                pid = os.fork()
            except OSError as error:
                answer: dict[str, Any] = {"error": str(error)}
            else:
                if pid == 0:
                    run = partial(shim.main, Path(told["spec"]))
                    _become_shim(run, told["log"], (channel.fileno(), ended, wake))
                answer = {"started": pid}
            for descriptor in descriptors:
                os.close(descriptor)
            channel.send(json.dumps(answer).encode())


def _reap(channel: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            channel.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def _become_shim(run: Callable[[], int], log: str, descriptors: Sequence[int]) -> NoReturn:
    """In the fork: a session of its own, nothing of the server's, and never back into its loop."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in descriptors:
            os.close(descriptor)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        processes.name("gastown-shim")
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the runner is gone, and needs no answer
        serve(socket.socket(fileno=int(sys.argv[1])))
