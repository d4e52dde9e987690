"""Rules for what is sent back to its author: rounds of rework, their limits, and the look at red gates before. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from beads.config import Triage
from refinery.core.actions import Action, CloseEntry, Hold, Leave, OpenRework, Ruling, StartRun, StopRun
from refinery.core.approvals import objection
from refinery.core.beadviews import RunView
from refinery.core.entryviews import EntryView
from refinery.core.gating import failing, red
from refinery.core.world import RigView

TRIAGE_LIMIT = dt.timedelta(minutes=10)
_CODES = {"gates": "gates_failed", "review": "changes_requested"}  # the exit of what nobody is there to rework


def rework(entry: EntryView, rig: RigView, cause: str, why: str) -> Ruling:
    """Send it back, unless that leads nowhere: then it waits for a person. A person's own word always makes a round."""
    asked = objection(entry)
    if rig.config.agents.polecat is None:
        ended = CloseEntry(entry.id, "failed", _CODES[cause], why)
        return f"{cause}-no-polecat", why, (OpenRework(entry.id, cause, 0), ended)
    if asked is None or not asked.pending:
        if entry.answered:
            text = nothing_committed(why, entry.answer)
            return "nothing-committed", text, (Hold(entry.id, "nothing_committed", text),)
        if cause == "gates" and _same_files(entry, rig):
            text = f"the last round changed no file: {why}. These very files had failed before"
            return "nothing-changed", text, (Hold(entry.id, "nothing_committed", text),)
        limit = rig.config.refinery.max_rework_cycles
        if entry.rework_count >= limit:
            text = f"still not right after {limit} rounds of rework: {why}"
            return "rework-limit", text, (Hold(entry.id, "rework_limit", text),)
    return "rework", why, (OpenRework(entry.id, cause, entry.rework_count + 1),)


def _same_files(entry: EntryView, rig: RigView) -> bool:
    """True when a round of rework has led to a new head of which the gates have judged all files before."""
    found = failing(entry, rig)
    return entry.rework_count > 0 and bool(found) and all(r.head not in ("", entry.head) for r in found)


def nothing_committed(why: str, answer: str) -> str:
    """What a person is told when an author was asked for changes and gave the same head back."""
    said = "its author says nothing about it"
    if answer:
        said = f'its author says: "{answer}"'
    return f"nothing was committed in the last round: {why}; {said}"


Start = Callable[[EntryView, RigView, str, str], StartRun]  # a run of the entry's refinery: for what, on which commit


def gates_failed(entry: EntryView, rig: RigView, why: str, start: Start | None) -> Ruling:
    """Red gates: where a round of rework would follow, the refinery agent looks at them first, unless it is busy
    (`start` is None): it writes the request. The entry makes room for the cars behind it at once."""
    told = rework(entry, rig, "gates", why)
    if told[0] != "rework" or not _triaged(entry, rig) or start is None or entry.candidate is None:
        return told
    look = start(entry, rig, "triage", entry.candidate.sha)
    return "triage", f"the refinery looks at it first: {why}", (look, *leave(entry))


def _triaged(entry: EntryView, rig: RigView) -> bool:
    """True when the refinery agent has yet to look at these red gates, once."""
    config = rig.config
    wanted = config.refinery.triage == Triage.AUTO and config.agents.refinery is not None
    return wanted and not entry.triages and not objection(entry)


def after_triage(entry: EntryView, rig: RigView, now: dt.datetime) -> Ruling | None:
    """What follows a look at red gates: the round of rework, with what it has found, and without when it has ended
    otherwise or takes too long. None where there was no look, or where the gates are not red any more."""
    if not entry.triages or entry.candidate is None or not (why := red(entry, rig)):
        return None
    run = entry.triages[-1]
    if run.live and now - run.created_at < TRIAGE_LIMIT:
        return "triage", f"the refinery looks at it in run {run.id}: {why}", leave(entry)
    rule, text, actions = rework(entry, rig, "gates", why)
    return rule, text, (*_stop(run), *actions)


def leave(entry: EntryView, *, innocent: bool = False) -> tuple[Leave, ...]:
    """It makes room for the cars behind it, where it is one. `innocent`: it is not to blame."""
    if not entry.admitted:
        return ()
    return (Leave(entry.id, innocent=innocent),)


def _stop(run: RunView) -> tuple[Action, ...]:
    if not run.live:
        return ()
    return (StopRun(run.id, "its look at the gates took too long"),)
