"""Beads: what there is in the town, and how a run files a new one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from agents import filing
from agents.api.tools import ALL, Args, Call, tool
from agents.api.toolset.shared import MAYOR, Short, Text, bead_data, bead_of, rig_of, sender
from beads import inbox, ledger
from beads.models import Bead


class BeadArgs(Args):
    """gt_bead_show"""

    bead: Annotated[str, Field(max_length=40)]


@tool("gt_bead_show", ALL, BeadArgs, reads=True)
def bead_show(call: Call, args: BeadArgs) -> dict[str, Any]:
    """One bead of your town."""
    return {"bead": bead_data(bead_of(call, args.bead))}


class BeadListArgs(Args):
    """gt_bead_list"""

    status: Literal["open", "in_progress", "in_review", "closed", "failed"] | None = None
    type: Literal["issue", "merge_request", "convoy", "message", "escalation"] | None = None
    rig: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    skip: Annotated[int, Field(ge=0, le=1_000_000)] = 0


@tool("gt_bead_list", ALL, BeadListArgs, reads=True)
def bead_list(call: Call, args: BeadListArgs) -> dict[str, Any]:
    """Beads of your town, newest first. `total` says how many there are; `skip` so many to see the rest."""
    found = Bead.objects.select_related("rig").filter(town=call.run.town).order_by("-created_at")
    if args.status:
        found = found.filter(status=args.status)
    if args.type:
        found = found.filter(type=args.type)
    if args.rig:
        found = found.filter(rig=rig_of(call, args.rig))
    page = found.prefetch_related("blocked_by")[args.skip : args.skip + args.limit]
    return {"beads": [bead_data(b) for b in page], "total": found.count()}


class BeadCreateArgs(Args):
    """gt_bead_create and gt_sling"""

    title: Short
    body: Text = ""
    rig: Annotated[str, Field(max_length=50)] | None = None
    priority: Annotated[int, Field(ge=0, le=4)] = 2
    after: Annotated[list[str], Field(max_length=50)] = []


@tool("gt_bead_create", ALL, BeadCreateArgs)
def bead_create(call: Call, args: BeadCreateArgs) -> dict[str, Any]:
    """File a new issue bead. It waits until a person releases it, unless the config says otherwise: see `staged`.

    How many a run and a town's day may file, and how deep (a bead filed in work on a filed bead …), is limited
    ([limits]); above that the answer is `limit_reached`, and nothing is made.
    """
    rig = rig_of(call, args.rig)
    after = [bead_of(call, key) for key in args.after]
    filed = filing.file(call, [rig], 1)
    made = ledger.create_bead(
        call.run.town,
        rig,
        ledger.Draft(args.title, body=args.body, priority=args.priority),
        actor=sender(call),
        after=after,
        filed=filed,
    )
    tell_filed(call, made, filed)
    return {"id": made.pk, "staged": filed.waits, "why": filing.WAITS if filed.waits else filing.GOES}


def tell_filed(call: Call, made: Bead, filed: ledger.Filed) -> None:
    """Wake the town; what waits for a person is a fact, so that people hear of it."""
    if filed.waits:
        inbox.record(call.run.town, "bead.filed", made.pk, {"run": filed.run}, actor=sender(call))
    else:
        inbox.wake(call.run.town)


@tool("gt_sling", MAYOR, BeadCreateArgs)
def sling(call: Call, args: BeadCreateArgs) -> dict[str, Any]:
    """Sling one issue bead to a rig; as `gt_bead_create`."""
    return bead_create(call, args)
