"""How entries and convoys end, or are held: what is written then, and who is told."""

from __future__ import annotations

import datetime as dt

from agents import mail
from agents.models import Run
from beads import ledger, outbox
from beads.lifecycle import BeadStatus, Resolution
from beads.models import Convoy, Escalation, Town
from refinery import links
from refinery.core.actions import CloseEntry
from refinery.core.effects import DeleteBranch, Effect
from refinery.core.reasons import Exit, way_on
from refinery.core.states import EntryKind, EntryState, Judgement
from refinery.models import ReviewEntry
from refinery.store import entries, notices
from refinery.tick import planning

ACTOR = "gastown"


def enqueue(town: Town, work: Effect, now: dt.datetime, rig: int) -> None:
    """New work, or work whose answer was lost: then it is done once more. `rig`: whose remote it asks."""
    if not outbox.enqueue(town, work.name, work.key, work.payload(), now, rig):
        outbox.repeat(work.key, now)


def hold_entry(town: Town, entry_id: str, code: str, text: str, now: dt.datetime) -> None:
    """Hold an entry for a person: one need says why, and the way on."""
    entries.hold(entry_id, code, text)
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=entry_id)
    ledger.note(entry.bead, "held", ACTOR, text, code=code)
    key, title = f"held:{entry_id}:{entry.attempts}", f"Needs a person in {entry.rig.slug}: {entry.bead.title}"[:300]
    where = f"Rig {entry.rig.slug}, entry {entry_id}, branch {entry.branch} for {entry.target}."
    body = links.with_addresses(f"{text}\n\n{where} {way_on(code, entry_id)}")
    if entry.kind == EntryKind.CHECK:
        rig = entry.rig.slug
        title = f"{entry.bead.title}: they do not pass"
        told = f"{text}\n\nNo change is blamed for it; what passes lands. When it is mended: gastown rig check {rig}"
        body = links.with_addresses(told)
        old = Escalation.objects.select_related("bead").filter(town=town, key=key, closed_at=None).first()
        if old is not None and old.bead.body != body:
            ledger.close_escalation(old, ACTOR, now, "it is otherwise now")
    made = ledger.escalate(town, ledger.Problem(key, title, body=body, severity="high", about=entry.bead), actor=ACTOR)
    if made is not None:
        notices.tell(town, notices.Notice("needs_you", entry.bead, title, body, made.pk), now)


def close_entry(town: Town, action: CloseEntry, now: dt.datetime) -> None:
    """End an entry: what it was for ends or fails with it, and what it needed of people needs nobody any more."""
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=action.entry)
    entries.close(entry, action.state, action.reason, action.text, now=now, merge_sha=action.merge_sha)
    source = entry.source
    ledger.settle_escalations([entry.pk], ACTOR, now, f"its entry is {action.state}")
    if action.state == EntryState.MERGED:
        _too_late(town, entry)
        if source is not None:
            ledger.settle_escalations([source.pk], ACTOR, now, "it is merged")
            resolution = Resolution.MERGED
            if action.reason == "already_merged":
                resolution = Resolution.ALREADY_MERGED
            ledger.move(
                source,
                source.status,
                ledger.Transition(
                    BeadStatus.CLOSED, reason=action.text, resolution=resolution, merge_sha=action.merge_sha
                ),
                actor=ACTOR,
                now=now,
            )
        if action.delete_branch and entry.on_remote and Run.objects.filter(rig=entry.rig, branch=entry.branch).exists():
            work = DeleteBranch(entry.rig_id, entry.branch, entry.head_sha, entry.pk)
            enqueue(town, work, now, entry.rig_id)
    elif source is not None and action.reason not in ("superseded", "cancelled"):
        nothing = action.reason == Exit.NOTHING_CHANGED
        ledger.move(
            source,
            source.status,
            ledger.Transition(
                BeadStatus.FAILED,
                reason=f"its review entry failed: {action.text}",
                resolution=Resolution.NOTHING_CHANGED if nothing else Resolution.GAVE_UP,
            ),
            actor=ACTOR,
            now=now,
        )
        if nothing:
            title, text = f"Nothing was changed: {source.title}"[:300], f"{action.text}. If nothing was needed: "
            text += f"bead confirm {source.pk}. To let it be tried again: bead retry {source.pk}"
            ledger.escalate(
                town,
                ledger.Problem(f"nothing:{source.pk}", title, body=text, severity="medium", about=source),
                actor=ACTOR,
            )


def _too_late(town: Town, entry: ReviewEntry) -> None:
    """What people asked for while it was being pushed led to nothing: they are told, and keep their words."""
    landing = entry.landings.landed().last()
    if landing is None:
        return
    asked = entry.verdicts.filter(run=None, decision=Judgement.REQUEST_CHANGES, task=None)
    late = list(asked.filter(created_at__gte=landing.created_at))
    if late:
        text = "\n\n".join(f"{v.by}: {v.feedback}" for v in late)
        title = f"Too late: {entry.bead.title} had landed when changes were asked for"
        text += "\n\nIt is on the target now. What is still to be done is another bead: sling it."
        mail.send(town, ACTOR, "overseer", mail.Letter(title[:300], text, kind="TOO_LATE", about=entry.bead))


def convoy_landed(town: Town, convoy_id: str, sha: str, now: dt.datetime) -> None:
    """A convoy's branch has landed: the convoy ends, and what was told of it."""
    convoy = Convoy.objects.select_related("bead", "rig").get(pk=convoy_id)
    ledger.convoy_landed(convoy, sha, now)
    ledger.settle_escalations([convoy_id], ACTOR, now, "the convoy has landed")
    title, told = f"Convoy landed: {convoy.bead.title}", f"Landed on {convoy.rig.default_branch} as {sha}."
    notices.tell(town, notices.Notice("landed", convoy.bead, title, told, convoy_id), now)
    mail.send(town, ACTOR, "overseer", mail.Letter(title[:300], told, kind="CONVOY_LANDED", about=convoy.bead))
    planning.heard(convoy.bead, "CONVOY_LANDED", title, told)
    for branch in convoy.branches.exclude(landed_sha="unchanged").select_related("rig"):
        enqueue(town, DeleteBranch(branch.rig_id, branch.name, branch.head_sha), now, branch.rig_id)
