"""The only writer of Candidate: what came of each build of an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beads import prune
from refinery.models import Candidate
from refinery.store import entries


def record(entry_id: str, build_no: int, result: Mapping[str, Any]) -> bool:
    """Observation: what build `build_no` gave. The first answer counts; False when there is one."""
    if result["result"] == "built":
        entries.check_built(entry_id, build_no, result["head"])
    made = Candidate.objects.bulk_create(
        [
            Candidate(
                entry_id=entry_id,
                build_no=build_no,
                result=result["result"],
                head_sha=result["head"],
                base_sha=result.get("base", ""),
                on_id=result.get("on"),
                sha=result.get("sha", ""),
                tree_sha=result.get("tree", ""),
                seal_sha=result.get("seal", ""),
                files=list(result.get("files", [])),
                error=result.get("error", ""),
                untouched=list(result.get("untouched", [])),
            )
        ],
        ignore_conflicts=True,
    )
    return bool(made and made[0].pk)


def forget(keys: Sequence[str]) -> int:
    """Remove the candidates of these entries: they have been archived."""
    return prune.delete(Candidate.objects.filter(entry__any=keys))
