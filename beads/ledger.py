"""The only writer of towns, rigs and their config, beads, dependencies, convoys and escalations.

Every transition is a compare-and-swap on its source status and writes its BeadEvent in the caller's transaction;
a wrong source raises `LostRace` and changes nothing. New rows are made at the door in their first status; from
then on only the tick moves a status.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from beads import prune
from beads.errors import Conflict, Invalid, LostRace
from beads.lifecycle import BeadStatus, BeadType, Purpose, Resolution, is_final, may_move
from beads.models import Bead, BeadEvent, ConfigVersion, Convoy, ConvoyBranch, Dependency, Escalation, Rig, Town

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?")
MAX_TITLE = 300
MAX_BODY = 256 * 1024
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


def check_text(field: str, value: str, limit: int, *, required: bool = False) -> str:
    """Return `value` stripped; raises Invalid for NUL bytes, emptiness (when required) or excess length."""
    if "\x00" in value:
        raise Invalid(f"{field} contains a NUL byte", field=field)
    value = value.strip()
    if required and not value:
        raise Invalid(f"{field} is empty", field=field)
    if len(value) > limit:
        raise Invalid(f"{field} is longer than {limit} characters", field=field)
    return value


def check_slug(field: str, value: str) -> str:
    """Return a legal slug or raise Invalid."""
    if not SLUG.fullmatch(value):
        raise Invalid(
            f"{field} {value!r} is not a slug: lower-case letters, digits and inner dashes, at most 50",
            field=field,
        )
    return value


def lock_town(town: Town) -> Town:
    """Take the town's row lock for the rest of the transaction."""
    return Town.objects.select_for_update().get(pk=town.pk)


# -- towns and rigs ---------------------------------------------------------------------


def create_town(slug: str, config: Mapping[str, Any] | None = None) -> Town:
    """Make a town. `config` must have passed `beads.config.validate`."""
    check_slug("town", slug)
    try:
        with transaction.atomic():
            return Town.objects.create(slug=slug, config=dict(config or {}))
    except IntegrityError:
        raise Conflict(f"town {slug} exists already", details={"field": "town"}) from None


def create_rig(town: Town, slug: str, url: str, branch: str, config: Mapping[str, Any] | None = None) -> Rig:
    """Make a rig. The remote must have been looked at by the caller."""
    check_slug("rig", slug)
    try:
        with transaction.atomic():
            return Rig.objects.create(
                town=town, slug=slug, remote_url=url, default_branch=branch, config=dict(config or {})
            )
    except IntegrityError:
        raise Conflict(f"rig {slug} exists already", details={"field": "rig"}) from None


def pause_town(town: Town, reason: str) -> None:
    """Stop dispatching and admitting in a town; live runs go on."""
    Town.objects.filter(pk=town.pk, paused_at=None).update(paused_at=timezone.now(), paused_reason=reason[:300])


def resume_town(town: Town) -> None:
    """Undo `pause_town`."""
    Town.objects.filter(pk=town.pk).update(paused_at=None, paused_reason="")


def note_look(town: Town, at: dt.datetime) -> None:
    """A tick began at `at`: whoever heard of news before that need not look again."""
    Town.objects.filter(pk=town.pk).update(looked_at=at)


def park_rig(rig: Rig) -> None:
    """Stop dispatching and admitting in a rig; live runs go on."""
    Rig.objects.filter(pk=rig.pk, parked_at=None).update(parked_at=timezone.now())


def unpark_rig(rig: Rig) -> None:
    """Undo `park_rig`."""
    Rig.objects.filter(pk=rig.pk).update(parked_at=None)


def set_default_branch(rig: Rig, branch: str) -> None:
    """Changes of the rig are for this branch from now on."""
    Rig.objects.filter(pk=rig.pk).update(default_branch=branch)


def set_config(
    owner: Town | Rig,
    config: Mapping[str, Any],
    *,
    who: str = "",
    why: str = "",
    text: str = "",
    expect: int | None = None,
) -> ConfigVersion:
    """Replace the overrides of a town or rig, which must have passed `beads.config.validate`; returns the version.

    `text` is the TOML as it was written. Raises Conflict when `expect`, the number of the version that the writer
    had before their eyes (0: none), is no longer the latest.
    """
    with transaction.atomic():
        locked = type(owner).objects.select_for_update().get(pk=owner.pk)
        latest = latest_config(owner)
        number = latest.number if latest else 0
        if expect is not None and expect != number:
            raise Conflict(f"the config was changed meanwhile: its version is {number}, not {expect}")
        type(owner).objects.filter(pk=owner.pk).update(config=dict(config))
        return ConfigVersion.objects.create(
            town=owner.town if isinstance(owner, Rig) else owner,
            rig=owner if isinstance(owner, Rig) else None,
            number=number + 1,
            who=who[:150],
            why=why,
            old=locked.config,
            new=dict(config),
            text=text,
        )


