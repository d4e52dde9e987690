"""What came of a run's work: what it made, how it was saved, and how a person looks at that."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from django.conf import settings

from agents import work
from agents.models import Run


def run_facts(run: Run) -> dict[str, Any]:
    """What came of a run's work: what it made, how it was saved, and whether people see it on the remote."""
    return {
        "work": run.work,
        "work_text": run.work_text,
        "head_sha": run.head_sha,
        "published": run.published,
        "on_remote": run.on_remote,
        "salvage_ref": run.salvage_ref,
    }


MADE = {
    "new": "new commits",
    "nothing": "nothing: no commit that was not there before",
    "uncommitted": "changes that it did not commit",
    "refused": "commits that were not let in",
    "unsaved": "work that could not be taken in yet: its workspace is kept, and it is tried again",
}


def made(run: Run) -> str:
    """What an agent's run has made, in words; empty where it makes no commits, or none is known yet."""
    words = MADE.get(run.work, "")
    if run.work == "uncommitted" and run.work_text:
        return run.work_text
    if words and run.work_text:
        return f"{words}; {run.work_text}"
    return words


def restore(run: Run) -> str:
    """The command that shows what was saved of a run; empty where nothing was."""
    if run.salvage_ref.startswith("file:"):
        archive = Path(settings.GASTOWN_HOME) / run.salvage_ref.removeprefix("file:")
        return f"tar -tf {shlex.quote(str(archive))}"
    if run.salvage_ref:
        return f"git -C {shlex.quote(str(work.mirror_of(run.rig_id)))} show {run.salvage_ref}"
    return ""
