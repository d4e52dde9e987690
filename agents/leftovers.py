"""What ended runs whose shim is gone have left behind: processes, and workspaces, whose work is taken in first."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import structlog
from django.db import connection

from agents import boxes, programs, runs, sessions, work
from agents.lifecycle import RunState
from agents.models import Run
from agents.runtime import cgroups, forkserver, gitcmd, harvest, insides, mirrors, processes, sandbox, trash, workspace
from agents.runtime.box import Box
from beads import config as configs

log = structlog.get_logger(__name__)
CLEAN_SECONDS = 15.0
LATEST = 3600.0  # so rarely, at the end, is a workspace tried that cannot be taken in
MARK = "GASTOWN_RUN"  # every process of a run carries it, whatever became of its parents


class Leftovers:
    """Of one GASTOWN_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._cleaner: threading.Thread | None = None
        self._later: dict[str, tuple[float, float]] = {}  # run → when its workspace is tried again, and the wait after

    def clean_aside(self) -> None:
        """`clean` in a thread of its own, one at a time: taking in what a run has left may last for many minutes, as
        long as that run likes, and nobody waits for it."""
        if self._cleaner is None or not self._cleaner.is_alive():
            self._cleaner = threading.Thread(target=self._in_thread, name="clean", daemon=True)
            self._cleaner.start()

    def _in_thread(self) -> None:
        try:
            self.clean()
        except Exception:
            log.exception("runner.unclean")  # tried again
        finally:
            connection.close()

    def clean(self) -> None:
        """What ended runs whose shim is gone left behind: processes, and worktrees (their work is kept first)."""
        cgroups.clean()
        for run_id in processes.marked(MARK):
            ended = Run.objects.ended().filter(pk=run_id).exists()
            if ended and shim_of(self.home, run_id) is None:
                log.warning("orphans.killed", run=run_id, count=processes.kill_marked(MARK, run_id))
        for name in ("worktrees", "workspaces"):  # in this order: a worktree of before becomes a workspace first
            root = self.home / name
            for path in list(root.iterdir()) if root.is_dir() else ():
                run = Run.objects.select_related("rig").filter(pk=path.name).first()
                if run is None or run.state != RunState.ENDED or shim_of(self.home, path.name) is not None:
                    continue  # alive, or not ours to judge: doctor shows it
                if time.monotonic() < self._later.get(run.pk, (0.0, 0.0))[0]:
                    continue
                try:
                    if name == "workspaces":
                        self._clear(run)
                    else:
                        self._clear_worktree(run, path)
                except Exception:
                    log.exception("workspace.unremoved", run=run.pk)  # and the others go on
                if path.exists():  # once more soon, then more and more rarely
                    wait = self._later.get(run.pk, (0.0, 0.0))[1]
                    self._later[run.pk] = (time.monotonic() + wait, min(max(wait * 2, CLEAN_SECONDS), LATEST))
                else:
                    self._later.pop(run.pk, None)
                    log.info("workspace.removed", run=run.pk)
        programs.forget_old(self.home)
        trash.empty(self.home / "trash")

    def take_in(self, run: Run) -> dict[str, Any]:
        """Take in what a run without a shim has left; an empty report when there is no workspace of it."""
        space = work.workspace_of(run)
        if not run.branch or not run.start_sha or not space.tree.is_dir():
            return {}
        try:
            return harvest.take_in(space, run.pk, run.start_sha, self._inside(run, space)).report()
        except Exception as error:
            log.warning("workspace.unsaved", run=run.pk, error=str(error))
            return {"work": "unsaved", "work_text": str(error)[:1000], "branches": {}, "salvage_ref": ""}

    def _inside(self, run: Run, space: workspace.Workspace) -> insides.Inside:
        """Where git runs on what an ended run has left: a box as its shim would have made. Raises NoSandbox."""
        config = configs.usable(run.rig.town.config, run.rig.config)[0]
        found = sandbox.Status(sandbox.UNSANDBOXED) if boxes.is_off(config) else sandbox.required()
        return insides.in_box(space, Box(found.kind, found.bwrap))

    def _clear(self, run: Run) -> None:
        """Take in the work of an ended run whose shim is gone, then remove its workspace; else it is tried again."""
        space = work.workspace_of(run)
        if run.branch and run.work in ("", "unsaved"):
            found = self.take_in(run)
            if found.get("work") == "unsaved":
                return
            if found:
                runs.note_saved(run.pk, work.settle(run, found))
        sessions.keep(run, space.home)
        if workspace.released(space):
            workspace.discard(space)

    def _clear_worktree(self, run: Run, path: Path) -> None:
        """What a run of an older release has left: a worktree of the mirror, with its branch there. It becomes the tree
        of a workspace, so that no git is run in it outside a sandbox."""
        space = work.workspace_of(run)
        with contextlib.suppress(gitcmd.GitFailed, OSError):
            if run.branch and (head := mirrors.resolve(space.mirror, f"refs/heads/{run.branch}")):
                mirrors.pin(space.mirror, f"{harvest.RUNS}/{run.pk}", head)
            space.root.mkdir(parents=True, exist_ok=True)
            path.rename(space.tree)
            gitcmd.run_git(["worktree", "prune"], cwd=space.mirror, check=False)


def shim_of(home: Path, run_id: str) -> int | None:
    """The process of a run's shim; None when it is not alive on this machine."""
    try:
        pid = int((home / "runs" / run_id / "pid").read_text())
    except (OSError, ValueError):
        return None
    if forkserver.alive(pid):
        return pid
    return None
