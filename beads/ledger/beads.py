"""The only writer of beads, their dependencies and their history."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from beads import prune
from beads.errors import Conflict, Invalid, LostRace
from beads.ledger.texts import MAX_BODY, MAX_TITLE, check_model, check_text
from beads.lifecycle import BeadStatus, BeadType, Purpose, is_final, may_move
from beads.models import Bead, BeadEvent, Convoy, Dependency, Rig, Town

FILED_BEADS = "limits.filed_beads"  # who released a bead that waits for nobody: the config


@dataclass(frozen=True, slots=True)
class Filed:
    """What an agent files: in which run, how deep, and whether it waits for a person's release."""

    run: str
    depth: int
    waits: bool

    def as_data(self) -> dict[str, Any]:
        """As the bead's history keeps it."""
        return {"run": self.run, "depth": self.depth, "staged": self.waits}


def note(bead: Bead, kind: str, actor: str, reason: str = "", **data: Any) -> None:
    """Append to a bead's history."""
    BeadEvent.objects.create(bead=bead, kind=kind, actor=actor[:100], reason=reason, data=data)


@dataclass(frozen=True, slots=True)
class Draft:
    """A bead that is to be made: what it says, and where it belongs. `plan_key`: its key in the convoy's plan; `model`:
    that of whoever works on it, empty: as the config says."""

    title: str
    body: str = ""
    type: BeadType = BeadType.ISSUE
    purpose: Purpose = Purpose.WORK
    priority: int = 2
    convoy: Convoy | None = None
    plan_key: str = ""
    parent: Bead | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0
    model: str = ""

    def columns(self) -> dict[str, Any]:
        """The bead's columns that follow from it. Raises Invalid naming the field."""
        if not 0 <= self.priority <= 4:
            raise Invalid(f"priority must be 0 to 4, not {self.priority}", field="priority")
        return {
            "title": check_text("title", self.title, MAX_TITLE, required=True),
            "body": check_text("body", self.body, MAX_BODY),
            "type": self.type,
            "purpose": self.purpose,
            "priority": self.priority,
            "convoy": self.convoy,
            "plan_key": self.plan_key,
            "parent": self.parent,
            "context": dict(self.context),
            "model": check_model(self.model),
            "depth": max(self.depth, self.parent.depth) if self.parent else self.depth,
        }


def create_bead(
    town: Town,
    rig: Rig | None,
    draft: Draft,
    *,
    actor: str = "",
    after: Sequence[Bead] = (),
    filed: Filed | None = None,
) -> Bead:
    """Make a bead in status open, blocked by `after`. Raises Invalid naming the field.

    `filed`: by which agent's run, how deep, and whether it waits for a person. Otherwise its depth is its parent's, or
    the draft's own, if that is more.
    """
    columns = draft.columns()
    if filed is not None:
        columns |= {"filed_by": filed.run, "depth": filed.depth}
        if not filed.waits:
            columns |= {"released_at": timezone.now(), "released_by": FILED_BEADS}
    with transaction.atomic():
        bead = Bead.objects.create(town=town, rig=rig, created_by=actor[:100], **columns)
        note(bead, "created", actor, **(filed.as_data() if filed else {}))
        block(bead, after, actor)
    return bead


def block(bead: Bead, blockers: Iterable[Bead], actor: str = "") -> None:
    """Make `bead` wait for `blockers`. Raises Invalid with the path when that closes a cycle."""
    for blocker in blockers:
        path = find_path(blocker.pk, bead.pk)
        if path:
            raise Invalid(f"dependency cycle: {' → '.join([bead.pk, *path])}", field="after")
        Dependency.objects.get_or_create(bead=bead, on=blocker)
        note(bead, "blocked_by", actor, on=blocker.pk)


def unblock(bead: Bead, blocker: Bead, actor: str, reason: str = "") -> bool:
    """`bead` no longer waits for `blocker`; False when it did not."""
    gone = Dependency.objects.filter(bead=bead, on=blocker).delete()[0]
    if gone:
        note(bead, "unblocked", actor, reason, on=blocker.pk)
    return bool(gone)


def find_path(start: str, goal: str) -> list[str] | None:
    """A path of `blocked by` edges from `start` to `goal`, ids in order, or None."""
    seen = {start}
    paths: list[list[str]] = [[start]]
    while paths:
        path = paths.pop()
        if path[-1] == goal:
            return path
        for step in Dependency.objects.filter(bead_id=path[-1]).values_list("on_id", flat=True):
            if step not in seen:
                seen.add(step)
                paths.append([*path, step])
    return None


@dataclass(frozen=True, slots=True)
class Transition:
    """Which status a bead gets, and why; for a final one its resolution, and the commit where it was merged."""

    to: str
    reason: str = ""
    resolution: str = ""
    merge_sha: str = ""

    def result(self) -> dict[str, Any]:
        """What its history keeps of the end of a bead."""
        if not self.resolution:
            return {}
        return {"resolution": self.resolution, "merge_sha": self.merge_sha}


