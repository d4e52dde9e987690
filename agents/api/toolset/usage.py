"""`gt_report_usage`: what an agent whose log-in is a subscription says that it has used."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from agents import usage
from agents.api.tools import ALL, Args, Call, tool
from agents.lifecycle import Channel
from agents.models import Usage
from beads import config as configs
from beads.budget import Spent
from beads.errors import Conflict

MOST_TOKENS = 10_000_000_000  # of one run
MOST_MODELS = 50
_Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class ReportUsageArgs(Args):
    """gt_report_usage"""

    model: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
    input: _Count = 0
    cached: _Count = 0
    written: _Count = 0
    output: _Count = 0
    calls: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cost: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] | None = None


@tool("gt_report_usage", ALL, ReportUsageArgs)
def report_usage(call: Call, args: ReportUsageArgs) -> dict[str, Any]:
    """Say what your run has used of a model so far, in all: tokens (`input` without `cached` and `written`, which were
    read from and written to the provider's cache), and `cost` in US dollars where you know it.

    For agents whose log-in is a subscription. Say it as often as you like: sums never go down, and the same said twice
    counts once. Where the calls went through the model door, its books count, and yours are kept beside them
    (`counts`: false).
    """
    mine = Usage.objects.filter(run=call.run, channel=Channel.TOOL)
    if not mine.filter(model=args.model).exists() and mine.values("model").distinct().count() >= MOST_MODELS:
        raise Conflict(f"this run has reported {MOST_MODELS} models already")
    config, _ = configs.usable(call.run.town.config, call.run.rig.config)
    spent = Spent(args.calls, args.input, args.cached, args.written, args.output)
    told = None if args.cost is None else Decimal(str(args.cost))
    usage.report(call.run, usage.Reading(args.model, spent, told=told), config.prices, Channel.TOOL, call.now)
    better = Usage.objects.filter(run=call.run).exclude(channel=Channel.TOOL).exists()
    return {"counts": not better}
