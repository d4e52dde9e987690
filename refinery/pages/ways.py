"""The ways on: the commands by which a person lets go on what waits for one, or has ended."""

from __future__ import annotations

from beads.lifecycle import BeadStatus
from beads.models import Bead
from refinery.core import reasons
from refinery.core.states import EntryKind, EntryState
from refinery.models import ReviewEntry


def again(entry: ReviewEntry) -> str:
    """The one command that lets an entry go on that is held or has ended; empty where there is nothing to do."""
    words = {"id": entry.pk, "rig": entry.rig.slug, "branch": entry.branch, "target": entry.target}
    if entry.kind == EntryKind.CHECK and (entry.held or entry.state != EntryState.ACTIVE):
        return f"rig check {entry.rig.slug}"
    if entry.state == EntryState.ACTIVE:
        if entry.held:
            return f"mq retry {entry.pk}"
        return ""
    return reasons.re_entry(entry.reason, **words, convoy=entry.convoy_id or "", source=entry.source_id or entry.pk)


def ways_on(bead: Bead) -> list[tuple[str, str]]:
    """What a person may do about a bead that waits for one: (what it does, the command)."""
    if bead.type != "issue":
        return []
    if bead.status == BeadStatus.FAILED:
        confirm = []
        if bead.resolution == "nothing_changed":
            confirm = [("if nothing was needed", f"bead confirm {bead.pk}")]
        return [*confirm, ("to let it be tried again", f"bead retry {bead.pk}")]
    if bead.hold:
        return [("to let it go on", f"bead retry {bead.pk}"), ("with a hint", f"bead hint {bead.pk} TEXT")]
    if bead.unreleased and bead.status not in (BeadStatus.CLOSED, BeadStatus.FAILED) and bead.convoy_id is None:
        return [("to let an agent do it", f"bead release {bead.pk}"), ("else", f"bead cancel {bead.pk}")]
    return []
