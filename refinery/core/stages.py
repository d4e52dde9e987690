"""The stages of a review entry, and the people's words for them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CONFLICT_LIMIT = 10
HOST_FAULTS_FREE = 3
GATES_TRIES = HOST_FAULTS_FREE + 2
FIRST = -1  # the priority of what a person sent to the front of the train


class Stage(StrEnum):
    """Where an active entry stands. Exactly one holds; rules match on it, `phase` names it for people."""

    BLOCKED = "blocked"
    BEHIND = "behind"
    HELD = "held"
    UNPROVEN = "unproven"
    UNBUILT = "unbuilt"
    BUILDING = "building"
    COUPLING = "coupling"
    STALE = "stale"
    UNSETTLED = "unsettled"
    NOTHING = "nothing"
    CONFLICT = "conflict"
    UNFIT = "unfit"
    BUILD_ERROR = "build_error"
    NEEDS_GATES = "needs_gates"
    GATING = "gating"
    BATCHED = "batched"
    GATE_ERROR = "gate_error"
    GATE_FAILED = "gate_failed"
    TRIAGE = "triage"
    CHECKING = "checking"
    EXCUSED = "excused"
    CHANGES_REQUESTED = "changes_requested"
    NEEDS_REVIEW = "needs_review"
    REVIEWING = "reviewing"
    REVIEWER_ASKS = "reviewer_asks"
    NO_REVIEWER = "no_reviewer"
    NEEDS_APPROVAL = "needs_approval"
    MERGE_DELAY = "merge_delay"
    HOST_UNKNOWN = "host_unknown"
    GREEN = "green"
    LANDING = "landing"
    LANDED = "landed"
    TARGET_MOVED = "target_moved"
    HEAD_MOVED = "head_moved"
    PUSH_REFUSED = "push_refused"


@dataclass(frozen=True, slots=True)
class Standing:
    """An entry's stage with one sentence that says why."""

    stage: Stage
    why: str


WAITS_FOR_PERSON = frozenset(
    {Stage.HELD, Stage.EXCUSED, Stage.REVIEWER_ASKS, Stage.NO_REVIEWER, Stage.NEEDS_APPROVAL, Stage.MERGE_DELAY}
)
# where a person is asked about the entry itself, which is not so while it waits for a check of the target
ASKS_PERSON = WAITS_FOR_PERSON - {Stage.EXCUSED}
_LANDS = frozenset({Stage.GREEN, Stage.LANDING, Stage.LANDED, Stage.TARGET_MOVED, Stage.HEAD_MOVED, Stage.PUSH_REFUSED})
_REVIEWS = frozenset({Stage.CHANGES_REQUESTED, Stage.NEEDS_REVIEW, Stage.REVIEWING})


def phase(stage: Stage, *, admitted: bool) -> str:
    """The people's word for a stage: blocked, queued, gating, reviewing, awaiting_human or landing."""
    if stage == Stage.BLOCKED:
        return "blocked"
    if stage in WAITS_FOR_PERSON:
        return "awaiting_human"
    if stage == Stage.TRIAGE:
        return "gating"
    if not admitted:
        return "queued"
    if stage in _LANDS:
        return "landing"
    if stage in _REVIEWS:
        return "reviewing"
    return "gating"