def latest_config(owner: Town | Rig) -> ConfigVersion | None:
    """The latest change of an owner's config; None when it is as it was made."""
    if isinstance(owner, Rig):
        return ConfigVersion.objects.filter(rig=owner).first()
    return ConfigVersion.objects.filter(town=owner, rig=None).first()


# -- beads ---------------------------------------------------------------------


def create_bead(
    town: Town,
    rig: Rig | None,
    title: str,
    *,
    body: str = "",
    type: BeadType = BeadType.ISSUE,
    purpose: Purpose = Purpose.WORK,
    priority: int = 2,
    convoy: Convoy | None = None,
    plan_key: str = "",
    parent: Bead | None = None,
    context: Mapping[str, Any] | None = None,
    after: Sequence[Bead] = (),
    actor: str = "",
    filed: Filed | None = None,
    depth: int = 0,
) -> Bead:
    """Make a bead in status open, blocked by `after`. Raises Invalid naming the field.

    `filed`: by which agent's run, how deep, and whether it waits for a person. Otherwise its depth is its parent's, or
    `depth`, if that is more.
    """
    if not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    told: dict[str, Any] = {"depth": max(depth, parent.depth if parent else 0)}
    if filed is not None:
        told = {"filed_by": filed.run, "depth": filed.depth}
        if not filed.waits:
            told |= {"released_at": timezone.now(), "released_by": FILED_BEADS}
    with transaction.atomic():
        bead = Bead.objects.create(
            town=town,
            rig=rig,
            title=check_text("title", title, MAX_TITLE, required=True),
            body=check_text("body", body, MAX_BODY),
            type=type,
            purpose=purpose,
            priority=priority,
            convoy=convoy,
            plan_key=plan_key,
            parent=parent,
            context=dict(context or {}),
            created_by=actor[:100],
            **told,
        )
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


def move(
    bead: Bead,
    expect: str,
    to: str,
    *,
    actor: str,
    reason: str = "",
    resolution: str = "",
    merge_sha: str = "",
    now: dt.datetime | None = None,
) -> None:
    """Move a bead's status, from exactly `expect`. Raises LostRace when it stands elsewhere.

    Illegal transitions raise Conflict. Writes the BeadEvent in the same transaction.
    """
    if not may_move(expect, to, resolution):
        raise Conflict(f"{bead.pk} may not go from {expect} to {to}")
    now = now or timezone.now()
    change: dict[str, Any] = {"status": to, "reason": reason, "resolution": resolution, "updated_at": now}
    if is_final(to):
        change |= {"closed_at": now}
        if merge_sha:
            change["merge_sha"] = merge_sha
    else:
        change |= {"closed_at": None, "cancel_requested_at": None}
    if BeadStatus(expect) == BeadStatus.FAILED:
        change["retried_at"] = now
    if Bead.objects.filter(pk=bead.pk, status=expect).update(**change) != 1:
        raise LostRace(f"{bead.pk} is no longer {expect}")
    BeadEvent.objects.create(
        bead=bead,
        kind="status",
        from_status=expect,
        to_status=to,
        actor=actor[:100],
        reason=reason,
        data={"resolution": resolution, "merge_sha": merge_sha} if resolution else {},
    )


def request_cancel(bead: Bead, now: dt.datetime) -> None:
    """Set the wish to cancel; the tick decides. No-op on final beads."""
    Bead.objects.filter(pk=bead.pk, cancel_requested_at=None).exclude(
        status__in=[BeadStatus.CLOSED, BeadStatus.FAILED]
    ).update(cancel_requested_at=now)


def release(bead: Bead, now: dt.datetime, *, actor: str, reason: str = "") -> None:
    """Let what an agent has filed be given to an agent. LostRace when it waits for no release (any more)."""
    waits = Bead.objects.filter(pk=bead.pk, released_at=None).exclude(filed_by="")
    if waits.update(released_at=now, released_by=actor[:100], updated_at=now) != 1:
        raise LostRace(f"{bead.pk} waits for no release")
    note(bead, "released", actor, reason)


