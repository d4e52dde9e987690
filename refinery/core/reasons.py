"""The closed sets of reasons: why an entry left the queue, and why one waits for a person. Pure.

Each says how it comes back in one step.
"""

from __future__ import annotations

from enum import StrEnum


class Exit(StrEnum):
    """Why an entry has ended."""

    MERGED = "merged"
    GATES_SOUND = "gates_sound"
    ALREADY_MERGED = "already_merged"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    GATES_FAILED = "gates_failed"
    CHANGES_REQUESTED = "changes_requested"
    CONFLICT = "conflict"
    UNFIT = "unfit"
    REWORK_FAILED = "rework_failed"
    BLOCKER_FAILED = "blocker_failed"
    STACKED_ON_FAILED = "stacked_on_failed"
    NOTHING_TO_LAND = "nothing_to_land"
    NOTHING_CHANGED = "nothing_changed"


class Held(StrEnum):
    """Why an active entry waits for a person; see `way_on`. `mq retry` always lets it go on."""

    GATE_ERROR = "gate_error"
    GATES_BROKEN = "gates_broken"
    BUILD_ERROR = "build_error"
    CONFLICT = "conflict"
    PUSH_REFUSED = "push_refused"
    PUSH_RETRIES = "push_retries"
    REVIEW_GAVE_UP = "review_gave_up"
    REWORK_LIMIT = "rework_limit"
    STUCK = "stuck"  # a decision was lost time and again
    NOTHING_COMMITTED = "nothing_committed"


_MENDED = "When it is mended: gastown mq retry {id}"
_AGAIN = "To ask for another round in your own words: gastown mq request-changes {id} --body TEXT"
_WAYS_ON: dict[Held, str] = {
    Held.REWORK_LIMIT: f"{_AGAIN}. To let the agents go on: gastown mq retry {{id}}",
    Held.NOTHING_COMMITTED: (
        f"{_AGAIN}. If its author is right: gastown mq approve {{id}}. "
        "To let everything be tried again: gastown mq retry {id}"
    ),
}
_RETRY = "mq retry {id}"
_SUBMIT = "mq submit {rig} --branch {branch} --target {target}"
RE_ENTRY: dict[Exit, str] = {
    Exit.MERGED: "",
    Exit.GATES_SOUND: "rig check {rig}",
    Exit.ALREADY_MERGED: "",
    Exit.SUPERSEDED: _SUBMIT,
    Exit.REJECTED: _RETRY,
    Exit.CANCELLED: _SUBMIT,
    Exit.GATES_FAILED: _RETRY,
    Exit.CHANGES_REQUESTED: _SUBMIT,
    Exit.CONFLICT: _RETRY,
    Exit.UNFIT: _SUBMIT,
    Exit.REWORK_FAILED: _RETRY,
    Exit.BLOCKER_FAILED: _RETRY,
    Exit.STACKED_ON_FAILED: _RETRY,
    Exit.NOTHING_TO_LAND: "convoy retry {convoy}",
    Exit.NOTHING_CHANGED: "bead confirm {source}",
}


def re_entry(reason: str, **words: str) -> str:
    """The one command that brings an ended entry's change back; empty when it is on the target.

    `words`: id, rig, branch, target, convoy, source.
    """
    return RE_ENTRY[Exit(reason)].format(**words) if reason in set(Exit) else _RETRY.format(**words)


def way_on(held: str, key: str) -> str:
    """The sentence that says how an entry that is held goes on."""
    return (_WAYS_ON.get(Held(held), _MENDED) if held in set(Held) else _MENDED).format(id=key)
