"""The only writer of towns, rigs and their config, beads, dependencies, convoys and escalations: one file for each.

Every transition is a compare-and-swap on its source status and writes its BeadEvent in the caller's transaction;
a wrong source raises `LostRace` and changes nothing. New rows are made at the door in their first status; from
then on only the tick moves a status.
"""

from __future__ import annotations

from collections.abc import Sequence

from beads.ledger.beads import (
    FILED_BEADS,
    Draft,
    Filed,
    Transition,
    block,
    create_bead,
    edit,
    find_path,
    go_on,
    hold,
    move,
    note,
    release,
    remove_beads,
    request_cancel,
    set_model,
    set_priority,
    unblock,
)
from beads.ledger.convoys import (
    ask_branch,
    branch_landed,
    branch_seen,
    clear_close_request,
    convoy_landed,
    create_convoy,
    forget_branch,
    remove_convoys,
    request_close_convoy,
    start_convoy,
)
from beads.ledger.escalations import (
    Problem,
    acknowledge,
    answer_question,
    close_escalation,
    escalate,
    remove_escalations,
    settle_escalations,
    settle_key,
    settle_keys,
)
from beads.ledger.texts import MAX_BODY, MAX_TITLE, SLUG, check_model, check_slug, check_text
from beads.ledger.towns import (
    create_rig,
    create_town,
    forget_configs,
    latest_config,
    lock_town,
    note_look,
    old_configs,
    park_rig,
    pause_town,
    resume_town,
    set_config,
    set_default_branch,
    unpark_rig,
)


def forget(keys: Sequence[str]) -> int:
    """Remove these beads with their history and sides: they have been archived (see `refinery.executor.retention`)."""
    remove_escalations(keys)
    remove_convoys(keys)
    return remove_beads(keys)


__all__ = [
    "FILED_BEADS",
    "MAX_BODY",
    "MAX_TITLE",
    "SLUG",
    "Draft",
    "Filed",
    "Problem",
    "Transition",
    "acknowledge",
    "answer_question",
    "ask_branch",
    "block",
    "branch_landed",
    "branch_seen",
    "check_model",
    "check_slug",
    "check_text",
    "clear_close_request",
    "close_escalation",
    "convoy_landed",
    "create_bead",
    "create_convoy",
    "create_rig",
    "create_town",
    "edit",
    "escalate",
    "find_path",
    "forget",
    "forget_branch",
    "forget_configs",
    "go_on",
    "hold",
    "latest_config",
    "lock_town",
    "move",
    "note",
    "note_look",
    "old_configs",
    "park_rig",
    "pause_town",
    "release",
    "request_cancel",
    "request_close_convoy",
    "resume_town",
    "set_config",
    "set_default_branch",
    "set_model",
    "set_priority",
    "settle_escalations",
    "settle_key",
    "settle_keys",
    "start_convoy",
    "unblock",
    "unpark_rig",
]
