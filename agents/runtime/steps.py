"""A run's steps as processes: one after the other, or all at once; each is ended in time, with all that it started.

Each has a box of its own (`sandbox`), and is ended when it goes beyond a limit: then its result says which.

Standard library only: the shim imports it. One after the other, the first step that does not pass is the last one,
unless every one is wanted.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.presets import PRESETS
from agents.runtime import junit as junit_reports
from agents.runtime import network, processes, sandbox
from agents.runtime.caches import Cache, Copy
from agents.runtime.crashpoints import crashpoint
from agents.runtime.orders import Log, Orders
from agents.runtime.output import FAILED_TAIL, Pump
from agents.runtime.redact import Redactor
from agents.runtime.sessions import is_lost
from agents.runtime.transcript import NAME, Transcript
from agents.runtime.watching import Watch

STOP_GRACE = 5.0
TAIL = 16 << 10
COPY_SECONDS = 900.0
PROMPT = "GASTOWN_PROMPT_FILE"
KEEPER = Path(__file__).with_name("keeper.py")

Result = dict[str, Any]
Ended = tuple[int | None, int | None]  # exit code, signal


@dataclass(frozen=True)
class _Child:
    """A step's process. All that it starts is below `root`; `apart`: it is itself the last of that to end."""

    process: subprocess.Popen[bytes]
    root: int
    apart: bool
    began: float


@dataclass(frozen=True)
class _End:
    """How a command ended, the last of its output, and an agent's last words. `limit`: which it has reached, if any."""

    code: int | None
    number: int | None
    timed_out: bool
    limit: str
    output: bytes
    words: str


