"""A living installation to be shaken: real processes of `up`, real remotes, agents that do not give up easily.

The test looks at the installation's database from outside, and makes work through the same doors as the commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from agents.runtime import forkserver, processes
from tests.acceptance.test_installation import ROOT, Up, postmasters, reachable, until
from tests.seed import environment, seed

AGENT = Path(__file__).parent / "agents" / "hardy.py"
SETUP = """
import json, sys
import django
django.setup()
from django.contrib.auth.models import User
from beads import config, ledger, people, plans
from beads.actors import Actor
from beads.models import Rig
from gastown_site import database
from refinery.decisions import towns, work
told = json.loads(sys.stdin.read())
database.ensure_running()
database.ensure_migrated()
for slug, url in told.get("rigs", {}).items():
    town = towns.add_rig("main", slug, url, None, {}).town
    ledger.set_config(town, config.validate(told["config"]))
    if not User.objects.filter(username="nora").exists():  # somebody who hears of landings
        nora = User.objects.create_user("nora", "nora@example.org")
        people.grant(nora, town, people.role_named("viewer"), "test")
        people.set_notices(nora, town, ["landed"])
made = []
for slug, title in told.get("beads", []):
    made.append(work.sling(Rig.objects.get(slug=slug), ledger.Draft(title), by=Actor("", "test")).pk)
for slug, title in told.get("convoys", []):
    rig = Rig.objects.select_related("town").get(slug=slug)
    plan = plans.parse([{"key": "one", "title": title}], "plan", rig, lambda s: rig)
    convoy = work.create_convoy(rig, by=Actor("", "test"), title=title, plan=plan, staged=False)[0]
    made += [b.pk for b in convoy.beads.all()]