def move(bead: Bead, expect: str, step: Transition, *, actor: str, now: dt.datetime | None = None) -> None:
    """Move a bead's status, from exactly `expect`. Raises LostRace when it stands elsewhere.

    Illegal transitions raise Conflict. Writes the BeadEvent in the same transaction.
    """
    if not may_move(expect, step.to, step.resolution):
        raise Conflict(f"{bead.pk} may not go from {expect} to {step.to}")
    now = now or timezone.now()
    change: dict[str, Any] = {
        "status": step.to,
        "reason": step.reason,
        "resolution": step.resolution,
        "updated_at": now,
    }
    if is_final(step.to):
        change |= {"closed_at": now, "hold": ""}
        if step.merge_sha:
            change["merge_sha"] = step.merge_sha
    else:
        change |= {"closed_at": None, "cancel_requested_at": None}
    if BeadStatus(expect) == BeadStatus.FAILED:
        change["retried_at"] = now
    # compare and swap: whoever else has moved the bead meanwhile wins, and this caller's savepoint is undone
    if Bead.objects.filter(pk=bead.pk, status=expect).update(**change) != 1:
        raise LostRace(f"{bead.pk} is no longer {expect}")
    BeadEvent.objects.create(
        bead=bead,
        kind="status",
        from_status=expect,
        to_status=step.to,
        actor=actor[:100],
        reason=step.reason,
        data=step.result(),
    )


def request_cancel(bead: Bead, now: dt.datetime) -> None:
    """Note that a person wants it cancelled; the tick decides. No effect on final beads."""
    Bead.objects.filter(pk=bead.pk, cancel_requested_at=None).exclude(
        status__in=[BeadStatus.CLOSED, BeadStatus.FAILED]
    ).update(cancel_requested_at=now)


def hold(bead: Bead, actor: str, reason: str = "") -> None:
    """Let it wait for a person, whatever becomes of its run. LostRace when it is in review, has ended or is held."""
    why = f"stopped by {actor}" + (f": {reason}" if reason else "")
    at_work = Bead.objects.filter(pk=bead.pk, status__in=[BeadStatus.OPEN, BeadStatus.IN_PROGRESS], hold="")
    if at_work.update(hold=why) != 1:
        raise LostRace(f"{bead.pk} is not at work, or held already")
    note(bead, "held", actor, reason)


def go_on(bead: Bead, now: dt.datetime, actor: str, reason: str = "") -> None:
    """A person lets live work go on: it is not held any more, and what was tried before does not count. LostRace when
    it is in review or has ended."""
    at_work = Bead.objects.filter(pk=bead.pk, status__in=[BeadStatus.OPEN, BeadStatus.IN_PROGRESS])
    if at_work.update(hold="", retried_at=now, updated_at=now) != 1:
        raise LostRace(f"{bead.pk} is not at work")
    note(bead, "goes_on", actor, reason)


def release(bead: Bead, now: dt.datetime, *, actor: str, reason: str = "") -> None:
    """Let what an agent has filed be given to an agent. LostRace when it waits for no release (any more)."""
    waits = Bead.objects.filter(pk=bead.pk, released_at=None).exclude(filed_by="")
    if waits.update(released_at=now, released_by=actor[:100], updated_at=now) != 1:
        raise LostRace(f"{bead.pk} waits for no release")
    note(bead, "released", actor, reason)


def release_convoy(convoy: Convoy, now: dt.datetime, *, actor: str) -> None:
    """Let the convoy's bead, and those in it, be given to agents, also those that an agent has filed."""
    waiting = Bead.objects.filter(released_at=None).exclude(filed_by="")
    waiting.filter(Q(pk=convoy.pk) | Q(convoy=convoy)).update(released_at=now, released_by=actor[:100])


def set_priority(bead: Bead, priority: int) -> None:
    """Change a bead's priority (promotion of an entry)."""
    Bead.objects.filter(pk=bead.pk).update(priority=priority)


def set_model(bead: Bead, model: str, *, actor: str, reason: str = "") -> None:
    """Say which model works on a bead from its next run on; empty: the config says. LostRace when it is closed."""
    model = check_model(model)
    if Bead.objects.filter(pk=bead.pk).exclude(status=BeadStatus.CLOSED).update(model=model) != 1:
        raise LostRace(f"{bead.pk} is closed")
    note(bead, "model_set", actor, reason, model=model, old=bead.model)


def edit(bead: Bead, said: Mapping[str, str | int], now: dt.datetime, *, actor: str, reason: str = "") -> None:
    """Change what an open bead says: title, body, priority. LostRace when it is no longer open."""
    old = {name: getattr(bead, name) for name in said}
    if Bead.objects.filter(pk=bead.pk, status=BeadStatus.OPEN).update(**said, updated_at=now) != 1:
        raise LostRace(f"{bead.pk} is no longer open")
    note(bead, "edited", actor, reason, old=old)


def remove_beads(keys: Sequence[str]) -> int:
    """Remove these beads with their history and dependencies; returns how many there were."""
    for rows in (BeadEvent.objects, Dependency.objects):
        prune.delete(rows.filter(bead__any=keys))
    return prune.delete(Bead.objects.filter(pk__any=keys))
