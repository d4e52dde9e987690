"""Which files of a repository say how to work in it: named in prompts, read by the agents themselves.

They are the repository's words: never repeated in our voice, and asked of the mirror, never of a workspace.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from agents import work
from agents.models import Run
from agents.runtime.gitcmd import GitFailed, run_git

ALWAYS = "AGENTS.md"
FOR_REVIEWS = "REVIEW.md"
REVIEWS = frozenset({"review", "triage"})


def named(mirror: Path, commit: str, purpose: str) -> tuple[str, ...]:
    """The files at the root of `commit` that a run for `purpose` should read: one question to git. Raises GitFailed."""
    wanted = (FOR_REVIEWS, ALWAYS) if purpose in REVIEWS else (ALWAYS,)
    told = run_git(["ls-tree", "-z", commit, "--", *wanted], cwd=mirror).text
    rows = (row.partition("\t") for row in told.split("\0"))
    found = {name for what, _, name in rows if " blob " in what}
    return tuple(name for name in wanted if name in found)


def seen(run: Run) -> list[str]:
    """The same for a run at work; none where the mirror cannot tell."""
    mirror = work.mirror_of(run.rig_id)
    with suppress(GitFailed):
        if run.start_sha and mirror.is_dir():
            return list(named(mirror, run.start_sha, run.purpose))
    return []
