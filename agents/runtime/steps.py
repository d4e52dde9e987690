"""A run's steps as processes: one after the other, or all at once; each is ended in time, with all that it started.

Standard library only: the shim imports it. One after the other, the first step that does not pass is the last one.
At once, each step has a keeper below which everything it starts stays, daemons too: so the time-out of one kills its
processes and nobody else's, and one that fails stops no other. A stop ends them all, at once when the run is fenced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agents.runtime import junit as junit_reports
from agents.runtime import processes, sandbox
from agents.runtime.caches import Cache, Copy
from agents.runtime.crashpoints import crashpoint

STOP_GRACE = 5.0
TAIL = 16 << 10
FAILED_TAIL = 60 << 10  # where it fails, the first lines that say so are wanted
LINE = 64 << 10
COPY_SECONDS = 900.0
KEEPER = Path(__file__).with_name("keeper.py")

Result = dict[str, Any]
Ended = tuple[int | None, int | None]  # exit code, signal


class Log(Protocol):
    """Where output goes."""

    def write(self, data: bytes) -> None:
        """Append."""

    def say(self, text: str) -> None:
        """A line of the shim's own."""


@dataclass
class Orders:
    """What the run was told meanwhile. Whoever waits has an event of its own among `listeners`."""

    stop: str = ""
    fenced: bool = False
    finish_at: float | None = None
    listeners: list[threading.Event] = field(default_factory=list)

    def stopped(self) -> bool:
        """True when the run is to end."""
        return bool(self.stop)

    def tell(self) -> None:
        """There is news: wake whoever waits."""
        for event in tuple(self.listeners):
            event.set()


