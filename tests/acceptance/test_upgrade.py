"""An installation of the last release, at work, is stopped and goes on with this code: nothing is lost or done twice.

The last release is a commit of this repository's own history, so the test needs that history (no shallow clone).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import forkserver, sandbox
from tests.acceptance.test_installation import ROOT, Up, postmasters, reachable, until
from tests.seed import environment

LAST = "c6a555a2a5c88dc770a9cc37d282aa65a0b3f61c"  # before runs had repositories and boxes of their own
AGENTS = Path(__file__).parent / "agents"
OLD = """
[refinery]
gates = ['test ! -e slow || git cat-file -e "$GASTOWN_BASE:slow" || while test ! -e go; do sleep 0.1; done']
code_review = false
[dispatch]
backoff = ["1ms"]
heartbeat = "1s"
[agents.polecat]
command = {command}
"""
NEW = """
[sandbox]
read_only = {shown}
"""


class Desk:
    """Commands typed at the installation, all in one process of the code at `root`."""

    def __init__(self, root: Path, home: Path) -> None:
        command = [sys.executable, str(root / "tests/acceptance/driver.py")]
        self.process = subprocess.Popen(
            command,
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, *words: str) -> Any:
        """One command's data."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([*words, "--json"]) + "\n")
        self.process.stdin.flush()
        code, out, err = json.loads(self.process.stdout.readline())
        assert code == 0, err or out
        return json.loads(out)["data"]

    def leave(self) -> None:
        """End the process."""
        self.process.communicate(timeout=60)


