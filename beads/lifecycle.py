"""Statuses of beads and the one table of legal transitions. Pure: no Django, no clock, no I/O.

A stored status is a decision somebody took. Everything else (blocked, ready, phase, progress) is derived
from the world in `refinery.core.world`.
"""

from __future__ import annotations

from enum import StrEnum


class BeadType(StrEnum):
    """What a row of the ledger stands for."""

    ISSUE = "issue"
    MERGE_REQUEST = "merge_request"
    CONVOY = "convoy"
    MESSAGE = "message"
    ESCALATION = "escalation"


class Purpose(StrEnum):
    """Why an issue bead exists: planned work, or work that unblocks a review entry (its `parent`)."""

    WORK = "work"
    REWORK = "rework"
    CONFLICT = "conflict"


class BeadStatus(StrEnum):
    """Where a bead stands. `closed` and `failed` are final, but for a person's explicit retry, or their word that
    nothing was needed."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    IN_REVIEW = "in_review"
    CLOSED = "closed"
    FAILED = "failed"


class Resolution(StrEnum):
    """How a final bead ended."""

    MERGED = "merged"
    DONE = "done"
    ALREADY_MERGED = "already_merged"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    GAVE_UP = "gave_up"
    NOTHING_CHANGED = "nothing_changed"


class EffectState(StrEnum):
    """Where work outside the database stands. `failed`: it gave up, and its failure was recorded as a fact."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


FINAL: frozenset[BeadStatus] = frozenset({BeadStatus.CLOSED, BeadStatus.FAILED})
LIVE: frozenset[BeadStatus] = frozenset(BeadStatus) - FINAL

_OPEN, _DOING, _REVIEW = BeadStatus.OPEN, BeadStatus.IN_PROGRESS, BeadStatus.IN_REVIEW

TRANSITIONS: dict[BeadStatus, frozenset[BeadStatus]] = {
    _OPEN: frozenset({_DOING, _REVIEW}) | FINAL,
    _DOING: frozenset({_OPEN, _REVIEW}) | FINAL,
    _REVIEW: frozenset({_OPEN, _DOING}) | FINAL,
    BeadStatus.CLOSED: frozenset(),
    BeadStatus.FAILED: frozenset({_OPEN, BeadStatus.CLOSED}),
}


LANDED = (Resolution.MERGED, Resolution.ALREADY_MERGED)  # what it has made is on its target
ACHIEVED = (*LANDED, Resolution.DONE)  # or it has made what it was for, as a task of rework does


def is_final(status: str) -> bool:
    """True when `status` is closed or failed."""
    return status in FINAL


def may_move(source: str, target: str, resolution: str = "") -> bool:
    """True when the table allows `source` to become `target`. A failure is closed only as one that needed no change."""
    if (source, target) == (BeadStatus.FAILED, BeadStatus.CLOSED) and resolution != Resolution.NOTHING_CHANGED:
        return False
    return BeadStatus(target) in TRANSITIONS[BeadStatus(source)]
