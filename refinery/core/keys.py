"""The keys of outside work: the same question has the same key, so that it is asked once. Pure."""

from __future__ import annotations

import datetime as dt


def build_key(entry: str, build_no: int) -> str:
    """The key of the effect that builds a candidate."""
    return f"build:{entry}:{build_no}"


def land_key(landing: int) -> str:
    """The key of the effect that pushes a landing."""
    return f"land:{landing}"


def publish_key(run: str) -> str:
    """The key of the effect that pushes what a run's shim could not."""
    return f"publish:{run}"


def branch_key(kind: str, branch: int, asked_at: dt.datetime) -> str:
    """The key of the effect (`create_branch`, `observe_branch`) that answers the look asked for at `asked_at`."""
    return f"{kind}:{branch}:{asked_at.isoformat()}"
