"""What a review entry, its candidates, gates, verdicts and landings can be: each state named once. Pure.

Statuses of beads are in `beads.lifecycle`, those of runs in `agents.lifecycle`.
"""

from __future__ import annotations

from enum import StrEnum


class EntryKind(StrEnum):
    """What a review entry offers."""

    CHANGE = "change"
    LANDING = "landing"
    CHECK = "check"


class EntryState(StrEnum):
    """Where a review entry stands. All but `active` are final, but for a person's explicit retry of a failed one."""

    ACTIVE = "active"
    MERGED = "merged"
    CHECKED = "checked"
    FAILED = "failed"


class BuildResult(StrEnum):
    """What one build of an entry gave.

    `unchanged`: there is nothing of its own in it. `refused`: the change is unfit. `error`: it could not be built.
    """

    BUILT = "built"
    CONFLICT = "conflict"
    ALREADY_MERGED = "already_merged"
    EMPTY = "empty"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    ERROR = "error"


class GateOutcome(StrEnum):
    """How a gate ended on one tree. `error`: it could not be run (127, a signal, a time-out, a broken host)."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    ERROR = "error"


class Judgement(StrEnum):
    """What a reviewer, agent or person, says of one head. `withdraw`: what a person said before is past."""

    APPROVE = "approve"
    REQUEST_CHANGES = "request_changes"
    WITHDRAW = "withdraw"


class LandingState(StrEnum):
    """Where the push of a candidate stands. `moved`: the target had moved. `head_moved`: the change's branch had."""

    INTENT = "intent"
    PUSHING = "pushing"
    LANDED = "landed"
    MOVED = "moved"
    HEAD_MOVED = "head_moved"
    REFUSED = "refused"
    ABANDONED = "abandoned"


OPEN_LANDING = (LandingState.INTENT, LandingState.PUSHING)
