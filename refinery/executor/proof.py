"""Whether git shows a change on its target: asked where a candidate turns out to bring nothing new.

A branch that an agent has only moved along, or whose commits cancel out, is contained in its target as well as one that
has landed. Closing its bead for that would call work merged that nobody did.
"""

from __future__ import annotations

from agents.models import Run
from agents.runtime.names import mail_of
from refinery.git.repo import AlreadyMerged, NothingToMerge, Repo
from refinery.models import ReviewEntry


def is_on_target(repo: Repo, entry: ReviewEntry, found: AlreadyMerged | NothingToMerge) -> bool:
    """True when what `found` contains is this entry's own change. What people submit is taken at their word.

    Of an agent's run: a commit that it made itself (its committer is the run's agent) is contained, or the target holds
    the very content that its commits bring.
    """
    run = Run.objects.select_related("agent").filter(bead=entry.source, head_sha=found.head).exclude(work="").last()
    if entry.source is None or run is None or run.agent is None:
        return True
    if isinstance(found, NothingToMerge):
        base = repo.merge_base(found.base, found.head)
        return base is not None and bool(repo.touched(base, found.head))
    return mail_of(run.agent.name) in repo.committers(run.start_sha, found.head)
