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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.runtime import forkserver, processes, sandbox
from tests.acceptance.desk import Desk
from tests.acceptance.test_installation import ROOT, Up, postmasters, until
from tests.acceptance.test_private import passable
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


class Upgrade:
    """The installation: its home and port stay, its code does not."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.old = root, root / "a home", root / "last release"
        self.release = root / "signals" / "release"
        self.release.parent.mkdir()
        self.worktrees = self.home / "worktrees"  # where the last release's runs are
        self.up: Up | None = None
        self.desk: Desk | None = None
        self.port = 0

    def start(self, code: Path) -> Desk:
        """`up` of this code, until it is ready, and a desk beside it."""
        self.up = started = Up(self.home, self.port, code)
        self.port = started.port
        until(lambda: "ready: " in started.text() or started.process.poll() is not None, 120)
        assert started.process.poll() is None, started.text()
        self.desk = Desk(environment(self.home), code)
        return self.desk

    def stop(self) -> None:
        """SIGTERM; shims go on."""
        if self.desk is not None:
            self.desk.leave()
        if self.up is not None:
            self.up.process.send_signal(signal.SIGTERM)
            assert self.up.process.wait(60) == 0, self.up.text()
        self.up = self.desk = None

    def pull_the_plug(self) -> None:
        """What a power cut does: every process of it dies at once."""
        assert self.up is not None and self.desk is not None
        self.desk.leave()
        roots = [self.up.process.pid, *self._shims(), *postmasters(self.home)]
        for pid in {pid for root in roots for pid in (root, *processes.descendants(root))}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.up.process.wait(60)
        until(lambda: not (self._shims() or postmasters(self.home)))
        self.up = self.desk = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.release.touch()
        self.stop()
        for pid in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not postmasters(self.home)

    def _shims(self) -> list[int]:
        """The shims that are alive."""
        told = (file.read_text() for file in (self.home / "runs").glob("*/pid"))
        return [pid for pid in (int(text) for text in told if text) if forkserver.alive(pid)]

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
def upgrade() -> Iterator[Upgrade]:
    """The code of the last release, and a home."""
    if sandbox.status().kind != sandbox.BUBBLEWRAP:
        pytest.skip("no sandbox can be started here")
    archive = subprocess.run(["git", "archive", LAST], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the last release, {LAST[:12]}, is not in this repository's history (a shallow clone?)")
    with passable() as place:
        made = Upgrade(place)
        made.old.mkdir()
        subprocess.run(["tar", "-x"], cwd=made.old, input=archive.stdout, check=True)
        try:
            yield made
        finally:
            made.close()


@dataclass
class Work:
    """What the installation was doing: beads, entries and a convoy by their ids, and runs that wait for their sign."""

    desk: Desk
    goes_on: str
    killed: str
    reworked: str
    waits: str
    of_bead: str
    slow: str
    convoy: str
    gating: Path
    runs: dict[str, str]  # run → bead, of the polecats that have committed once and wait
    gate: str  # the run that gates `slow`

    def of(self, bead: str) -> str:
        """The run that has been started for a bead, or for the rework of its entry."""
        others = (self.goes_on, self.killed)
        return next(run for run, of in self.runs.items() if of == bead or (bead == self.reworked and of not in others))


def config(upgrade: Upgrade) -> str:
    """The town's config, as the last release takes it."""
    return OLD.replace("{command}", json.dumps([sys.executable, str(AGENTS / "patient.py"), str(upgrade.release)]))


