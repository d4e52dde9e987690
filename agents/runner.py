"""The runner: picks queued runs, prepares a worktree for each, and starts its shim.

A slow clone or fetch delays its own run only. Whatever goes wrong before the shim is started is reported as the
host's fault and costs the bead no attempt. After the start the runner is not needed: shims outlive it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import OperationalError, close_old_connections, connection
from django.utils import timezone

from agents import boxes, dispatch, prompts
from agents.models import Run, RunKind, RunState
from agents.runtime import crashpoints, forkserver, gitcmd, limits, processes
from agents.runtime.crashpoints import crashpoint
from agents.runtime.forkserver import Child, ForkServer
from beads import ops
from beads.errors import GastownError

log = structlog.get_logger(__name__)
CLEAN_SECONDS = 15.0
MARK = "GASTOWN_RUN"  # every process of a run carries it, whatever became of its parents


class Runner:
    """One runner process."""

    def __init__(self) -> None:
        self.home = Path(settings.GASTOWN_HOME)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.slots = int(os.environ.get("GASTOWN_RUNNER_SLOTS", "16"))
        self.shims: dict[str, Child] = {}
        self.forks = ForkServer(_clean_environment())
        self.starting: set[str] = set()
        self.pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="start")
        self.stopping = False
        self._told = 0.0  # when it last said that it is alive, and what it prepares

    def serve(self) -> None:
        """Loop until `stopping`; a lost database is waited for."""
        cleaned = 0.0
        self.forks.ready()
        while not self.stopping:
            try:
                with psycopg.connect(**dispatch.listen_parameters(), autocommit=True) as listener:
                    listener.execute(f"listen {dispatch.RUN_CHANNEL}")
                    log.info("runner.ready", slots=self.slots)
                    while not self.stopping:
                        self._look()
                        if time.monotonic() - cleaned > CLEAN_SECONDS:
                            cleaned = time.monotonic()
                            self._clean()
                        self._wait(listener)
            except (psycopg.OperationalError, OperationalError) as error:
                log.warning("runner.database", error=str(error))
                close_old_connections()
                time.sleep(1)
        self.pool.shutdown(wait=True)

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
            dispatch.preparing(list(self.starting), timezone.now())
        while len(self.shims) + len(self.starting) < self.slots and not self.stopping:
            picked = dispatch.pick(self.name, timezone.now())
            if picked is None:
                return
            run, secret = picked
            crashpoint("run.picked")
            self.starting.add(run.pk)
            self.pool.submit(self._start_in_thread, run, secret)

    def _start_in_thread(self, run: Run, secret: str) -> None:
        try:
            self.start(run, secret)
        except Exception as error:
            log.warning("run.start_failed", run=run.pk, error=str(error))
            plain = isinstance(error, gitcmd.GitFailed | GastownError)
            message = str(error) if plain else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OperationalError):
                dispatch.start_failed(run.pk, message)
        finally:
            self.starting.discard(run.pk)
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
            dispatch.start_failed(run_id, how)
            report: dict[str, Any] = {"error": how}
            worktree = self.home / "worktrees" / run_id
            with contextlib.suppress(gitcmd.GitFailed, OSError):
                if worktree.is_dir():
                    report["head_sha"] = gitcmd.head_sha(worktree)
                    gitcmd.pin(worktree, f"refs/gastown/runs/{run_id}", report["head_sha"])
                    report["salvage_ref"] = gitcmd.salvage(worktree, run_id)
            with contextlib.suppress(GastownError):  # it was not claimed, or it has ended
                dispatch.record_exit(run_id, report, timezone.now())
            log.warning("shim.died", run=run_id, how=how)
        except Exception:
            log.exception("shim.unburied", run=run_id)  # its lease ends it
        finally:
            connection.close()

    # -- one run --

    def start(self, run: Run, secret: str) -> None:
        """Prepare the run's worktree and start its shim. Raises on any failure, with nothing left behind."""
        run_dir = self.home / "runs" / run.pk
        run_dir.mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        repo = self._repository(run)
        slot = None
        if run.kind == RunKind.GATES:
            start_sha = run.start_sha
            worktree, slot = self._gates_worktree(run, repo)
        else:
            start_sha = self._start_commit(run, repo)
            worktree = self.home / "worktrees" / run.pk
            gitcmd.add_worktree(repo, worktree, start_sha, run.branch)
        try:
            spec = self._spec(run, secret, run_dir, worktree, repo, start_sha)
            dispatch.prepared(run.pk, start_sha=start_sha, log_path=str(run_dir / "log"), sandbox=spec["sandbox"])
            crashpoint("run.prepared")
            self._spawn(run, spec, run_dir, slot)
            crashpoint("run.spawned")
        except BaseException:
            if run.kind != RunKind.GATES:
                gitcmd.remove_worktree(repo, worktree)
            raise
        finally:
            if slot is not None:
                os.close(slot)  # the shim holds it from here on

    def _repository(self, run: Run) -> Path:
        """The rig's bare mirror, made once."""
        path = self.home / "repos" / f"{run.rig_id}.git"
        gitcmd.ensure_bare(path)
        return path

    def _start_commit(self, run: Run, repo: Path) -> str:
        """The commit to start from: the one that was decided, or the target's present head."""
        url = run.rig.remote_url
        if not run.start_sha:
            return gitcmd.fetch(repo, url, run.target)
        if not gitcmd.has_commit(repo, run.start_sha):
            try:
                gitcmd.fetch(repo, url, run.start_sha)
            except gitcmd.GitFailed:
                gitcmd.fetch(repo, url, str(run.brief.get("fetch_branch") or run.target))
        return run.start_sha

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
            path = pool / str(number)
            try:
                if not (path.exists() and self._switched(path, run.start_sha)):
                    gitcmd.add_worktree(repo, path, self._start_commit(run, repo))
            except BaseException:
                os.close(lock)
                raise
            return path, lock
        raise RuntimeError("a thousand gate worktrees are in use")

    def _switched(self, path: Path, sha: str) -> bool:
        """True when a kept worktree is at `sha` now; it may be broken, or the commit may be elsewhere."""
        try:
            gitcmd.reset_worktree(path, sha)
        except gitcmd.GitFailed:
            return False
        return True

    def _spec(self, run: Run, secret: str, run_dir: Path, worktree: Path, repo: Path, start_sha: str) -> dict[str, Any]:
        agent = run.agent.name if run.agent else ""
        env = {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "GIT_TERMINAL_PROMPT": "0",
            "GASTOWN_TARGET": run.target,
        }
        if run.kind == RunKind.GATES:
            candidate = run.brief.get("candidate") or {}
            env |= {
                "HOME": "/tmp",  # noqa: S108 - its own inside the sandbox
                MARK: run.pk,
                "CI": "true",
                "GIT_OPTIONAL_LOCKS": "0",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "GASTOWN_CANDIDATE": start_sha,
                "GASTOWN_BASE": str(candidate.get("base", "")),
            }
            branch = ""
        else:
            prompt = run_dir / "prompt.md"
            text = prompts.render(
                run.brief, role=run.kind, agent=agent, bead=run.bead_id, branch=run.branch, target=run.target
            )
            prompt.write_text(text)
            mail = f"{agent}@gastown.invalid"
            branch = run.branch or f"gt/{agent}/{run.bead_id}/{run.pk}"
            env |= {
                "HOME": os.environ.get("HOME", "/"),
                "USER": os.environ.get("USER", ""),
                "GIT_AUTHOR_NAME": agent,
                "GIT_AUTHOR_EMAIL": mail,
                "GIT_COMMITTER_NAME": agent,
                "GIT_COMMITTER_EMAIL": mail,
                "GASTOWN_URL": settings.GASTOWN_URL,
                MARK: run.pk,
                "GASTOWN_ROLE": str(run.kind),
                "GASTOWN_AGENT": agent,
                "GASTOWN_BEAD": run.bead_id,
                "GASTOWN_BRANCH": branch,
                "GASTOWN_PROMPT_FILE": str(prompt),
            }
        gates = run.kind == RunKind.GATES
        home = None if gates else run_dir / "home"
        if home is not None:
            home.mkdir(exist_ok=True)
        box = boxes.box_for(
            run,
            workspace=worktree,
            home=home,
            read_only=[repo] if gates else [run_dir / "prompt.md"],
            writable=[] if gates else [repo],  # until a workspace has a repository of its own
        )
        return {
            "run": run.pk,
            "kind": str(run.kind),
            "url": settings.GASTOWN_URL,
            "claim_secret": secret,
            "start_seconds": run.start_seconds,
            "run_dir": str(run_dir),
            "worktree": str(worktree),
            "repo": str(repo),
            "remote_url": run.rig.remote_url,
            "branch": branch,
            "start_sha": start_sha,
            "steps": run.steps,
            "change": str((run.brief.get("candidate") or {}).get("change", "")),
            "caches": str(self.home / "caches" / str(run.rig_id)),
            "parallel": bool(run.brief.get("parallel")),
            "env": env,
            "sandbox": box["kind"],
            "box": box,
        }

    def _spawn(self, run: Run, spec: dict[str, Any], run_dir: Path, slot: int | None) -> None:
        """Write the spec (0600) and start the shim."""
        path = run_dir / "spec.json"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(spec, handle)
        self.shims[run.pk] = self.forks.start(path, run_dir / "shim.log", () if slot is None else (slot,))

    def poke(self, run_id: str) -> None:
        """Let a run's shim look at once, if it is alive on this machine."""
        if (pid := self._shim(run_id)) is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)

    # -- leftovers --

    def _clean(self) -> None:
        """What ended runs whose shim is gone left behind: processes, and worktrees (their work is kept first)."""
        limits.clean()
        for run_id in processes.marked(MARK):
            ended = Run.objects.filter(pk=run_id, state=RunState.ENDED).exists()
            if ended and self._shim(run_id) is None:
                log.warning("orphans.killed", run=run_id, count=processes.kill_marked(MARK, run_id))
        root = self.home / "worktrees"
        if not root.is_dir():
            return
        for path in root.iterdir():
            run = Run.objects.filter(pk=path.name).first()
            if (run is not None and run.state != RunState.ENDED) or self._shim(path.name) is not None:
                continue
            if run is None:
                continue  # not ours to judge: doctor shows it
            repo = self.home / "repos" / f"{run.rig_id}.git"
            with contextlib.suppress(gitcmd.GitFailed, OSError):
                gitcmd.pin(path, f"refs/gastown/runs/{run.pk}", gitcmd.head_sha(path))
                gitcmd.salvage(path, run.pk)
                gitcmd.remove_worktree(repo, path)
            log.info("worktree.removed", run=run.pk)

    def _shim(self, run_id: str) -> int | None:
        """The process of a run's shim; None when it is not alive on this machine."""
        try:
            pid = int((self.home / "runs" / run_id / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if forkserver.alive(pid) else None


def _clean_environment() -> dict[str, str]:
    """What shims see of our environment: nothing of the server's own."""
    kept = ("GASTOWN_GIT_CONFIG", crashpoints.VARIABLE)
    ours = ("GASTOWN_", "DATABASE_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(ours)}
