"""The mayor's convoys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from agents import filing, launches
from agents.api.tools import Args, Call, tool
from agents.api.toolset.beads import tell_filed
from agents.api.toolset.shared import MAYOR, Short, bead_data, rig_of, sender
from beads import config as configs
from beads import inbox, ledger, plans
from beads.errors import Conflict, NotFound
from beads.lifecycle import BeadStatus, BeadType
from beads.models import Convoy

convoy_extras: list[Callable[[Convoy], dict[str, Any]]] = []


class ConvoyCreateArgs(Args):
    """gt_convoy_create"""

    rig: Annotated[str, Field(max_length=50)] | None = None
    title: Short
    beads: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=200)]
    merge_mode: Literal["review-then-land", "review-and-merge"] | None = None
    staged: bool | None = None


class ConvoyArgs(Args):
    """gt_convoy_start and gt_convoy_status"""

    convoy: Annotated[str, Field(max_length=40)]


def _convoy(call: Call, key: str) -> Convoy:
    found = Convoy.objects.select_related("bead", "rig").filter(pk=key, bead__town=call.run.town).first()
    if found is None:
        raise NotFound(f"no convoy {key!r} in this town", details={"field": "convoy"})
    return found


@tool("gt_convoy_create", MAYOR, ConvoyCreateArgs)
def convoy_create(call: Call, args: ConvoyCreateArgs) -> dict[str, Any]:
    """Make a convoy from a plan: beads with key, title, body, priority, after, files, estimate, model.

    Its beads count as filed by your run ([limits]). It is staged until a person starts it, whatever `staged` says,
    unless the config lets agents' beads go ([limits] filed_beads = "dispatch"). `conflicts` names pairs of beads
    without an order between them that change the same files.
    """
    rig = rig_of(call, args.rig)
    config = configs.effective(rig.town.config, rig.config).convoy
    plan = plans.parse(args.beads, "beads", rig, lambda slug: rig_of(call, slug))
    launches.check_models(plan)
    filed = filing.file(call, [rig, *(item["rig"] for item in plan)], len(plan), planned=True)
    mode = args.merge_mode or config.merge_mode
    made = ledger.create_convoy(rig, args.title, mode, plan, actor=sender(call), filed=filed)
    tell_filed(call, made.bead, filed)
    wanted = config.staged if args.staged is None else args.staged
    staged = filed.waits or wanted
    if not staged:
        convoy_start(call, ConvoyArgs(convoy=made.pk))
    why = filing.GOES
    if filed.waits:
        why = filing.WAITS
    elif staged:
        why = "nothing is dispatched until it is started"
    touched = {i["key"]: plans.Touches(i["rig"].pk, tuple(i["files"]), tuple(i["after"])) for i in plan}
    conflicts = [{"beads": [a, b], "files": files} for a, b, files in plans.clashes(touched)]
    return {"id": made.pk, "staged": staged, "why": why, "conflicts": conflicts}


@tool("gt_convoy_start", MAYOR, ConvoyArgs)
def convoy_start(call: Call, args: ConvoyArgs) -> dict[str, Any]:
    """Start a staged convoy. One that an agent has made is a person's to start, unless the config says otherwise."""
    convoy = _convoy(call, args.convoy)
    asked = convoy.bead.unreleased or filing.asked_first(call.run.town, [call.run.rig, convoy.rig])
    if convoy.bead.filed_by and convoy.started_at is None and asked:
        raise Conflict(f"convoy {convoy.pk} was made by an agent: a person starts it ([limits] filed_beads)")
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    inbox.record(call.run.town, "convoy.start", convoy.pk, {}, actor=sender(call))
    return {"id": convoy.pk}


@tool("gt_convoy_status", MAYOR, ConvoyArgs, reads=True)
def convoy_status(call: Call, args: ConvoyArgs) -> dict[str, Any]:
    """A convoy and its beads."""
    convoy = _convoy(call, args.convoy)
    beads = convoy.beads.select_related("rig").prefetch_related("blocked_by")
    closed = sum(1 for b in beads if b.status == BeadStatus.CLOSED)
    told: dict[str, Any] = {}
    for extra in convoy_extras:
        told |= extra(convoy)
    return told | {
        "id": convoy.pk,
        "title": convoy.bead.title,
        "status": convoy.bead.status,
        "staged": convoy.started_at is None,
        "closed": closed,
        "total": len(beads),
        "landed_sha": convoy.landed_sha,
        "beads": [bead_data(b) for b in beads if b.type == BeadType.ISSUE],
    }