def retitle_priority(bead: Bead, priority: int) -> None:
    """Change a bead's priority (promotion of an entry)."""
    Bead.objects.filter(pk=bead.pk).update(priority=priority)


def edit(bead: Bead, said: Mapping[str, str | int], now: dt.datetime, *, actor: str, reason: str = "") -> None:
    """Change what an open bead says: title, body, priority. LostRace when it is no longer open."""
    old = {name: getattr(bead, name) for name in said}
    if Bead.objects.filter(pk=bead.pk, status=BeadStatus.OPEN).update(**said, updated_at=now) != 1:
        raise LostRace(f"{bead.pk} is no longer open")
    note(bead, "edited", actor, reason, old=old)


def forget(keys: Sequence[str]) -> int:
    """Remove these beads with their history and sides: they have been archived (see `refinery.executor.retention`)."""
    prune.delete(ConvoyBranch.objects.filter(convoy__any=keys))
    for rows in (BeadEvent.objects, Dependency.objects, Escalation.objects, Convoy.objects):
        prune.delete(rows.filter(bead__any=keys))
    return prune.delete(Bead.objects.filter(pk__any=keys))


def old_configs(town: Town, before: dt.datetime) -> QuerySet[ConfigVersion]:
    """Changes of configs that are older than that; the latest of each town and rig is not among them."""
    later = ConfigVersion.objects.filter(town=OuterRef("town"), number__gt=OuterRef("number"))
    followed = Exists(later.filter(rig=OuterRef("rig"))) | Q(rig=None) & Exists(later.filter(rig=None))
    return ConfigVersion.objects.filter(followed, town=town, created_at__lt=before).order_by("pk")


def forget_configs(keys: Sequence[int]) -> int:
    """Remove these changes of configs: they have been archived."""
    return prune.some(ConfigVersion.objects.all(), keys)


# -- convoys ---------------------------------------------------------------------


def create_convoy(
    rig: Rig,
    title: str,
    merge_mode: str,
    plan: Sequence[Mapping[str, Any]],
    *,
    actor: str,
    filed: Filed | None = None,
) -> Convoy:
    """Make a staged convoy from a checked plan (see `beads.plans`): one bead per item, `after` as blocks.

    `plan`: what `beads.plans.parse` returns. `filed`: see `create_bead`; starting the convoy releases its beads.
    """
    with transaction.atomic():
        bead = create_bead(rig.town, rig, title, type=BeadType.CONVOY, actor=actor, filed=filed)
        convoy = Convoy.objects.create(bead=bead, rig=rig, merge_mode=merge_mode)
        made: dict[str, Bead] = {}
        for item in plan:
            made[item["key"]] = create_bead(
                rig.town,
                item["rig"],
                item["title"],
                body=item["body"],
                priority=item["priority"],
                convoy=convoy,
                plan_key=item["key"],
                context={name: item[name] for name in ("files", "estimate") if item.get(name)},
                actor=actor,
                filed=filed,
            )
        for item in plan:
            block(made[item["key"]], [made[key] for key in item["after"]], actor)
        if merge_mode == "review-then-land":
            slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "convoy"
            for rig_id in sorted({b.rig_id for b in made.values() if b.rig_id is not None}):
                ConvoyBranch.objects.create(convoy=convoy, rig_id=rig_id, name=f"convoy/{slug}/{bead.pk}/head")
    return convoy


def start_convoy(convoy: Convoy, now: dt.datetime, *, actor: str) -> None:
    """Let a staged convoy's beads be dispatched, also those that an agent has filed. LostRace when it was started
    before."""
    if Convoy.objects.filter(pk=convoy.pk, started_at=None).update(started_at=now) != 1:
        raise LostRace(f"convoy {convoy.pk} was started before")
    waiting = Bead.objects.filter(released_at=None).exclude(filed_by="")
    waiting.filter(Q(pk=convoy.pk) | Q(convoy=convoy)).update(released_at=now, released_by=actor[:100])
    move(convoy.bead, BeadStatus.OPEN, BeadStatus.IN_PROGRESS, actor=actor, reason="started", now=now)


def request_close_convoy(convoy: Convoy, now: dt.datetime) -> None:
    """Set the wish to close a convoy midway; the tick decides."""
    Convoy.objects.filter(pk=convoy.pk, close_requested_at=None, landed_at=None).update(close_requested_at=now)


