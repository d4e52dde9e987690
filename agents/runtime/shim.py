"""The process around one run's command: claims the run, keeps its lease, ends it in time, saves its work.

Forked by `forkserver`, without Django, in a session of its own: it outlives every server process. Promises:
- it starts nothing before the server has accepted its claim;
- it stops the whole process tree before a lease that it cannot renew runs out, and at once when it is fenced;
- however the command ends, its commits come in through the door, what is uncommitted is saved, and the end is reported.

It has a secret of its own for the server's doors, which its command never sees.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.runtime import gitcmd, harvest, insides, processes, sessions, workspace
from agents.runtime.crashpoints import crashpoint
from agents.runtime.orders import Orders
from agents.runtime.output import FAILED_TAIL
from agents.runtime.steps import STOP_GRACE, Steps

FINISH_GRACE = 30.0
REPORT_SECONDS = 600.0
LOG_LIMIT = 20 << 20
MAX_REPORT = 768 << 10  # the server takes a megabyte


class Refused(Exception):
    """The server said no: the run is not, or no longer, ours."""


class Log:
    """The run's log: everything up to a limit, then only the count of what was left out. Never blocks."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.size = self.file.tell()
        self.lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Append, or drop past the limit; a full disk loses the log, not the run."""
        with self.lock, contextlib.suppress(OSError):
            if self.size < LOG_LIMIT:
                self.file.write(data)
                self.size += len(data)
                if self.size >= LOG_LIMIT:
                    self.file.write(b"\n[gastown] the log is full: what follows is not kept\n")

    def say(self, text: str) -> None:
        """A line of the shim's own."""
        self.write(f"[gastown] {text}\n".encode())


class Server:
    """The shim's side of the HTTP protocol."""

    def __init__(self, url: str, run: str) -> None:
        self.url = urlsplit(url)
        self.run = run
        self.token = ""

    def post(self, verb: str, body: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        """POST /api/runs/<run>/<verb>. Raises Refused for 4xx, OSError when the server cannot be asked."""
        host, port = self.url.hostname or "localhost", self.url.port
        if self.url.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=timeout)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            path = f"{self.url.path.rstrip('/')}/api/runs/{self.run}/{verb}"
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if answer.status in (401, 403, 404, 409, 410):
            raise Refused(data.decode("utf-8", "replace")[:300])
        if answer.status >= 300:
            raise OSError(f"HTTP {answer.status}")
        result: dict[str, Any] = json.loads(data)["data"]
        return result


