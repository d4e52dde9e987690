"""Actions on review entries: offered, given back, held, ended."""

from __future__ import annotations

import datetime as dt
from typing import Any

from agents import mail
from agents.models import Agent, Run
from beads import ledger
from beads.lifecycle import Purpose
from beads.models import Bead, Convoy, Rig, Town
from refinery import links
from refinery.core.actions import (
    Answered,
    CloseEntry,
    Hold,
    NewHead,
    OfEntries,
    OpenCheck,
    OpenConflict,
    OpenEntry,
    OpenRework,
)
from refinery.core.states import EntryKind
from refinery.core.telling import led_by, of_rework, short
from refinery.models import Candidate, ReviewEntry
from refinery.store import entries
from refinery.tick import briefs
from refinery.tick.endings import ACTOR, close_entry, hold_entry


def apply(town: Town, action: OfEntries, now: dt.datetime) -> None:
    """Carry out one of them."""
    match action:
        case OpenEntry():
            _open_entry(action)
        case OpenCheck(rig, target):
            entries.open_check(Rig.objects.select_related("town").get(pk=rig), target, ACTOR)
        case NewHead(entry, expect, head, branch, why, on_remote):
            entries.new_head(entry, expect, head, branch, on_remote=on_remote)
            ledger.note(Bead(pk=entry), "new_head", ACTOR, why, head=head, old=expect)
        case Answered(entry, head, answer):
            entries.answered(entry, head, answer)
            ledger.note(Bead(pk=entry), "answered", ACTOR, answer or "nothing was committed", head=head)
        case OpenRework(entry, cause, number):
            _open_rework(town, entry, cause, number)
        case OpenConflict(entry, candidate, files):
            _open_conflict(town, entry, candidate, files)
        case Hold(entry, code, text):
            hold_entry(town, entry, code, text, now)
        case CloseEntry():
            close_entry(town, action, now)


def _open_entry(action: OpenEntry) -> None:
    rig = Rig.objects.select_related("town").get(pk=action.rig)
    if action.convoy is not None:
        convoy = Convoy.objects.select_related("bead").get(pk=action.convoy)
        landing = entries.NewEntry(
            branch=action.branch,
            head=action.head,
            target=action.target,
            title=f"Land convoy: {convoy.bead.title}"[:300],
            author=ACTOR,
            priority=convoy.bead.priority,
            convoy=convoy,
            kind=EntryKind.LANDING,
        )
        entries.submit(rig, landing)
        return
    source = Bead.objects.select_related("convoy").get(pk=action.source)
    run = Run.objects.select_related("agent").get(pk=action.run)
    change = entries.NewEntry(
        branch=action.branch,
        head=action.head,
        target=action.target,
        title=source.title,
        author=run.agent_name or ACTOR,
        priority=source.priority,
        source=source,
        convoy=source.convoy,
        on_remote=action.on_remote,
    )
    entries.submit(rig, change)


def _task(town: Town, entry: ReviewEntry, purpose: Purpose, title: str, body: str, context: Any) -> Bead:
    """A bead that blocks an entry: one step higher in priority than what it unblocks."""
    draft = ledger.Draft(
        title[:300],
        body=body,
        purpose=purpose,
        priority=max(entry.bead.priority - 1, 0),
        parent=entry.bead,
        context=context,
    )
    task = ledger.create_bead(town, entry.rig, draft, actor=ACTOR)
    ledger.block(entry.bead, [task], ACTOR)
    entries.count_rework(entry.pk, purpose)
    return task


def _open_rework(town: Town, entry_id: str, cause: str, number: int) -> None:
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=entry_id)
    text, context = briefs.rework(entry, cause, number)
    told = of_rework(cause, context)
    if told not in text:
        text = f"{told}\n{text}"
    text = links.with_addresses(text)
    about = entry.source or entry.bead
    recipient = "overseer"
    if Agent.objects.filter(town=town, name=entry.author).exists():
        recipient = entry.author
    title = short(f"Rework: {short(entry.bead.title, 120)}{led_by(': ', told)}", 300)
    letter = mail.Letter(title, text, kind="REWORK_REQUEST", about=about)
    mail.send(town, ACTOR, recipient, letter, bead=about)
    ledger.note(about, "rework_requested", ACTOR, text[:2000], round=number, cause=cause)
    if number:
        _task(town, entry, Purpose.REWORK, f"Rework: {entry.bead.title}", text, context)


def _open_conflict(town: Town, entry_id: str, candidate_id: int, files: tuple[str, ...]) -> None:
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=entry_id)
    base = Candidate.objects.get(pk=candidate_id).base_sha
    text = (
        f"The change of branch {entry.branch} conflicts with {entry.target} at {base}.\n"
        f"Conflicting files:\n" + "\n".join(f"- {name}" for name in files)
    )
    context = {
        "conflict": {"base_sha": base, "target": entry.target, "files": list(files)},
        "branch": entry.branch,
    }
    task = _task(town, entry, Purpose.CONFLICT, f"Resolve merge conflicts: {entry.bead.title}", text, context)
    ledger.note(entry.source or entry.bead, "conflict", ACTOR, text[:2000], task=task.pk, files=list(files), base=base)