def clear_close_request(convoy: Convoy) -> None:
    """A retried convoy is wanted again."""
    Convoy.objects.filter(pk=convoy.pk).update(close_requested_at=None)


def convoy_landed(convoy: Convoy, sha: str, now: dt.datetime) -> None:
    """Record where a convoy landed; once."""
    if Convoy.objects.filter(pk=convoy.pk, landed_at=None).update(landed_sha=sha, landed_at=now) != 1:
        raise LostRace(f"convoy {convoy.pk} has landed before")


def ask_branch(branch: ConvoyBranch, now: dt.datetime) -> None:
    """Note that the remote's feature branch is to be cut or looked at."""
    ConvoyBranch.objects.filter(pk=branch.pk).update(asked_at=now)


def branch_seen(branch_id: int, sha: str, asked_at: dt.datetime) -> None:
    """Observation: what the remote's feature branch pointed at, in answer to the look asked for at `asked_at`."""
    ConvoyBranch.objects.filter(pk=branch_id).exclude(observed_at__gt=asked_at).update(
        head_sha=sha, observed_at=asked_at
    )
    ConvoyBranch.objects.filter(pk=branch_id, base_sha="").update(base_sha=sha)


def forget_branch(branch: ConvoyBranch) -> None:
    """Look at the remote again before landing is tried again."""
    ConvoyBranch.objects.filter(pk=branch.pk).exclude(base_sha="").update(asked_at=None)
    ConvoyBranch.objects.filter(pk=branch.pk, landed_sha="unchanged").update(landed_sha="")


def branch_landed(branch: ConvoyBranch, sha: str) -> None:
    """Record the commit on the target that holds the feature branch."""
    ConvoyBranch.objects.filter(pk=branch.pk).update(landed_sha=sha)


# -- escalations ---------------------------------------------------------------------


def escalate(
    town: Town,
    key: str,
    title: str,
    *,
    body: str = "",
    severity: str = "medium",
    about: Bead | None = None,
    actor: str,
) -> Bead | None:
    """Tell the people once; None when an escalation with this key is open already."""
    if Escalation.objects.filter(town=town, key=key, closed_at=None).exists():
        return None
    rig, kind = about.rig if about else None, BeadType.ESCALATION
    bead = create_bead(town, rig, title[:MAX_TITLE], body=body[:MAX_BODY], type=kind, priority=1, actor=actor)
    Escalation.objects.create(bead=bead, town=town, key=key[:200], severity=severity, about=about)
    return bead


def acknowledge(escalation: Escalation, who: str, now: dt.datetime, reason: str = "") -> None:
    """A person has seen it."""
    if Escalation.objects.filter(pk=escalation.pk, acknowledged_at=None, closed_at=None).update(
        acknowledged_at=now, acknowledged_by=who[:100]
    ):
        note(escalation.bead, "acknowledged", who, reason)


def settle_escalations(about: Iterable[str], who: str, now: dt.datetime, reason: str) -> None:
    """What was escalated about these beads needs nobody any more."""
    _settle(Q(about_id__in=list(about)), who, now, reason)


def settle_key(town: Town, key: str, who: str, now: dt.datetime, reason: str) -> None:
    """What was escalated under `key` needs nobody any more."""
    _settle(Q(town=town, key=key), who, now, reason)


def settle_keys(town: Town, prefix: str, who: str, now: dt.datetime, reason: str) -> None:
    """As `settle_key`, for all keys that begin so."""
    _settle(Q(town=town, key__startswith=prefix), who, now, reason)


def _settle(which: Q, who: str, now: dt.datetime, reason: str) -> None:
    for escalation in Escalation.objects.filter(which, closed_at=None):
        close_escalation(escalation, who, now, reason)


def close_escalation(escalation: Escalation, who: str, now: dt.datetime, reason: str = "") -> None:
    """It needs nobody any more. LostRace when it was closed before."""
    if Escalation.objects.filter(pk=escalation.pk, closed_at=None).update(closed_at=now) != 1:
        raise LostRace(f"escalation {escalation.pk} was closed before")
    bead = Bead.objects.get(pk=escalation.pk)
    move(
        bead, bead.status, BeadStatus.CLOSED, actor=who, reason=reason or "closed", resolution=Resolution.DONE, now=now
    )