class Steps:
    """The steps of one run. `extra` is asked for an agent's own variables when its step starts."""

    def __init__(self, spec: dict[str, Any], log: Log, orders: Orders, extra: Callable[[], dict[str, str]]) -> None:
        self.spec, self.log, self.orders, self.extra = spec, log, orders, extra
        self.worktree = Path(spec["worktree"])
        self.gates = spec["kind"] == "gates"
        self.at_once = bool(spec.get("parallel")) and len(spec["steps"]) > 1
        self.last_output = time.time()
        self.caches = {
            step["name"]: Cache(Path(spec["caches"]), self.worktree, step, spec["change"], log.say)
            for step in spec["steps"]
            if step.get("cache")
        }

    def run(self) -> tuple[list[Result], Ended]:
        """Run them; returns the results of those that say something, and how the run ended."""
        return self._at_once() if self.at_once else self._in_order()

    def _in_order(self) -> tuple[list[Result], Ended]:
        results: list[Result] = []
        last: Ended = (None, None)
        for step in self.spec["steps"]:
            self._restore(step)
            if self.orders.stopped():
                break
            result = self._tried(step)
            last = _ended(result)
            if self.orders.stop and self.gates:
                break  # it was stopped, so it says nothing about the candidate
            results.append(result)
            if last != (0, None):
                break
            self._keep(step)
        return results, last

    def _at_once(self) -> tuple[list[Result], Ended]:
        steps = self.spec["steps"]
        found: list[Result | None] = [None] * len(steps)

        def one(number: int) -> None:
            """One of them, in a thread of its own."""
            # the thread outlives its process: a child gets its death signal when the thread that made it ends
            try:
                result = self._tried(steps[number])
            except Exception as error:
                self.log.say(f"gate {steps[number]['name']}: {type(error).__name__}: {error}")
                result = _not_run(steps[number], None, f"{type(error).__name__}: {error}")
            if not self.orders.stopped():
                found[number] = result

        for step in steps:
            self._restore(step)  # before any of them runs: nobody changes the worktree meanwhile
        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(steps))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        processes.kill_descendants(signal.SIGKILL)  # what was left by a keeper that its gate has killed
        results = [result for result in found if result is not None]
        for step, result in zip(steps, found, strict=True):
            if result is not None and _ended(result) == (0, None):
                self._keep(step)
        ends = [_ended(result) for result in results]
        return results, next((end for end in ends if end != (0, None)), (0, None) if ends else (None, None))

    def _restore(self, step: dict[str, Any]) -> None:
        """Give a gate its own copy of what it has kept."""
        self._cached(step, Cache.restore, "restored")

    def _keep(self, step: dict[str, Any]) -> None:
        """Keep what a gate that has passed leaves in its caches. Nothing of the run is alive now."""
        self._cached(step, Cache.save, "saved")

    def _cached(self, step: dict[str, Any], act: Callable[[Cache, Copy], bool], done: str) -> None:
        """Do something with a gate's cache. What goes wrong with it is said, and stops nobody."""
        if cache := self.caches.get(step["name"]):
            try:
                if not self.orders.stopped() and act(cache, self._copy):
                    self.log.say(f"gate {step['name']}: cache {done}: {', '.join(cache.paths)}")
            except OSError as error:
                self.log.say(f"gate {step['name']}: the cache could not be {done}: {error}")

    def _copy(self, source: Path, target: Path) -> bool:
        """Copy a tree as it is, links as links, sharing blocks where the file system can; ends when the run is to."""
        news = threading.Event()
        self.orders.listeners.append(news)
        end = time.monotonic() + COPY_SECONDS
        try:
            process = subprocess.Popen(
                ["cp", "-a", "--reflink=auto", "-T", "--", str(source), str(target)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=processes.die_with_shim,
            )
            threading.Thread(target=_await, args=(process, news), daemon=True).start()
            while process.poll() is None and not self.orders.stopped() and time.monotonic() < end:
                self.last_output = time.time()
                news.wait(1.0)
            if process.poll() is None:
                process.kill()
            return process.wait() == 0
        finally:
            self.orders.listeners.remove(news)

    def _tried(self, step: dict[str, Any]) -> Result:
        """One step, again after a plain failure as often as it may be."""
        tries: list[dict[str, Any]] = []
        for _ in range(int(step.get("retries") or 0) + 1):
            junit = step.get("junit")
            before = junit_reports.marks(self.worktree, junit) if junit else {}
            result = self._attempt(step)
            raw = result["outcome_raw"]
            tries.append({"outcome_raw": raw, "duration_ms": result["duration_ms"]})
            if junit:
                tries[-1]["reports"], tries[-1]["note"] = junit_reports.collect(self.worktree, junit, before)
            if raw["exit_code"] in (None, 0, 126, 127) or raw["timed_out"] or self.orders.stopped():
                break
        return result | {"attempts": len(tries), "tries": tries if self.gates else []}

    def _attempt(self, step: dict[str, Any]) -> Result:
        if self.gates:
            self.log.say(f"gate {step['name']}: {step.get('run', '')}")
        command = sandbox.wrap(
            step.get("argv") or ["sh", "-c", step["run"]],
            worktree=self.worktree,
            repo=Path(self.spec["repo"]),
            hidden=[Path(p) for p in self.spec["hidden"]],
            network=bool(step.get("network")),
            kind=self.spec["sandbox"] if self.gates else sandbox.UNSANDBOXED,
            borrowed=[Path(p) for p in self.spec.get("borrowed", [])],
        )
        if self.at_once:
            command = [sys.executable, "-I", "-S", str(KEEPER), *command]
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=self.worktree,
                env=self.spec["env"] | (step.get("env") or {}) | self.extra(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # a command's files are as anywhere else; ours (077) are not
                preexec_fn=processes.die_with_shim_within_limits if self.gates else processes.die_with_shim,
            )
        except OSError as error:
            self.log.say(f"cannot start {command[0]}: {error}")
            return _not_run(step, 127 if isinstance(error, FileNotFoundError) else 126, str(error))
        crashpoint("shim.running")
        root = process.pid if self.at_once else os.getpid()
        tail: deque[bytes] = deque()
        news = threading.Event()
        pump = threading.Thread(target=self._pump, args=(process, tail, step["name"]), daemon=True)
        waiter = threading.Thread(target=_await, args=(process, news), daemon=True)
        self.orders.listeners.append(news)
        pump.start()
        waiter.start()
        timed_out = self._watch(process, root, began, step, news)
        if not self.at_once:  # a keeper has seen to that; and its number may be another process's by now
            processes.kill_descendants(signal.SIGKILL)
        waiter.join(5)
        pump.join(5)
        self.orders.listeners.remove(news)
        code, number = sandbox.inner_status(self.spec["sandbox"], process.returncode)
        if self.gates and code is not None and 128 < code <= 192:
            number, code = code - 128, None  # `sh` reports a killed command as 128 + signal
        keep = TAIL if (code, number) == (0, None) or not self.gates else FAILED_TAIL
        output = b"".join(tail)[-keep:].decode("utf-8", "replace")
        return {
            "name": step["name"],
            "outcome_raw": {"exit_code": code, "signal": number, "timed_out": timed_out},
            "duration_ms": int((time.monotonic() - began) * 1000),
            "output": output.replace(f"{self.worktree}/", ""),  # paths as the author knows them
        }

    def _watch(
        self, process: subprocess.Popen[bytes], root: int, began: float, step: dict[str, Any], news: threading.Event
    ) -> bool:
        """Wait for the end, a stop, a time-out or the end of the finish grace; True for a time-out."""
        timeout: float | None = step.get("timeout")
        while process.poll() is None:
            now = time.monotonic()
            finish = self.orders.finish_at
            ends = [e for e in (began + timeout if timeout else None, finish) if e is not None]
            if timeout and now >= began + timeout:
                which = f"gate {step['name']}: " if self.at_once else ""
                self.log.say(f"{which}timed out after {timeout:.0f} s")
                self._kill(process, root)
                return True
            if self.orders.stopped() or (finish is not None and now >= finish):
                self._kill(process, root)
                return False
            news.wait(max(min(ends) - now, 0.01) if ends else None)
            news.clear()
        return False

    def _kill(self, process: subprocess.Popen[bytes], root: int) -> None:
        """SIGTERM to the tree, SIGKILL after a grace; at once when fenced. A keeper ends when all below it has."""
        if not self.orders.fenced:
            processes.kill_descendants(signal.SIGTERM, root)
            end = time.monotonic() + STOP_GRACE
            while process.poll() is None and time.monotonic() < end and not self.orders.fenced:
                time.sleep(0.05)
        if process.poll() is None or not self.at_once:
            processes.kill_descendants(signal.SIGKILL, root)
        if self.at_once:
            process.kill()
        process.wait()

    def _pump(self, process: subprocess.Popen[bytes], tail: deque[bytes], name: str) -> None:
        """Output → log and tail. Where several write at once, each line says whose it is."""
        assert process.stdout is not None
        mark = f"{name} | ".encode() if self.at_once else b""
        kept, rest = 0, b""
        while data := os.read(process.stdout.fileno(), 65536):
            self.last_output = time.time()
            tail.append(data)
            kept += len(data)
            while kept - len(tail[0]) > FAILED_TAIL:
                kept -= len(tail.popleft())
            if mark:
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LINE:
                    lines, rest = [*lines, rest], b""
                data = b"".join(mark + line + b"\n" for line in lines)
            self.log.write(data)
        if rest:
            self.log.write(mark + rest + b"\n")


def _await(process: subprocess.Popen[bytes], news: threading.Event) -> None:
    process.wait()
    news.set()


def _ended(result: Result) -> Ended:
    raw = result["outcome_raw"]
    return raw["exit_code"], raw["signal"]


def _not_run(step: dict[str, Any], code: int | None, why: str) -> Result:
    raw = {"exit_code": code, "signal": None, "timed_out": False}
    return {"name": step["name"], "outcome_raw": raw, "duration_ms": 0, "output": why, "attempts": 1}
