"""A stage for stories: a real git remote, a town on PostgreSQL, real shims and agents; the test drives the ticks.

What `up` spreads over processes (reconciler, cluster, runner, web) is driven here in one, by the same code, so that a
story can stop between any two steps.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from agents.api import commands
from agents.runner import Runner
from beads import config as configs
from beads import ledger, plans
from beads.actors import Actor
from beads.channels import WAKE_CHANNEL, listen_parameters
from beads.models import Bead, Convoy, Effect, Outage, Rig, Town
from refinery.decisions import merge_queue, towns, work
from refinery.executor import perform
from refinery.models import ReviewEntry
from refinery.pages import boards
from refinery.tick import reconciler
from tests.acceptance.scenes import alone as alone
from tests.acceptance.scenes import scene as scene

AGENTS = Path(__file__).parent / "agents"
TOOLS = [sys.base_prefix, sys.prefix, str(AGENTS)]  # what test agents need inside the sandbox
WHO = Actor("test", "alice")


class Stage:
    """The whole cast: remote, town, rig, runner."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.remote = root / "remote.git"
        self.clone = root / "clone"
        self.signals = root / "signals"  # seen in every box
        self.signals.mkdir()
        self.release = self.signals / "release"
        self.git("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=root)
        self.git("init", "-q", "-b", "main", str(self.clone), cwd=root)
        self.commit("main", {"README.md": "# Project\n", "signs.txt": "one\ntwo\nthree\n"}, start=None)
        self.town: Town
        self.rig: Rig
        self.runner = Runner(commands.table())
        self.hold: set[str] = set()  # kinds of effects that are kept back
        self.listener = psycopg.connect(**listen_parameters(), autocommit=True)
        self.listener.execute(f"listen {WAKE_CHANNEL}")

    # -- git, as a person --

    def git(self, *arguments: str, cwd: Path | None = None, check: bool = True) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "Ann", f"GIT_{who}_EMAIL": "ann@example.org"}
        command = ["git", "-c", "safe.directory=*", *arguments]
        done = subprocess.run(command, cwd=cwd or self.clone, env=env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, branch: str, files: dict[str, str], start: str | None = "main", force: bool = False) -> str:
        """Commit `files` on `branch` (made from `start`) and push it; returns the commit."""
        if start is not None:
            self.git("fetch", "-q", str(self.remote), "+refs/heads/*:refs/remotes/origin/*")
            self.git("checkout", "-q", "-B", branch, f"origin/{start}")
        for name, text in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"Change {', '.join(files)}")
        self.git("push", "-q", *(["--force"] if force else []), str(self.remote), f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def sha(self, branch: str = "main") -> str:
        return self.git("rev-parse", f"refs/heads/{branch}", cwd=self.remote)

    def file(self, name: str, branch: str = "main") -> str:
        return self.git("show", f"{branch}:{name}", cwd=self.remote)

    def log(self, branch: str = "main") -> list[str]:
        return self.git("log", "--first-parent", "--format=%s", branch, cwd=self.remote).splitlines()

    # -- the town --

    def open(
        self,
        *,
        agents: bool = True,
        git: dict[str, Any] | None = None,
        pr: dict[str, Any] | None = None,
        **refinery: Any,
    ) -> Rig:
        """Make the town and the rig. Keywords go into [refinery]; `git` is [git], `pr` [pr]; `agents=False`: no agent
        commands."""
        config: dict[str, Any] = {
            "refinery": {"code_review": False, "gates": ["true"], "triage": "off", **refinery},
            "dispatch": {"max_polecats": 8, "backoff": ["1ms"], "heartbeat": "1s", "lease": "20s"},
            "sandbox": {"read_only": [*TOOLS, str(self.signals), str(self.root / "agent.py")]},
        }
        if git:
            config["git"] = git
        if pr:
            config["pr"] = pr
        if agents:
            config["agents"] = {
                "polecat": {"command": [sys.executable, str(AGENTS / "polecat.py")]},
                "refinery": {"command": [sys.executable, str(AGENTS / "refinery.py"), str(self.release)]},
            }
        self.town = ledger.create_town("main", configs.validate(config))
        self.rig = towns.add_rig("main", "proj", str(self.remote), None, {})
        return self.rig

    def submit(self, branch: str, target: str | None = None, bead: Bead | None = None) -> ReviewEntry:
        return merge_queue.submit(self.rig, merge_queue.Submission(branch, target=target, bead=bead), by=WHO)[0]

    def sling(self, title: str, body: str, *after: Bead) -> Bead:
        return work.sling(self.rig, ledger.Draft(title, body=body), by=WHO, after=after)

    def convoy(
        self, title: str, beads: dict[str, tuple[str, list[str]]], mode: str | None = None, **more: Any
    ) -> Convoy:
        """`beads`: key → (shell script, after)."""
        rows = [{"key": k, "title": k, "body": body, "after": after} for k, (body, after) in beads.items()]
        plan = plans.parse(rows, "plan", self.rig, lambda slug: Rig.objects.get(slug=slug))
        staged = more.get("staged", False)
        return work.create_convoy(self.rig, by=WHO, title=title, mode=mode, plan=plan, staged=staged)[0]

    # -- driving --

    def step(self) -> None:
        """What the reconciler, the cluster and the runner do, once."""
        reconciler.settle(self.town)
        for effect in Effect.objects.filter(state="pending", next_try_at__lte=timezone.now()).exclude(
            kind__in=self.hold
        ):
            perform.run_effect(effect.pk)
        for outage in Outage.objects.filter(next_look_at__lte=timezone.now()):
            perform.look_at_remote(outage.rig_id)
        self.runner._look()

    def until(self, condition: Callable[[], Any], seconds: float = 150.0) -> Any:
        """Drive until the condition holds; fails with the plan's own explanation."""
        end = time.monotonic() + seconds
        while True:
            self.step()
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                told = "\n".join(f"{d.subject}: {d.rule}: {d.why}" for d in reconciler.explain(self.town))
                raise AssertionError(f"it did not come to pass:\n{told}")
            list(self.listener.notifies(timeout=0.1, stop_after=1))

    def phase(self, entry: ReviewEntry) -> str:
        return boards.Board(self.town).entry(ReviewEntry.objects.get(pk=entry.pk)).phase

    def await_phase(self, entry: ReviewEntry, *phases: str) -> ReviewEntry:
        self.until(lambda: self.phase(entry) in phases)
        return ReviewEntry.objects.select_related("bead", "source").get(pk=entry.pk)

    def await_bead(self, bead: Bead, *statuses: str) -> Bead:
        self.until(lambda: Bead.objects.get(pk=bead.pk).status in statuses)
        return Bead.objects.get(pk=bead.pk)

    def close(self) -> None:
        """Stop what still runs; every shim must be gone afterwards."""
        self.runner.stopping = True
        self.runner.pool.shutdown(wait=True)
        self.release.touch()
        for shim in self.runner.shims.values():
            shim.send_signal(signal.SIGTERM)
            shim.wait(20)
        self.runner.forks.close()
        self.listener.close()


@pytest.fixture
def stage(tmp_path: Path, settings: Any, transactional_db: None, live_server: Any) -> Iterator[Stage]:
    """A fresh stage, with the web server running in this process."""
    settings.GASTOWN_HOME = str(tmp_path / "home with space")
    settings.GASTOWN_URL = live_server.url
    Path(settings.GASTOWN_HOME).mkdir()
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.close()
