"""Asking git what lies ahead of a lane's queue: who stands on whom, and who would conflict with whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.runtime.gitcmd import GitFailed
from refinery.core import effects, stacks
from refinery.executor.registry import Result, does
from refinery.git.mirror import repo_of
from refinery.git.repo import Repo
from refinery.models import Forecast, ReviewEntry


@does(effects.Foresee)
def foresee(work: effects.Foresee) -> Result | None:
    """Who in a lane's queue stands on whom, and who would conflict with whom. None when it was asked anew."""
    found = Forecast.objects.select_related("rig").filter(pk=work.forecast, number=work.number).first()
    if found is None:
        return None
    active = ReviewEntry.objects.active().filter(rig=found.rig, target=found.target)
    branches = dict(active.values_list("head_sha", "branch"))
    return "lane.foreseen", str(found.pk), look(repo_of(found.rig), found, branches, stacks.PAIRED)


def look(repo: Repo, forecast: Forecast, branches: Mapping[str, str], most: int) -> dict[str, Any]:
    """Ask git: the answer to the forecast's question. `branches`: head → the branch it was on. The first `most` heads
    are merged in pairs; what was found on the same base before is not merged again. A head that the remote no longer
    has is passed over: building it will say so."""
    rig = forecast.rig
    base = repo.fetch_branch(rig.remote_url, forecast.target)
    there = [head for head in forecast.asked if _has(repo, rig.remote_url, head, branches.get(head, ""))]
    stacked = repo.stacked(base, there)
    known: frozenset[str] = frozenset()
    if forecast.base == base:
        known = frozenset(forecast.paired)
    old = []
    if known:
        old = [c for c in forecast.clashes if {c["a"], c["b"]} - {""} <= set(there)]
    paired = there[:most]
    apart = {frozenset(pair) for pair in stacked}
    found = [{"a": a, "b": b, "files": list(files[:20])} for a, b, files in repo.clashes(base, paired, apart, known)]
    return {
        "number": forecast.number,
        "base": base,
        "heads": list(forecast.asked),
        "paired": paired,
        "stacks": [list(pair) for pair in stacked],
        "clashes": [*old, *found],
    }


def _has(repo: Repo, url: str, head: str, branch: str) -> bool:
    """Fetch a head; False when the remote no longer has it."""
    try:
        repo.fetch_sha(url, head, branch)
    except GitFailed as error:
        if error.kind not in ("missing_ref", "bad_object", "other"):
            raise
        return False
    return True
