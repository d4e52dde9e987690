"""What people decide about beads, and what agents file."""

from __future__ import annotations

import datetime as dt

from agents import runs
from agents.lifecycle import RunKind
from agents.models import Run
from beads import ledger
from beads.errors import Conflict, Invalid, NotFound
from beads.lifecycle import BeadStatus, Resolution, is_final
from beads.models import Bead
from refinery.facts import hearsay, subjects
from refinery.facts.payloads import Dependence, Edited, Hinted, ModelSaid, Reason, WasFiled
from refinery.facts.registry import Taken, fact
from refinery.store import notices


@fact("bead.cancel", says=Reason)
def cancel(it: Taken[Reason]) -> None:
    """A person does not want it done any more."""
    bead = subjects.bead(it)
    ledger.request_cancel(bead, it.now)
    ledger.note(bead, "cancel_requested", it.actor, it.said.reason)


@fact("bead.retry", says=Reason)
def retry(it: Taken[Reason]) -> None:
    """A person wants it tried again."""
    retry_bead(subjects.bead(it), it.now, it.actor, it.said.reason)


def retry_bead(bead: Bead, now: dt.datetime, actor: str, reason: str) -> None:
    """Open a failed bead again. Raises Conflict when it has not failed, or its convoy is closed."""
    if bead.status != BeadStatus.FAILED and not bead.hold:
        raise Conflict(f"{bead.pk} is {bead.status}: only a failed bead can be retried")
    _brought_back(bead, now, actor, reason)
    hearsay.say(bead, actor, "retried", reason)


def _brought_back(bead: Bead, now: dt.datetime, actor: str, reason: str) -> None:
    """Let work go on that has failed, is held or is under way; what was tried before does not count. Raises Conflict
    when its convoy is closed, LostRace when it is in review or done."""
    if bead.status != BeadStatus.FAILED:
        ledger.go_on(bead, now, actor, reason)
        return
    if bead.convoy is not None and bead.convoy.bead.status == BeadStatus.CLOSED:
        raise Conflict(f"its convoy {bead.convoy_id} is closed")
    ledger.move(
        bead, BeadStatus.FAILED, ledger.Transition(BeadStatus.OPEN, reason=retried(reason)), actor=actor, now=now
    )
    ledger.settle_escalations([bead.pk], actor, now, "retried")


@fact("bead.hold", says=Reason)
def hold(it: Taken[Reason]) -> None:
    """A person stops it: its run ends at once, with its work kept, and it waits."""
    bead = subjects.bead(it)
    ledger.hold(bead, it.actor, it.said.reason)
    _stop(bead, f"stopped by {it.actor}, with its work kept", it.now)


@fact("bead.hint", says=Hinted)
def hint(it: Taken[Hinted]) -> None:
    """A person's words for the next run, which begins at once: one that is at work is stopped first."""
    bead = subjects.bead(it)
    _brought_back(bead, it.now, it.actor, it.said.text)
    hearsay.say(bead, it.actor, "hinted", it.said.text)
    _stop(bead, f"stopped by {it.actor}, to go on with a hint", it.now)


def _stop(bead: Bead, why: str, now: dt.datetime) -> None:
    for run in Run.objects.live().filter(bead=bead).exclude(kind=RunKind.GATES):
        runs.request_stop(run.pk, why, now)


def retried(reason: str) -> str:
    """What the ledger says of a retry."""
    if reason:
        return f"retried: {reason}"
    return "retried"


@fact("bead.confirm", says=Reason)
def confirm(it: Taken[Reason]) -> None:
    """A person says that nothing was needed. Conflict when the bead has gone on meanwhile."""
    bead = subjects.bead(it)
    if bead.resolution != Resolution.NOTHING_CHANGED or bead.status != BeadStatus.FAILED:
        raise Conflict(f"{bead.pk} is {bead.status} {bead.resolution}")
    why = "nothing was needed"
    if it.said.reason:
        why = f"nothing was needed: {it.said.reason}"
    end = Resolution.NOTHING_CHANGED
    ledger.move(
        bead,
        BeadStatus.FAILED,
        ledger.Transition(BeadStatus.CLOSED, reason=why, resolution=end),
        actor=it.actor,
        now=it.now,
    )
    ledger.settle_escalations([bead.pk], it.actor, it.now, "confirmed")


@fact("bead.edit", says=Edited)
def edit(it: Taken[Edited]) -> None:
    """A person changes what it says, before anybody has begun it. LostRace when somebody has."""
    said = it.said.model_dump(include={"title", "body", "priority"})
    changed = {name: value for name, value in said.items() if value not in ("", None)}
    ledger.edit(subjects.bead(it), changed, it.now, actor=it.actor, reason=it.said.reason)


@fact("bead.model", says=ModelSaid)
def model(it: Taken[ModelSaid]) -> None:
    """A person says with which model it is worked on. LostRace when it was closed meanwhile."""
    ledger.set_model(subjects.bead(it), it.said.model, actor=it.actor, reason=it.said.reason)


@fact("bead.filed", says=WasFiled)
def filed(it: Taken[WasFiled]) -> None:
    """People who asked to hear what needs them hear once of what a run files."""
    bead = subjects.bead(it)
    body = f"{it.actor} filed it in run {it.said.run}. No agent works on what it files until you say so."
    key = f"filed:{it.said.run}"
    notice = notices.Notice("needs_you", bead, f"Filed by an agent: {bead.title}", body, key)
    notices.tell(it.town, notice, it.now)


@fact("bead.release", says=Reason)
def release(it: Taken[Reason]) -> None:
    """A person lets agents work on what one of them has filed."""
    bead = subjects.bead(it)
    ledger.release(bead, it.now, actor=it.actor, reason=it.said.reason)
    hearsay.say(bead, it.actor, "released", it.said.reason)


@fact("bead.unblock", says=Dependence)
def unblock(it: Taken[Dependence]) -> None:
    """It waits for that one no longer."""
    bead, on = _pair(it)
    ledger.unblock(bead, on, it.actor, it.said.reason)


@fact("bead.block", says=Dependence)
def block(it: Taken[Dependence]) -> None:
    """It waits for another one."""
    bead, on = _pair(it)
    if is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    try:
        ledger.block(bead, [on], it.actor)
    except Invalid as error:  # two wishes at once that make a circle: the later one is refused
        raise Conflict(error.message) from error


def _pair(it: Taken[Dependence]) -> tuple[Bead, Bead]:
    bead, on = subjects.bead(it), Bead.objects.filter(pk=it.said.on, town=it.town).first()
    if on is None:
        raise NotFound(f"no bead {it.said.on}")
    return bead, on