def at_work(upgrade: Upgrade) -> Work:
    """Start the last release, and put it to work: two runs that have committed, one that reworks, entries that wait for
    a person, a gate, a staged convoy."""
    for rig in ("proj", "people", "fragile"):
        upgrade.push(rig, "main")
    desk = upgrade.start(upgrade.old)
    desk("town", "create", "main", "--config", upgrade.toml("old.toml", config(upgrade)))
    by_hand = upgrade.toml("people.toml", "[refinery]\nauto_merge = false\n")
    short = upgrade.toml("fragile.toml", '[dispatch]\nlease = "6s"\nheartbeat = "1s"\n')
    for rig, more in (("proj", ()), ("people", ("--config", by_hand)), ("fragile", ("--config", short))):
        desk("rig", "add", rig, str(upgrade.root / f"{rig}.git"), *more)
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
    asking: Callable[[], list[str]] = lambda: [  # noqa: E731
        e["id"] for e in desk("mq", "list", "--rig", "people") if e["phase"] == "awaiting_human"
    ]
    until(lambda: len(asking()) == 2)
    of_bead = next(entry for entry in asking() if entry != waits)
    desk("mq", "request-changes", of_bead, "--body", "more of it")
    until(lambda: len(list(upgrade.worktrees.glob("*/draft.txt"))) == 3)
    beads = {run["id"]: run["bead"] for run in desk("runs", "list")}
    runs = {path.parent.name: beads.pop(path.parent.name) for path in upgrade.worktrees.glob("*/draft.txt")}
    (gate,) = beads
    return Work(desk, goes_on, killed, reworked, waits, of_bead, slow, convoy, gating, runs, gate)


def go_on(upgrade: Upgrade) -> Desk:
    """Start this code, and name in the config what agents are to see in their boxes."""
    desk = upgrade.start(ROOT)
    shown = json.dumps([sys.base_prefix, sys.prefix, str(AGENTS), str(upgrade.release.parent)])
    new = upgrade.toml("new.toml", config(upgrade) + NEW.replace("{shown}", shown))
    desk("town", "config", "main", "--config", new)
    return desk


def is_tidy(upgrade: Upgrade) -> bool:
    """No worktree and no workspace is left."""
    places = (upgrade.worktrees, upgrade.home / "workspaces")
    return not any(list(place.iterdir()) for place in places if place.is_dir())


def kept(upgrade: Upgrade, run: str) -> tuple[list[str], str]:
    """The commits of a run that are kept in its mirror, and what it had not committed."""
    for mirror in map(str, (upgrade.home / "repos").glob("*.git")):
        if upgrade.git("-C", mirror, "for-each-ref", f"refs/gastown/runs/{run}"):
            commits = upgrade.git("-C", mirror, "log", "--format=%H", f"refs/gastown/runs/{run}").splitlines()
            return commits, upgrade.git("-C", mirror, "show", f"refs/gastown/salvage/{run}:draft.txt")
    return [], ""


