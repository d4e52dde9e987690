"""The runner: picks queued runs, prepares a worktree for each, and starts its shim.

A slow clone or fetch delays its own run only. Whatever goes wrong before the shim is started is reported as the
host's fault and costs the bead no attempt. After the start the runner is not needed: shims outlive it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from agents import access, leftovers, runs, sessions, specs, work
from agents.leftovers import CLEAN_SECONDS, MARK, Leftovers
from agents.lifecycle import RunKind
from agents.models import Run
from agents.runtime import (
    crashpoints,
    forkserver,
    gitcmd,
    gitdirs,
    mirrors,
    modules,
    processes,
    sandbox,
    trees,
    workspace,
)
from agents.runtime import sessions as kept_sessions
from agents.runtime.crashpoints import crashpoint
from agents.runtime.forkserver import Child, ForkServer
from agents.runtime.names import mail_of
from agents.sessions import Going
from beads import channels, ops, outages, room
from beads import config as configs
from beads.errors import Disposition, GastownError

log = structlog.get_logger(__name__)


class Runner:
    """One runner process."""

    def __init__(self, commands: Sequence[Mapping[str, Any]] = ()) -> None:
        """`commands`: of `gt`, see `agents.api.commands`; without any there is no `gt`."""
        self.commands = commands
        self.home = Path(settings.GASTOWN_HOME)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.slots = int(os.environ.get("GASTOWN_RUNNER_SLOTS", "16"))
        self.shims: dict[str, Child] = {}
        self.forks = ForkServer(_clean_environment())
        self.starting: dict[str, int] = {}  # run → its rig
        self.pool = ThreadPoolExecutor(max_workers=self.slots, thread_name_prefix="start")
        self.stopping = False
        self.leftovers = Leftovers(self.home)
        self._cleaned = 0.0
        self._told = 0.0  # when it last said that it is alive, and what it prepares

    def serve(self) -> None:
        """Loop until `stopping`; a lost database is waited for."""
        self._own_mirrors()
        self.forks.ready()
        channels.keep_on("runner", self._serve, lambda: self.stopping)
        self.pool.shutdown(wait=True)

    def _serve(self) -> None:
        with psycopg.connect(**channels.listen_parameters(), autocommit=True) as listener:
            listener.execute(f"listen {channels.RUN_CHANNEL}")
            log.info("runner.ready", slots=self.slots)
            while not self.stopping:
                self._look()
                if time.monotonic() - self._cleaned > CLEAN_SECONDS:
                    self._cleaned = time.monotonic()
                    self.leftovers.clean_aside()
                self._wait(listener)

    def _own_mirrors(self) -> None:
        """What runs of an older release have written into the mirrors' config must not outlive the upgrade: their shims
        are still to push from there, and the mirror of a quiet rig is not looked at for long."""
        for mirror in (self.home / "repos").glob("*.git"):
            if mirrors.own_config(mirror):
                log.warning("mirror.mended", path=str(mirror))

    def _wait(self, listener: psycopg.Connection[Any]) -> None:
        """Until there is news, or for one second; pokes are passed on to their shims."""
        news = list(listener.notifies(timeout=1.0, stop_after=1)) + list(listener.notifies(timeout=0))
        for note in news:
            if note.payload.startswith("poke "):
                self.poke(note.payload.removeprefix("poke "))

    def _look(self) -> None:
        """Reap, beat, and start what is queued."""
        for run_id, shim in list(self.shims.items()):
            code = shim.poll()
            if code is not None:
                del self.shims[run_id]
                if code != 0:
                    self.pool.submit(self._bury, run_id, code)
        if time.monotonic() > self._told + 1:
            self._told = time.monotonic()
            ops.beat("runner", self.name)
            runs.preparing(list(self.starting), timezone.now())
        while len(self.shims) + len(self.starting) < self.slots and not self.stopping and not room.lacking():
            picked = runs.pick(self.name, timezone.now(), self._waiting())
            if picked is None:
                return
            run, secret = picked
            crashpoint("run.picked")
            self.starting[run.pk] = run.rig_id
            self.pool.submit(self._start_in_thread, run, secret)

    def _waiting(self) -> set[int]:
        """Rigs of which no run is started now: their share of the starts is taken, so that a remote that keeps its own
        runs waiting keeps nobody else's."""
        most = max(self.slots // 4, 1)
        return {rig for rig, count in Counter(list(self.starting.values())).items() if count >= most}

    def _start_in_thread(self, run: Run, secret: str) -> None:
        try:
            self.start(run, secret)
        except Exception as error:
            fault = fault_of(error)
            log.warning("run.start_failed", run=run.pk, fault=fault, error=str(error))
            message = str(error) if isinstance(error, GastownError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OperationalError):
                if isinstance(error, gitcmd.GitFailed) and fault:
                    access.note_outage(run.rig, error, timezone.now())
                runs.start_failed(run.pk, message, fault)
        finally:
            self.starting.pop(run.pk, None)
            connection.close()

    def _bury(self, run_id: str, code: int) -> None:
        """A shim of ours that did not end well is dead for certain: its run need not wait for the lease.

        Nothing of it may go on, its work is kept, and the run's end is noted. A run that had reported its result is
        done all the same: the publish effect pushes what the shim could not.
        """
        try:
            how = f"its shim ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
            if code == forkserver.UNKNOWN:
                how = "its shim ended; how is not known"
            processes.kill_marked(MARK, run_id)
            runs.start_failed(run_id, how)
            run = Run.objects.select_related("rig").get(pk=run_id)
            report: dict[str, Any] = {"error": how, **self.leftovers.take_in(run)}
            with contextlib.suppress(GastownError):  # it was not claimed, or it has ended
                runs.record_exit(run_id, work.settle(run, report) if "work" in report else report, timezone.now())
            log.warning("shim.died", run=run_id, how=how)
        except Exception:
            log.exception("shim.unburied", run=run_id)  # its lease ends it
        finally:
            connection.close()

    # -- one run --

    def start(self, run: Run, secret: str) -> None:
        """Prepare the run's workspace and start its shim. Raises on any failure, with nothing left behind."""
        run_dir = self.home / "runs" / run.pk
        run_dir.mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        repo = self._repository(run)
        slot, space, going = None, None, None
        try:
            if run.kind == RunKind.GATES:
                start_sha = run.start_sha
                tree, slot = self._gates_worktree(run, repo)
                beside = [Path(path) for path in trees.borrowed(tree)]
            else:
                space = work.workspace_of(run)
                start_sha, beside = self._workspace(run, repo, space)
                tree, going = space.tree, self._session(run, space)
            made = specs.Prepared(run_dir, tree, (repo, *beside), start_sha, self.commands, going)
            spec = specs.spec_of(run, made, secret)
            if space is not None:
                spec["workspace"] = str(space.root)
            seen = {"start_sha": start_sha, "log_path": str(run_dir / "log"), "sandbox": spec["sandbox"]}
            runs.prepared(run.pk, **seen, resumed=going.name if going else "")
            crashpoint("run.prepared")
            self._spawn(run, spec, run_dir, slot)
            crashpoint("run.spawned")
        except BaseException:
            if space is not None:
                workspace.released(space)
                workspace.discard(space)
            raise
        finally:
            if slot is not None:
                os.close(slot)  # the shim holds it from here on

    def _workspace(self, run: Run, repo: Path, space: workspace.Workspace) -> tuple[str, list[Path]]:
        """Make the run's workspace; returns the commit that it starts from, and the repositories beside the mirror
        whose objects it borrows."""
        start = self._start_commit(run, repo)
        target: str | None = start
        if run.start_sha:
            target = mirrors.known_branch(repo, run.target)
        heads = {run.target: target or self._fetch(run, repo, run.target)}
        default = run.rig.default_branch
        if default not in heads and (known := mirrors.known_branch(repo, default)):
            heads[default] = known
        name = "gastown"
        if run.agent:
            name = run.agent.name
        told = [(run.brief.get("conflict") or {}).get("base_sha"), (run.brief.get("candidate") or {}).get("base")]
        saved = None
        if ref := run.brief.get("saved"):
            saved = mirrors.resolve(repo, str(ref))
        if not saved:  # its agent is not told of what is not there
            run.brief = {**run.brief, "saved": ""}
        plan = workspace.Plan(
            start,
            run.target,
            heads,
            branch=run.branch,
            agent=name,
            mail=mail_of(name),
            also=tuple(sha for sha in told if sha and mirrors.has_commit(repo, str(sha))),
            saved=saved or "",
        )
        workspace.make(space, plan)
        git = configs.usable(run.rig.town.config, run.rig.config)[0].git
        view = gitdirs.View(repo, start, heads[run.target], run.target, run.rig.remote_url, opened=_opened(run, git))
        modules_home = self.home / "repos" / "modules"
        return start, modules.into_workspace(space.tree, view, modules_home, submodules=git.submodules, lfs=git.lfs)

    def _session(self, run: Run, space: workspace.Workspace) -> Going | None:
        """Put the session that the run goes on with into its HOME. One that cannot be brought there is none."""
        going = sessions.going(run)
        if going is None or not going.name:
            return going
        if kept_sessions.bring(going.place, space.home, going.parts):
            return going
        return replace(going, name="", because="what was kept of its session cannot be read")

    def _repository(self, run: Run) -> Path:
        """The rig's bare mirror, made once."""
        path = work.mirror_of(run.rig_id)
        mirrors.ensure_bare(path)
        return path

    def _start_commit(self, run: Run, repo: Path) -> str:
        """The commit to start from: the one that was decided, or the target's present head."""
        if not run.start_sha:
            return self._fetch(run, repo, run.target)
        if not mirrors.has_commit(repo, run.start_sha):
            try:
                self._fetch(run, repo, run.start_sha)
            except gitcmd.GitFailed:
                self._fetch(run, repo, str(run.brief.get("fetch_branch") or run.target))
        return run.start_sha

    def _fetch(self, run: Run, repo: Path, ref: str) -> str:
        """Fetch a branch or a commit with the rig's own credential; returns the commit."""
        try:
            found = mirrors.fetch(repo, run.rig.remote_url, ref, env=access.access_of(run.rig))
        except gitcmd.GitFailed as error:
            if error.kind != "missing_ref" or ref != run.rig.default_branch:
                raise
            raise gitcmd.GitFailed(f"the remote has no branch {ref} any more", kind="missing_target") from error
        outages.worked(run.rig)
        return found

    def _gates_worktree(self, run: Run, repo: Path) -> tuple[Path, int]:
        """A kept worktree that nobody uses: its lock is handed to the shim and dies with it."""
        pool = self.home / "gates" / str(run.rig_id)
        pool.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            lock = os.open(pool / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            try:
                tree = trees.prepare(trees.Slot(pool / str(number)), *self._view(run, repo))
            except BaseException:
                os.close(lock)
                raise
            return tree, lock
        raise RuntimeError("a thousand gate worktrees are in use")

    def _view(self, run: Run, repo: Path) -> tuple[gitdirs.View, trees.Fill | None]:
        """What gates see of the repository: the commit is fetched when the mirror has not got it."""
        base = str((run.brief.get("candidate") or {}).get("base", ""))
        git = configs.usable(run.rig.town.config, run.rig.config)[0].git
        start, opened = self._start_commit(run, repo), _opened(run, git)
        view = gitdirs.View(repo, start, base, run.target, run.rig.remote_url, opened=opened)
        home = self.home / "repos" / "modules"
        return view, modules.filler(view, home, submodules=git.submodules, lfs=git.lfs)

    def _spawn(self, run: Run, spec: dict[str, Any], run_dir: Path, slot: int | None) -> None:
        """Write the spec (0600) and start the shim."""
        path = run_dir / "spec.json"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(spec, handle)
        self.shims[run.pk] = self.forks.start(path, run_dir / "shim.log", () if slot is None else (slot,))

    def poke(self, run_id: str) -> None:
        """Let a run's shim look at once, if it is alive on this machine."""
        if (pid := leftovers.shim_of(self.home, run_id)) is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)


def _opened(run: Run, git: configs.GitConfig) -> dict[str, str]:
    """What opens the rig's remote, where something is to be fetched beside commits."""
    if git.submodules or git.lfs:
        return access.access_of(run.rig)
    return {}


def fault_of(error: Exception) -> str:
    """The kind of a start's failure; see `runs.start_failed`."""
    if isinstance(error, gitcmd.GitFailed):
        if error.kind == "other":
            return ""
        return error.kind
    if isinstance(error, sandbox.NoSandbox):
        return "sandbox"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    if isinstance(error, GastownError) and error.disposition == Disposition.PERMANENT:
        return "set_up"
    return ""


def _clean_environment() -> dict[str, str]:
    """What shims see of our environment: nothing of the server's own."""
    kept = ("GASTOWN_GIT_CONFIG", crashpoints.VARIABLE)
    ours = ("GASTOWN_", "DATABASE_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(ours)}