json.dump({"beads": made, "url": database.url()}, sys.stdout)
"""


class Living:
    """An installation; `start` and `stop` its processes, make `more` work, look at its rows."""

    def __init__(
        self,
        root: Path,
        waits_for: Path | None = None,
        *,
        refinery: dict[str, Any] | None = None,
        publish: str = "",
        **dispatch: Any,
    ) -> None:
        reachable(root)
        self.root, self.home = root, root / "a home"
        self.home.mkdir()
        seed(self.home)
        self.crash = root / "armed"
        self.crash.mkdir()
        self.beads: list[str] = []
        self.up: Up | None = None
        self.port = 0
        self._connection: psycopg.Connection[Any] | None = None
        agent = [sys.executable, str(AGENT), *([str(waits_for)] if waits_for else [])]
        shown = [sys.base_prefix, sys.prefix, str(AGENT.parent)]
        if waits_for is not None:
            waits_for.parent.mkdir(exist_ok=True)
            shown.append(str(waits_for.parent))
        self.rigs: list[str] = []
        self._told = {
            "config": {
                "refinery": {"gates": ["true"], "code_review": True, **(refinery or {})},
                "dispatch": {
                    "backoff": ["1ms"], "heartbeat": "1s", "lease": "20s", "start_deadline": "8s", "max_attempts": 1,
                    **dispatch,
                },
                "agents": {"polecat": {"command": agent}, "refinery": {"command": [sys.executable, str(AGENT)]}},
                "sandbox": {"read_only": shown},
                **({"git": {"publish": publish}} if publish else {}),
            },
        }  # fmt: skip

    def _git(self, *words: str) -> str:
        command = ["git", "-c", "safe.directory=*", "-c", "user.name=Ann", "-c", "user.email=a@x.org", *words]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def _remote(self, slug: str) -> Path:
        path = self.root / f"{slug}.git"
        self._git("init", "-q", "--bare", "-b", "main", str(path))
        tree = self._git("-C", str(path), "hash-object", "-t", "tree", "-w", "/dev/null").strip()
        first = self._git("-C", str(path), "commit-tree", tree, "-m", "start").strip()
        self._git("-C", str(path), "update-ref", "refs/heads/main", first)
        return path

    # -- its processes --

    def start(self) -> None:
        """`up`, until it is ready."""
        self.up = started = Up(self.home, self.port, GASTOWN_CRASH_AT=str(self.crash))
        self.port = started.port  # shims come back to where they were told
        started.ready()

    def stop(self) -> None:
        """SIGTERM; shims go on."""
        if self.up is not None:
            self.up.process.send_signal(signal.SIGTERM)
            self.up.process.wait(60)
            self.up = None

    def kill_all_parts(self) -> None:
        """SIGKILL to web, cluster, reconciler, executor and runner at once, and wait until all are back."""
        assert self.up is not None
        up = self.up
        before: dict[str, int] = until(lambda: (found := up.parts()) if len(up.parts()) == 5 else None)
        for pid in before.values():
            os.killpg(pid, signal.SIGKILL)
        until(lambda: len(now := up.parts()) == 5 and not set(now.values()) & set(before.values()))

    def pull_the_plug(self) -> None:
        """What a power cut does: every process of it, PostgreSQL, shims and agents included, dies at once."""
        assert self.up is not None
        supervisor = self.up.process.pid
        pids = {supervisor, *processes.descendants(self.up.process.pid), *self.shims(), *self.agents()}
        pids |= {pid for master in postmasters(self.home) for pid in (master, *processes.descendants(master))}
        for pid in sorted(pids, key=lambda pid: pid != supervisor):  # else it starts PostgreSQL again
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        self.up.process.wait(60)
        self.up = None

        def dead() -> bool:
            for pid in (*postmasters(self.home), *self.shims(), *self.agents()):  # it was being started just then
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not (self.shims() or self.agents() or postmasters(self.home))

        try:
            until(dead)
        except AssertionError as error:
            raise AssertionError(f"{self.shims()} {self.agents()} {postmasters(self.home)}") from error

    def close(self) -> None:
        """Leave nothing behind."""
        if self._connection is not None:
            self._connection.close()
        self.stop()
        for pid in [*self.shims(), *self.agents()]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)

    def shims(self) -> list[int]:
        """Its living shims."""
        told = [int(_text(path)) for path in (self.home / "runs").glob("*/pid") if _text(path)]
        return [pid for pid in told if forkserver.alive(pid)]

    def agents(self) -> list[int]:
        """Whatever runs of its are still doing: processes that carry a run's mark and were started below its home."""
        here = str(self.home).encode()
        found = [pid for pids in processes.marked("GASTOWN_RUN").values() for pid in pids]
        return [pid for pid in found if here in _read(pid, "environ")]

    # -- its work --

    def more(self, rigs: int, beads: int, convoys: int) -> None:
        """So many new rigs, with so many beads and one-bead convoys each."""
        fresh = [f"rig{len(self.rigs) + number}" for number in range(rigs)]
        self.rigs += fresh
        told = {
            **self._told,
            "rigs": {slug: str(self._remote(slug)) for slug in fresh},
            "beads": [[slug, f"Bead {number}"] for slug in fresh for number in range(beads)],
            "convoys": [[slug, f"Convoy {number}"] for slug in fresh for number in range(convoys)],
        }
        done = subprocess.run(
            [sys.executable, "-c", SETUP],
            cwd=ROOT,
            env=environment(self.home, DJANGO_SETTINGS_MODULE="gastown_site.settings"),
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        self.beads += answer["beads"]
        self.database = answer["url"]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database says."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self.database, autocommit=True)
            return self._connection.execute(query).fetchall()
        except psycopg.OperationalError:  # its server was stopped in between
            self._connection = psycopg.connect(self.database, autocommit=True)
            return self._connection.execute(query).fetchall()

    def unfinished(self) -> dict[str, Any]:
        """What is still to be done, or was left over; empty when all is quiet."""
        queries = {
            "beads": "select id, type, status, reason from beads_bead where status not in ('closed', 'failed')",
            "runs": "select id, kind, state from agents_run where state <> 'ended'",
            "effects": "select key, state, attempts, error from beads_effect where state <> 'done'",
            "facts": "select kind, error from beads_fact where processed_at is null",
            "landings": "select id, state from refinery_landing where state in ('intent', 'pushing')",
        }
        found: dict[str, Any] = {name: self.rows(query) for name, query in queries.items()}
        if not any(found.values()):
            found["shims"], found["agents"] = self.shims(), self.agents()
        worktrees = self.home / "workspaces"
        found["worktrees"] = [p.name for p in worktrees.iterdir()] if worktrees.is_dir() else []
        return {name: rows for name, rows in found.items() if rows}

    def await_quiet(self, seconds: float) -> None:
        """Until nothing is left to do and nothing is left over."""
        end = time.monotonic() + seconds
        while left := self.unfinished():
            assert time.monotonic() < end, f"{left}\n{self.up.text()[-6000:] if self.up else ''}"
            time.sleep(0.2)

    def salvaged(self, run: str, name: str) -> str:
        """A file of the work that was saved from a run's worktree."""
        (rig,) = self.rows("select rig_id from agents_run where id = '" + run + "'")[0]
        repo = str(self.home / "repos" / f"{rig}.git")
        return self._git("-C", repo, "show", f"refs/gastown/salvage/{run}:{name}")

    def check_landed(self) -> None:
        """Every bead is merged, by exactly one commit on its target."""
        told = dict(self.rows("select id, resolution from beads_bead where type = 'issue'"))
        assert told == dict.fromkeys(self.beads, "merged"), told
        landed: list[str] = []
        for slug in self.rigs:
            path = str(self.root / f"{slug}.git")
            log = self._git("-C", path, "log", "--format=%(trailers:key=Bead,valueonly)", "main").split()
            landed += [bead for bead in log if bead in told]
        assert sorted(landed) == sorted(self.beads)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