@pytest.mark.long
def test_an_installation_at_work_upgrades_and_loses_nothing(upgrade: Upgrade) -> None:
    work = at_work(upgrade)
    until(lambda: work.desk("mq", "show", work.waits)["phase"] == "awaiting_human")
    shims = {run: upgrade.shim(run) for run in (*work.runs, work.gate)}
    victim, survivor = work.of(work.killed), work.of(work.goes_on)
    first = upgrade.git("rev-parse", "HEAD", cwd=upgrade.worktrees / victim)

    # the upgrade; meanwhile one shim is killed, and an agent has left its own words in the mirror's config
    upgrade.stop()
    os.kill(shims.pop(victim), signal.SIGKILL)
    elsewhere = upgrade.root / "elsewhere.git"
    upgrade.git("init", "-q", "--bare", "-b", "main", str(elsewhere))
    poison = (f"url.{elsewhere}.insteadOf", str(upgrade.root / "proj.git"))
    upgrade.git("config", *poison, cwd=upgrade.worktrees / survivor)
    (mirror,) = (p for p in (upgrade.home / "repos").glob("*.git") if "insteadOf" in (p / "config").read_text())
    desk = go_on(upgrade)
    assert "insteadOf" not in (mirror / "config").read_text()
    assert {run: upgrade.shim(run) for run in shims if forkserver.alive(shims[run])} == shims
    assert desk("mq", "show", work.waits)["phase"] == "awaiting_human"
    assert desk("mq", "show", work.slow)["phase"] == "gating"

    # what waited goes on, in what it was begun in
    upgrade.release.touch()
    (work.gating / "go").touch()
    desk("wait", "--mq", work.slow, "--timeout", "90")
    desk("wait", "--bead", work.goes_on, "--timeout", "90")
    until(lambda: desk("mq", "show", work.of_bead)["phase"] == "awaiting_human")
    for entry in (work.waits, work.of_bead):
        desk("mq", "approve", entry)
    for bead in (work.reworked, work.killed):
        desk("wait", "--bead", bead, "--timeout", "120")
    ended = {run["id"]: run for run in desk("runs", "list", "--all")}
    assert {(ended[run]["outcome"], ended[run]["attempt"]) for run in shims} == {("done", 1)}, ended
    assert {"slow", f"{survivor}.first", f"{survivor}.second"} <= set(upgrade.files("proj"))
    rework = work.of(work.reworked)
    assert {"waits", f"{rework}.first", f"{rework}.second"} <= set(upgrade.files("people"))
    assert not upgrade.git("-C", str(elsewhere), "for-each-ref")

    # the killed one's work is kept, and its next attempt ran in the sandbox
    assert ended[victim]["outcome"] == "lost"
    (again,) = (run for run in ended.values() if run["bead"] == work.killed and run["id"] != victim)
    assert (again["attempt"], again["outcome"], again["sandbox"]) == (2, "done", "bubblewrap")
    until(lambda: is_tidy(upgrade))
    commits, draft = kept(upgrade, victim)
    assert first in commits and draft == "not committed yet"

    # new work: a bead of its own, and the convoy that was staged; gates replace the old slots
    fresh = desk("sling", "proj", "--title", "At once")["id"]
    desk("convoy", "start", work.convoy)
    desk("wait", "--bead", fresh, "--timeout", "120")
    desk("wait", "--convoy", work.convoy, "--timeout", "120")
    new = [run for run in desk("runs", "list", "--all") if run["id"] not in ended]
    assert {run["sandbox"] for run in new} == {"bubblewrap"}
    until(lambda: is_tidy(upgrade))
    assert (work.gating / "tree").is_dir() and not (work.gating / ".git").exists()
    assert [row for row in desk("doctor") if row["state"] != "ok" and row["check"] != "first password"] == []


@pytest.mark.slow
def test_after_a_power_cut_the_next_release_keeps_what_the_last_one_had_made(upgrade: Upgrade) -> None:
    """Nothing of the last release is alive when this code starts: all its runs are lost, and none of their work."""
    work = at_work(upgrade)
    heads = {run: upgrade.git("rev-parse", "HEAD", cwd=upgrade.worktrees / run) for run in work.runs}
    upgrade.pull_the_plug()
    (upgrade.worktrees / work.of(work.goes_on) / ".git").unlink()  # and it took a file along
    desk = go_on(upgrade)
    upgrade.release.touch()
    until(lambda: work.gate in {r["id"] for r in desk("runs", "list", "--all") if r["state"] == "ended"}, 150)
    until(lambda: (found := list((upgrade.home / "gates").glob("*/*/tree/slow"))) and _touch(found[0]), 90)
    desk("wait", "--mq", work.slow, "--timeout", "90")
    for bead in (work.goes_on, work.killed):
        desk("wait", "--bead", bead, "--timeout", "150")
    until(lambda: desk("mq", "show", work.of_bead)["phase"] == "awaiting_human", 150)
    for entry in (work.waits, work.of_bead):
        desk("mq", "approve", entry)
    desk("wait", "--bead", work.reworked, "--timeout", "120")
    until(lambda: is_tidy(upgrade))
    ended = {run["id"]: run for run in desk("runs", "list", "--all")}
    for run, head in heads.items():
        assert ended[run]["outcome"] == "lost"
        commits, draft = kept(upgrade, run)
        assert head in commits and draft == "not committed yet", run
    assert "waits" in upgrade.files("people") and "slow" in upgrade.files("proj")
    desk("convoy", "start", work.convoy)
    desk("wait", "--convoy", work.convoy, "--timeout", "120")
    assert [row for row in desk("doctor") if row["state"] != "ok" and row["check"] != "first password"] == []


def _touch(slow: Path) -> bool:
    """Let the gate go on that waits beside this file."""
    (slow.parent / "go").touch()
    return True