class Upgrade:
    """The installation: its home and port stay, its code does not."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.old = reachable(root), root / "a home", root / "last release"
        self.release = root / "signals" / "release"
        self.release.parent.mkdir()
        self.up: Up | None = None
        self.desk: Desk | None = None
        self.port = 0

    def start(self, code: Path) -> Desk:
        """`up` of this code, until it is ready, and a desk beside it."""
        self.up = started = Up(self.home, self.port, code)
        self.port = started.port
        until(lambda: "ready: " in started.text() or started.process.poll() is not None, 120)
        assert started.process.poll() is None, started.text()
        self.desk = Desk(code, self.home)
        return self.desk

    def stop(self) -> None:
        """SIGTERM; shims go on."""
        if self.desk is not None:
            self.desk.leave()
        if self.up is not None:
            self.up.process.send_signal(signal.SIGTERM)
            assert self.up.process.wait(60) == 0, self.up.text()
        self.up = self.desk = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.release.touch()
        self.stop()
        for file in (self.home / "runs").glob("*/pid"):
            with contextlib.suppress(OSError, ValueError):
                if forkserver.alive(pid := int(file.read_text())):
                    os.kill(pid, signal.SIGKILL)
        assert not postmasters(self.home)

    def shim(self, run: str) -> int:
        """The process of a run's shim."""
        return int((self.home / "runs" / run / "pid").read_text())

    def git(self, *words: str, cwd: Path | None = None) -> str:
        """Git as a person."""
        command = ["git", "-c", "safe.directory=*", "-c", "user.name=Ann", "-c", "user.email=a@x.org", *words]
        done = subprocess.run(command, cwd=cwd or self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def push(self, rig: str, branch: str, name: str = "") -> None:
        """A branch on the rig's remote (made when it is missing), with one more file."""
        remote, clone = self.root / f"{rig}.git", self.root / f"{rig} {branch}"
        if not remote.exists():
            self.git("init", "-q", "--bare", "-b", "main", str(remote))
        self.git("clone", "-q", str(remote), str(clone))
        (clone / (name or branch)).write_text("x\n")
        self.git("add", "-A", cwd=clone)
        self.git("commit", "-q", "-m", f"Change {branch}", cwd=clone)
        self.git("push", "-q", "origin", f"HEAD:refs/heads/{branch}", cwd=clone)

    def files(self, rig: str) -> list[str]:
        """What is on the rig's main branch."""
        return self.git("-C", str(self.root / f"{rig}.git"), "ls-tree", "--name-only", "main").splitlines()

    def toml(self, name: str, text: str) -> str:
        """A config file; its path."""
        path = self.root / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def upgrade(tmp_path: Path) -> Iterator[Upgrade]:
    """The code of the last release, and a home."""
    if sandbox.status().kind != sandbox.BUBBLEWRAP:
        pytest.skip("no sandbox can be started here")
    archive = subprocess.run(["git", "archive", LAST], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the last release, {LAST[:12]}, is not in this repository's history (a shallow clone?)")
    made = Upgrade(tmp_path)
    made.old.mkdir()
    subprocess.run(["tar", "-x"], cwd=made.old, input=archive.stdout, check=True)
    try:
        yield made
    finally:
        made.close()


def test_an_installation_at_work_upgrades_and_loses_nothing(upgrade: Upgrade) -> None:
    command = json.dumps([sys.executable, str(AGENTS / "patient.py"), str(upgrade.release)])
    config = OLD.replace("{command}", command)
    for rig in ("proj", "people", "fragile"):
        upgrade.push(rig, "main")
    desk = upgrade.start(upgrade.old)
    desk("town", "create", "main", "--config", upgrade.toml("old.toml", config))
    by_hand = upgrade.toml("people.toml", "[refinery]\nauto_merge = false\n")
    short = upgrade.toml("fragile.toml", '[dispatch]\nlease = "6s"\nheartbeat = "1s"\n')
    for rig, more in (("proj", ()), ("people", ("--config", by_hand)), ("fragile", ("--config", short))):
        desk("rig", "add", rig, str(upgrade.root / f"{rig}.git"), *more)

    # at work: two runs that have committed, one that reworks, entries that wait for a person, a gate, a staged convoy
    goes_on = desk("sling", "proj", "--title", "Goes on")["id"]
    killed = desk("sling", "fragile", "--title", "Its shim is killed")["id"]
    reworked = desk("sling", "people", "--title", "At once")["id"]
    upgrade.push("people", "waits")
    waits = desk("mq", "submit", "people", "--branch", "waits")["id"]
    upgrade.push("proj", "slow")
    slow = desk("mq", "submit", "proj", "--branch", "slow")["id"]
    plan = upgrade.toml("plan.toml", '[[beads]]\nkey = "one"\ntitle = "At once"\n')
    convoy = desk("convoy", "create", "proj", "--title", "Staged", "--file", plan, "--staged")["id"]
    gating = until(lambda: list((upgrade.home / "gates").glob("*/*/slow")))[0].parent
    of_bead = until(lambda: [e for e in desk("mq", "list", "--rig", "people") if e["phase"] == "awaiting_human"
                             and e["id"] != waits])[0]["id"]  # fmt: skip
    desk("mq", "request-changes", of_bead, "--body", "more of it")
    drafts = upgrade.home / "worktrees"
    until(lambda: len(list(drafts.glob("*/draft.txt"))) == 3)
    until(lambda: desk("mq", "show", waits)["phase"] == "awaiting_human")
    runs = {run["id"]: run for run in desk("runs", "list")}
    polecats = {path.parent.name for path in drafts.glob("*/draft.txt")}
    victim = next(run for run in polecats if runs[run]["bead"] == killed)
    assert len(set(runs) - polecats) == 1  # the gate
    first = upgrade.git("rev-parse", "HEAD", cwd=drafts / victim)
    shims = {run: upgrade.shim(run) for run in runs}

    # the upgrade; meanwhile one shim is killed, and an agent has left its own words in the mirror's config
    upgrade.stop()
    os.kill(shims.pop(victim), signal.SIGKILL)
    survivor = next(run for run in polecats if runs[run]["bead"] == goes_on)
    (mirror,) = (p for p in (upgrade.home / "repos").glob("*.git") if (p / "worktrees" / survivor).exists())
    elsewhere = upgrade.root / "elsewhere.git"
    upgrade.git("init", "-q", "--bare", "-b", "main", str(elsewhere))
    upgrade.git("config", f"url.{elsewhere}.insteadOf", str(upgrade.root / "proj.git"), cwd=drafts / survivor)
    assert "insteadOf" in (mirror / "config").read_text()
    desk = upgrade.start(ROOT)
    shown = json.dumps([sys.base_prefix, sys.prefix, str(AGENTS), str(upgrade.release.parent)])
    desk("town", "config", "main", "--config", upgrade.toml("new.toml", config + NEW.replace("{shown}", shown)))
    assert "insteadOf" not in (mirror / "config").read_text()
    assert {run: upgrade.shim(run) for run in shims if forkserver.alive(shims[run])} == shims
    assert desk("mq", "show", waits)["phase"] == "awaiting_human"
    assert desk("mq", "show", slow)["phase"] == "gating"

    # what waited goes on, in what it was begun in
    upgrade.release.touch()
    (gating / "go").touch()
    assert desk("wait", "--mq", slow, "--timeout", "90")
    desk("wait", "--bead", goes_on, "--timeout", "90")
    until(lambda: desk("mq", "show", of_bead)["phase"] == "awaiting_human")
    for entry in (waits, of_bead):
        desk("mq", "approve", entry)
    for bead in (reworked, killed):
        desk("wait", "--bead", bead, "--timeout", "120")
    ended = {run["id"]: run for run in desk("runs", "list", "--all")}
    assert {(ended[run]["outcome"], ended[run]["attempt"]) for run in shims} == {("done", 1)}, ended
    assert ended[victim]["outcome"] == "lost"
    assert {"slow", f"{survivor}.first", f"{survivor}.second"} <= set(upgrade.files("proj"))
    rework = next(run for run in polecats if runs[run]["bead"] not in (goes_on, killed))
    assert {"waits", f"{rework}.first", f"{rework}.second"} <= set(upgrade.files("people"))
    assert not upgrade.git("-C", str(elsewhere), "for-each-ref")

    # the killed one's work is kept, and its next attempt ran in the sandbox
    (again,) = (run for run in ended.values() if run["bead"] == killed and run["id"] != victim)
    assert (again["attempt"], again["outcome"], again["sandbox"]) == (2, "done", "bubblewrap")
    until(lambda: not list(drafts.iterdir()) and not list((upgrade.home / "workspaces").iterdir()))
    fragile = str(next(p for p in (upgrade.home / "repos").glob("*.git") if _has(upgrade, p, victim)))
    kept = upgrade.git("-C", fragile, "log", "--format=%H", f"refs/gastown/runs/{victim}").splitlines()
    assert first in kept
    assert upgrade.git("-C", fragile, "show", f"refs/gastown/salvage/{victim}:draft.txt") == "not committed yet"

    # new work: a bead of its own, and the convoy that was staged; gates replace the old slots
    fresh = desk("sling", "proj", "--title", "At once")["id"]
    desk("convoy", "start", convoy)
    desk("wait", "--bead", fresh, "--timeout", "120")
    desk("wait", "--convoy", convoy, "--timeout", "120")
    new = [run for run in desk("runs", "list", "--all") if run["id"] not in ended]
    assert {run["sandbox"] for run in new} == {"bubblewrap"}
    slots = [path for path in (upgrade.home / "gates").glob("*/*") if path.name.isdigit()]
    assert slots and not [path for path in slots if (path / ".git").exists()]
    rows = desk("doctor")
    assert [row for row in rows if row["state"] != "ok" and row["check"] != "first password"] == []


def _has(upgrade: Upgrade, mirror: Path, run: str) -> bool:
    return bool(upgrade.git("-C", str(mirror), "for-each-ref", f"refs/gastown/runs/{run}"))