class Steps:
    """The steps of one run. `extra` is asked for an agent's own variables when its step starts."""

    def __init__(self, spec: dict[str, Any], log: Log, orders: Orders, extra: Callable[[], dict[str, str]]) -> None:
        self.spec, self.log, self.orders, self.extra = spec, log, orders, extra
        self.worktree = Path(spec["worktree"])
        self.gates = spec["kind"] == "gates"
        self.at_once = bool(spec.get("parallel")) and len(spec["steps"]) > 1
        self.last_output = time.time()
        self.box = sandbox.Box.of(spec["box"])
        self.lost = False  # a session that was to go on was not found
        self.transcript: Transcript | None = None
        self.reason = ""  # why a step has ended that is not its command's own end: a limit, or no box
        for note in self.box.notes:
            log.say(note)
        self.caches = {
            step["name"]: Cache(Path(spec["caches"]), self.worktree, step, spec["change"], log.say)
            for step in spec["steps"]
            if step.get("cache")
        }

    def run(self) -> tuple[list[Result], Ended]:
        """Run them; returns the results of those that say something, and how the run ended."""
        if self.at_once:
            return self._at_once()
        return self._in_order()

    def _in_order(self) -> tuple[list[Result], Ended]:
        results: list[Result] = []
        last: Ended = (None, None)
        first: Ended | None = None  # of those that did not pass
        for step in self.spec["steps"]:
            self._restore(step)
            if self.orders.stopped():
                break
            result = self._tried(step)
            last = _ended(result)
            if self.orders.stop and self.gates:
                break  # it was stopped, so it says nothing about the candidate
            results.append(result)
            if last == (0, None):
                self._keep(step)
                continue
            first = first or last
            if not self.spec.get("every"):
                break
        return results, first or last

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
        """Keep what a gate that has passed leaves in its caches. Nothing of the run is alive now.

        A check of the target keeps nothing: it never lands, and would only hold the place of a change that does.
        """
        if not self.spec.get("every"):
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
            before = {}
            if junit:
                before = junit_reports.marks(self.worktree, junit)
            result = self._attempt(step)
            if is_lost(step, result) and not self.orders.stopped():
                self.log.say("the session that was to go on is not there: it begins anew, with all that is known")
                self.lost = True
                fresh = {name: value for name, value in (step.get("env") or {}).items() if name != PROMPT}
                result = self._attempt({**step, "argv": step["instead"]["argv"], "env": fresh})
            raw = result["outcome_raw"]
            tries.append({"outcome_raw": raw, "duration_ms": result["duration_ms"]})
            if junit:
                clean = Redactor(self.box.secrets).clean
                tries[-1]["reports"], tries[-1]["note"] = junit_reports.collect(self.worktree, junit, before, clean)
            if raw["exit_code"] in (None, 0, 126, 127) or raw["timed_out"] or raw["limit"] or self.orders.stopped():
                break
        return result | {"attempts": len(tries), "tries": tries if self.gates else []}

    def _attempt(self, step: dict[str, Any]) -> Result:
        if self.gates:
            self.log.say(f"gate {step['name']}: {step.get('run', '')}")
        box = self.box.for_step(step)
        argv = step.get("argv") or ["sh", "-c", step["run"]]
        own = (step.get("env") or {}) | self.extra()
        env = self.spec["env"] | own
        if box.boxed:
            env = box.environment(self.spec["env"], own)
        if why := box.unseen(argv, env, str(self.worktree)):
            self.log.say(why)
            return _not_run(step, 127, why)
        began = time.monotonic()
        try:
            started = self._start(box, argv, env)
        except OSError as error:
            self.reason = f"cannot start {argv[0]}: {error}"
            self.log.say(self.reason)
            if isinstance(error, FileNotFoundError):
                return _not_run(step, 127, str(error))
            return _not_run(step, 126, str(error))
        crashpoint("shim.running")
        ended = self._follow(step, box, started, began)
        well = (ended.code, ended.number) == (0, None)
        keep = TAIL
        if self.gates and not well:
            keep = FAILED_TAIL
        output = ended.output[-keep:].decode("utf-8", "replace")
        if not well and (why := box.missing(output, env, str(self.worktree))):
            self.log.say(why)
            output = f"{output.rstrip()}\n{why}\n"
        if box.boxed and not well and (why := network.hint(output, box.network, gate=self.gates)):
            self.log.say(f"{self._whose(step)}{why}")
            output = f"{output.rstrip()}\n{why}\n"
        return {
            "name": step["name"],
            "outcome_raw": {
                "exit_code": ended.code,
                "signal": ended.number,
                "timed_out": ended.timed_out,
                "limit": ended.limit,
            },
            "duration_ms": int((time.monotonic() - began) * 1000),
            "output": output.replace(f"{box.inside(str(self.worktree))}/", ""),  # paths as the author knows them
            "words": ended.words.replace(f"{box.inside(str(self.worktree))}/", ""),
        }

    def _follow(self, step: dict[str, Any], box: sandbox.Box, started: sandbox.Started, began: float) -> _End:
        """Be with a command until it has ended, and all that it started: its output, and how it ended."""
        redactor = Redactor([*box.secrets, *self.extra().values()])
        process, apart = started.process, self.at_once or box.boxed
        root = os.getpid()
        if apart:
            root = process.pid
        output = self._pump(process, step, redactor)
        news = threading.Event()
        pump = threading.Thread(target=output.run, daemon=True)
        waiter = threading.Thread(target=_await, args=(process, news), daemon=True)
        self.orders.listeners.append(news)
        pump.start()
        waiter.start()
        roots = [Path(path) for path in dict.fromkeys([str(self.worktree), box.home]) if path]
        watch = Watch(started.limits, lambda: processes.descendants(root), roots, started.tmps, started.group)
        timed_out, limit = self._watch(_Child(process, root, apart, began), step, watch, news)
        if not apart:  # elsewhere that has been seen to; and its number may be another process's by now
            processes.kill_descendants(signal.SIGKILL)
        waiter.join(5)
        pump.join(5)
        if process.stdout is not None and not pump.is_alive():
            process.stdout.close()
        self.orders.listeners.remove(news)
        code, number = sandbox.inner_status(box.kind, process.returncode)
        if self.gates and code is not None and 128 < code <= 192:
            number, code = code - 128, None  # `sh` reports a killed command as 128 + signal
        stopped = self.orders.stopped() or timed_out
        if not limit and not stopped:
            limit = watch.last((code, number) != (0, None), number)
        if not limit and not stopped and started.did_not_start():
            said = output.tail()[-TAIL:].decode("utf-8", "replace").strip()
            code, self.reason = 127, ""  # the program is not there
            if "execvp" not in said:  # no box: its author is not to blame
                code = 126
                self.reason = f"the sandbox could not be made: {said[-300:]}"
        started.close()
        if limit:
            self.reason = limit
            self.log.say(f"{self._whose(step)}{limit}")
        return _End(code, number, timed_out, limit, output.tail(), output.words())

    def _start(self, box: sandbox.Box, argv: list[str], env: dict[str, str]) -> sandbox.Started:
        """Start a step's command. Without a sandbox, one of several has a keeper."""
        keeper: list[str] = []
        if self.at_once and not box.boxed:
            keeper = [sys.executable, "-I", "-S", str(KEEPER)]
        mark = {name: env[name] for name in ("GASTOWN_RUN",) if name in env}
        command = sandbox.Command(argv, env, str(self.worktree), mark=mark, keeper=keeper)
        return sandbox.start(box, command, before=processes.die_with_shim, say=self.log.say)

    def _whose(self, step: dict[str, Any]) -> str:
        if self.gates:
            return f"gate {step['name']}: "
        return ""

    def _watch(self, child: _Child, step: dict[str, Any], watch: Watch, news: threading.Event) -> tuple[bool, str]:
        """Wait for the end, a stop, a time-out, a limit or the end of the finish grace: (timed out, which limit)."""
        timeout: float | None = step.get("timeout")
        late = None
        if timeout:
            late = child.began + timeout
        while child.process.poll() is None:
            now = time.monotonic()
            finish = self.orders.finish_at
            if late is not None and now >= late:
                which = ""
                if self.at_once:
                    which = self._whose(step)
                self.log.say(f"{which}timed out after {timeout:.0f} s")
                self._kill(child)
                return True, ""
            if self.orders.stopped() or (finish is not None and now >= finish):
                self._kill(child)
                return False, ""
            if (now >= watch.next or (watch.deadline and now >= watch.deadline)) and (limit := watch.look()):
                self._kill(child)
                return False, limit
            ends = (late, finish, watch.next, watch.deadline)
            news.wait(max(min(end for end in ends if end is not None) - now, 0.01))
            news.clear()
        return False, ""

    def _kill(self, child: _Child) -> None:
        """SIGTERM to the tree, SIGKILL after a grace; at once when fenced.

        bubblewrap ends when all in its namespace has, and all of that ends with it; so does a keeper.
        """
        process, root, apart = child.process, child.root, child.apart
        if not self.orders.fenced:
            processes.kill_descendants(signal.SIGTERM, root)
            end = time.monotonic() + STOP_GRACE
            while process.poll() is None and time.monotonic() < end and not self.orders.fenced:
                time.sleep(0.05)
        if process.poll() is None or not apart:
            processes.kill_descendants(signal.SIGKILL, root)
        if apart:
            process.kill()
        process.wait()

    def _pump(self, process: subprocess.Popen[bytes], step: dict[str, Any], redactor: Redactor) -> Pump:
        """What reads a command's output. Where several write at once, each line says whose it is."""
        assert process.stdout is not None
        mark, transcript = "", None
        if self.at_once:
            mark = f"{step['name']} | "
        if preset := PRESETS.get(str(step.get("preset"))):
            place = Path(self.spec["run_dir"]) / NAME
            root = self.box.inside(str(self.worktree))
            transcript = Transcript(place, preset, redactor.text, self.log.say, root)
            self.transcript = transcript
        return Pump(process.stdout, redactor, self.log, self._heard, mark.encode(), transcript)

    def _heard(self) -> None:
        self.last_output = time.time()

    def told(self) -> dict[str, Any]:
        """What an agent's output has said of its session and of what it has used so far, for the server."""
        if self.transcript is None:
            return {}
        return self.transcript.told()


def _await(process: subprocess.Popen[bytes], news: threading.Event) -> None:
    process.wait()
    news.set()


def _ended(result: Result) -> Ended:
    raw = result["outcome_raw"]
    return raw["exit_code"], raw["signal"]


def _not_run(step: dict[str, Any], code: int | None, why: str) -> Result:
    raw = {"exit_code": code, "signal": None, "timed_out": False, "limit": ""}
    return {"name": step["name"], "outcome_raw": raw, "duration_ms": 0, "output": why, "attempts": 1}
