"""What an agent may file: the budgets of `[limits]`, and who lets it be worked on.

Every tool call holds its run's lock, so the counts of one run cannot be passed by calls in parallel; what the town's
day may hold is counted under a lock of its own. A call that is refused, or that repeats an Idempotency-Key, leaves
nothing behind that counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from django.db import connection

from agents.api.tools import Call, LimitReached
from agents.models import Run, ToolCall
from beads import config as configs
from beads import questions
from beads.config import FiledBeads, LimitsConfig
from beads.ledger import Filed
from beads.lifecycle import BeadType
from beads.models import Bead, Rig, Town

DAY = dt.timedelta(hours=24)
LOCK_CLASS = 0x6A58  # first key of the advisory lock pair; the second is the town's
MAX_ESCALATION = 16 * 1024  # characters: a person is to read it
MAX_MAIL = 64 * 1024
MAIL = ("gt_mail_send", "gt_nudge")
WAITS = "what agents file waits until a person releases it ([limits] filed_beads)"
GOES = "dispatched when it is ready"


def limits_of(town: Town, rig: Rig) -> LimitsConfig:
    """The `[limits]` that hold in a rig of `town`; the defaults where its config cannot be used."""
    return configs.usable(town.config, rig.config)[0].limits


def asked_first(town: Town, rigs: Iterable[Rig]) -> bool:
    """True when a person has to release what is filed by or for any of these rigs."""
    return any(limits_of(town, rig).filed_beads != FiledBeads.DISPATCH for rig in rigs)


def file(call: Call, rigs: Iterable[Rig], count: int, *, planned: bool = False) -> Filed:
    """Take `count` beads for `rigs` from the budgets of the run and of the town's day; call it before they are made.

    `planned`: they are a convoy's. A person looks at it as a whole before any of it is begun, so it may be larger;
    where nobody is asked, they count as all others do. Returns what the ledger is to note of each. Of the rigs
    concerned (the run's own is one of them) the strictest word counts. Raises LimitReached naming the key, its value
    and what was asked for; nothing is taken then.
    """
    run = call.run
    concerned = [run.rig, *rigs]
    depth = run.bead.depth + 1
    deepest = min(limits_of(run.town, rig).depth for rig in concerned)
    if depth > deepest:
        raise LimitReached(
            "limits.depth",
            deepest,
            f"limits.depth is {deepest}: your own bead {run.bead_id} is at depth {run.bead.depth}, so you may file "
            "none. Say with gt_done or gt_escalate what is left to do. Nothing was made",
        )
    waits = asked_first(run.town, concerned)
    made = Bead.objects.filter(filed_by=run.pk, type=BeadType.ISSUE)
    limits = limits_of(run.town, run.rig)
    if planned and waits:
        of_plans = made.exclude(convoy=None).count()
        _check("limits.beads_per_plan", limits.beads_per_plan, of_plans, count, "beads were planned in this run")
    else:
        if waits:
            made = made.filter(convoy=None)
        _check("limits.beads_per_run", limits.beads_per_run, made.count(), count, "beads were filed in this run")
    _lock(run.town)
    of_day = Bead.objects.filter(town=run.town, type=BeadType.ISSUE, created_at__gt=call.now - DAY).exclude(filed_by="")
    today = min(limits_of(run.town, rig).beads_per_day for rig in concerned)
    _check("limits.beads_per_day", today, of_day.count(), count, "beads were filed by this town's agents in 24 hours")
    return Filed(run.pk, depth, waits)


def escalate(call: Call) -> None:
    """Take one escalation from the run's budget. Raises LimitReached."""
    run = call.run
    most = limits_of(run.town, run.rig).escalations_per_run
    _check("limits.escalations_per_run", most, _raised(run), 1, "escalations were raised in this run")


def ask(call: Call) -> None:
    """Take one question from the run's budget, which is that of escalations. Raises LimitReached."""
    run = call.run
    most = limits_of(run.town, run.rig).escalations_per_run
    _check("limits.escalations_per_run", most, _raised(run), 1, "escalations and questions were raised in this run")


def write(call: Call) -> None:
    """Take one mail or nudge from the run's budget. Raises LimitReached."""
    most = limits_of(call.run.town, call.run.rig).mail_per_run
    _check("limits.mail_per_run", most, _calls(call.run, *MAIL), 1, "mails and nudges were sent in this run")


def _raised(run: Run) -> int:
    """Escalations and questions of this run. A question that is asked again is not another one."""
    asked = questions.about(run.bead).filter(bead__created_at__gte=run.created_at)
    return _calls(run, "gt_escalate") + asked.count()


def _calls(run: Run, *tools: str) -> int:
    """How many calls of these tools were answered. Those that were refused are not kept."""
    return ToolCall.objects.filter(run=run, tool__in=tools, status=200).count()


def _check(key: str, most: int, made: int, more: int, what: str) -> None:
    if made + more > most:
        asked = ""
        if more > 1:
            asked = f", and {more} more are asked for"
        raise LimitReached(key, most, f"{key} is {most}: {made} {what}{asked}. Nothing was made")


def _lock(town: Town) -> None:
    """Until the call's end, nobody else counts the town's day. The tick never waits for it."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, town.pk])