class Shim:
    """One run."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.run_dir = Path(spec["run_dir"])
        root = spec.get("workspace")
        self.space = workspace.Workspace(Path(root), Path(spec["repo"])) if root else None
        self.log = Log(self.run_dir / "log")
        self.server = Server(spec["url"], spec["run"])
        self.wake = threading.Event()
        self.poke = threading.Event()
        self.done = threading.Event()
        self.token = ""  # the command's own
        self.lease_end = 0.0
        self.heartbeat = 10.0
        self.orders = Orders(listeners=[self.wake])
        self.steps = Steps(spec, self.log, self.orders, self._own_environment)

    def main(self) -> int:
        """Claim, run, save, report. Returns the exit code: 3 when the claim was refused."""
        crashpoint("shim.started")
        if not self._claim():
            self._discard()
            return 3
        crashpoint("shim.claimed")
        threading.Thread(target=self._keep_lease, daemon=True).start()
        steps, last = self.steps.run()
        crashpoint("shim.ended")
        self._keep_session()
        report = self._save()
        crashpoint("shim.published")
        report |= {"exit_code": last[0], "signal": last[1], "steps": steps, **self.steps.told()}
        report["session_lost"] = self.steps.lost
        if reason := self.orders.stop or self.steps.reason:
            report["error"] = report.get("error") or reason
        self.done.set()
        self._report(report)
        crashpoint("shim.reported")
        if report.get("work") != harvest.UNSAVED:
            self._discard()
        return 0

    # -- claim and lease --

    def _claim(self) -> bool:
        self.server.token = self.spec["claim_secret"]
        end = time.monotonic() + float(self.spec["start_seconds"])
        while time.monotonic() < end and not self.orders.stop:
            sent = time.monotonic()
            try:
                answer = self.server.post("claim", {"pid": os.getpid(), "host": os.uname().nodename, "secrets": 2})
            except Refused as error:
                self.log.say(f"the claim was refused, nothing was started: {error}")
                return False
            except (OSError, ValueError, KeyError) as error:
                self.log.say(f"the server cannot be reached: {error}")
                self.wake.wait(0.5)
                continue
            self.server.token = answer["secret"]
            self.token = answer["token"]
            self.lease = float(answer["lease_seconds"])
            self.heartbeat = float(answer["heartbeat_seconds"])
            self.lease_end = sent + self.lease
            return True
        return False

    def _keep_lease(self) -> None:
        """Heartbeats, until done. The lease counts from the moment a request was sent, on our own clock."""
        margin = min(STOP_GRACE + 5.0, self.lease * 0.4)
        wait = self.heartbeat
        known: dict[str, Any] = {}
        while not self.done.is_set():
            self.poke.wait(wait)
            self.poke.clear()
            if self.done.is_set():
                return
            sent, told = time.monotonic(), self.steps.told()
            body: dict[str, Any] = {}
            if told != known:
                body = dict(told)
            try:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.steps.last_output))
                answer = self.server.post("heartbeat", body | {"activity_at": moment}, min(10.0, self.heartbeat))
            except Refused:
                self.orders.fenced = True
                self._stop("fenced by the server")
                return
            except (OSError, ValueError, KeyError):
                wait = 1.0
                if time.monotonic() > self.lease_end - margin:
                    self._stop("the lease could not be renewed")
                continue
            wait, known = self.heartbeat, told
            self.lease_end = sent + self.lease
            self._heed(answer)

    def _heed(self, answer: dict[str, Any]) -> None:
        for nudge in answer.get("nudges") or []:
            self.log.say(f"nudge: {nudge}")
            with (self.run_dir / "nudges").open("a") as handle:
                handle.write(f"{nudge}\n")
        if answer.get("stop"):
            self._stop("asked to stop")
        elif answer.get("finish") and self.orders.finish_at is None:
            self.orders.finish_at = time.monotonic() + FINISH_GRACE
            self.orders.tell()

    def _stop(self, reason: str) -> None:
        if not self.orders.stop:
            self.orders.stop = reason
            self.log.say(reason)
        self.orders.tell()

    def on_signal(self, number: int, _frame: object) -> None:
        """SIGUSR1: look now. SIGTERM and SIGINT: stop."""
        if number == signal.SIGUSR1:
            self.poke.set()
        else:
            self._stop(f"signal {number}")

    def _own_environment(self) -> dict[str, str]:
        """An agent's token, which it has from its claim on; gates call no tools."""
        if self.spec["kind"] == "gates":
            return {}
        return dict.fromkeys(("GASTOWN_TOKEN", *self.spec.get("token_as", ())), self.token)

    # -- the end --

    def _save(self) -> dict[str, Any]:
        """Take in the commits and save the rest. Never raises: what failed is part of the report."""
        if self.space is None or not self.spec["delivers"]:
            return {"head_sha": self.spec["start_sha"] if self.space else ""}
        report: dict[str, Any] = {"head_sha": "", "work": harvest.UNSAVED}
        for wait in (0.5, 2.0, 5.0, None):
            try:
                inside = insides.in_box(self.space, self.steps.box)
                found = harvest.take_in(self.space, self.spec["run"], self.spec["start_sha"], inside)
            except Exception as error:  # whatever a workspace makes of us: the run ends with a report
                report["error"] = f"saving the work failed: {error}"
                self.log.say(report["error"])
                if wait is None:
                    return report
                time.sleep(wait)
            else:
                self.log.say(f"{found.work}: {found.text or found.head[:12]}")
                crashpoint("shim.saved")
                return found.report()
        return report

    def _keep_session(self) -> None:
        """What the next run of this work may go on with. Nothing is at work in the run's HOME any more."""
        told = self.spec.get("session")
        if (
            told
            and self.space is not None
            and (why := sessions.keep(self.space.home, Path(told["place"]), told["parts"]))
        ):
            self.log.say(why)

    def _report(self, report: dict[str, Any]) -> None:
        """Tell the server, for as long as it is worth while."""
        report = fit(report)
        end, wait = time.monotonic() + REPORT_SECONDS, 0.2
        while time.monotonic() < end:
            try:
                self.server.post("exit", report)
            except Refused as error:
                self.log.say(f"the report was refused: {error}")
                return
            except (OSError, ValueError, KeyError):
                time.sleep(wait)
                wait = min(wait * 2, 10.0)
            else:
                return

    def _discard(self) -> None:
        """The workspace goes, unless what it holds could not be saved: then the runner tries again."""
        if self.space is not None:
            with contextlib.suppress(gitcmd.GitFailed, OSError):
                workspace.release(self.space)
                workspace.discard(self.space)


def fit(report: dict[str, Any]) -> dict[str, Any]:
    """The report as the server takes it: clean text, and outputs cut to what fits; the log has all of it."""
    steps = [
        {**step, "output": _clean(step.get("output")), "words": _clean(step.get("words"))}
        for step in report.get("steps") or []
    ]
    report = {**report, "steps": steps}
    if report.get("error"):
        report["error"] = _clean(report["error"])[:2000]
    tries = [attempt for step in steps for attempt in step.get("tries") or []]
    last = {id(step["tries"][-1]) for step in steps if step.get("tries")}
    for final in (False, True):  # what earlier attempts have reported is the least of it
        for attempt in tries if len(json.dumps(report)) > MAX_REPORT else ():
            if attempt.get("reports") and (id(attempt) in last) is final:
                attempt |= {"reports": [], "note": "the test reports were too large to be sent"}
    keep = FAILED_TAIL
    while len(json.dumps(report)) > MAX_REPORT and keep > 64:  # control characters take six bytes each
        keep //= 2
        for step in steps:
            step["output"] = step["output"][-keep:]
    return report


def _clean(text: object) -> str:
    return str(text or "").encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def main(path: Path) -> int:
    """Read the spec (and delete it: it holds secrets) and run. Returns the exit code."""
    spec = json.loads(path.read_text())
    path.unlink()
    processes.adopt_orphans()
    shim = Shim(spec)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, shim.on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    (shim.run_dir / "pid").write_text(str(os.getpid()))
    return shim.main()
