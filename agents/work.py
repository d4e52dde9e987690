"""What came of an agent's run: told by its shim, checked against what has arrived in the mirror.

`Run.work`: `new` (commits that nobody had before), `nothing` (none), `uncommitted` (none, but changed files, which are
saved), `refused` (what it made was not let in), `unsaved` (it could not be taken in: the workspace is kept, and tried
again), or empty: a run of an older release, or one that makes no commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from agents.models import Run
from agents.runtime import door, gitcmd, harvest, mirrors
from agents.runtime.workspace import Peek, Workspace, peek
from beads import inbox


def mirror_of(rig_id: int) -> Path:
    """The rig's bare mirror."""
    return Path(settings.GASTOWN_HOME) / "repos" / f"{rig_id}.git"


def workspace_of(run: Run) -> Workspace:
    """Where the run's workspace is, or was."""
    return Workspace(Path(settings.GASTOWN_HOME) / "workspaces" / run.pk, mirror_of(run.rig_id))


def look(run: Run) -> Peek | None:
    """What the run's workspace shows right now; None when it is not here, or cannot be told."""
    return peek(workspace_of(run).tree)


def settle(run: Run, told: Mapping[str, Any]) -> dict[str, Any]:
    """The exit report with the head that counts: what arrived at the door, never what is only said.

    The branch that `gt_done` named comes first, then the one that is checked out; where that has nothing new, the one
    other branch that has.
    """
    report = dict(told)
    mirror = mirror_of(run.rig_id)
    if not run.branch:
        return report | {"published": True, "work": report.get("work") or ""}
    if not mirror.is_dir():
        return report | {"head_sha": "", "published": False}
    arrived = door.head_of(mirror, run.pk)
    if report.get("work") is None:  # a shim of an older release pushes by itself
        pushed = bool(report.get("published")) and arrived == report.get("head_sha")
        return report | {"work": "", "published": pushed, "on_remote": pushed}
    branches = {name: sha for name, sha in report["branches"].items() if _arrived(mirror, run.pk, name, sha)}
    wanted = _named(run)
    name = ""
    if wanted in branches:
        name = wanted
    if not name and report["work"] in ("nothing", "uncommitted") and branches and wanted in ("", run.branch):
        if len(branches) > 1:
            names = ", ".join(sorted(branches))
            text = f"its commits are on several branches ({names}), and gt_done named none"
            return report | {"head_sha": arrived, "published": bool(arrived), "work": "refused", "work_text": text}
        name = next(iter(branches))
    if name:
        arrived = branches[name]
        mirrors.pin(mirror, f"{harvest.RUNS}/{run.pk}", arrived)
        report |= {"work": "new", "work_text": f"taken from branch {name}"}
    return report | {"head_sha": arrived, "published": bool(arrived) and report["work"] != "refused"}


def _arrived(mirror: Path, run_id: str, name: str, sha: str) -> bool:
    """True when this branch of the run is in the mirror with exactly this commit."""
    ref = f"{harvest.BRANCHES}/{run_id}/{gitcmd.check_branch(name)}"
    return mirrors.resolve(mirror, ref) == sha


def _named(run: Run) -> str:
    """The branch that `gt_done` named, or an empty string."""
    fact = inbox.payload_of(f"result:{run.pk}") or {}
    return str(fact.get("branch") or "")
