"""Actions on runs and agents, through their writers."""

from __future__ import annotations

import datetime as dt

from agents import mail, roster, runs
from agents.lifecycle import RunKind, RunOutcome
from agents.models import Agent, Run
from beads import ledger
from beads.lifecycle import BeadStatus
from beads.models import Bead, Town
from beads.prepared import Prepared
from refinery.core import effects
from refinery.core.actions import EndRun, NudgeRun, OfRuns, PublishRun, RetireAgent, StartRun, StopRun
from refinery.store import comments, verdicts
from refinery.tick import briefs
from refinery.tick.endings import ACTOR, enqueue

_BEAD = Prepared(lambda pk: Bead.objects.select_related("town", "rig", "convoy", "parent").filter(pk=pk))


def apply(town: Town, action: OfRuns, now: dt.datetime) -> None:
    """Carry out one of them."""
    match action:
        case StartRun():
            _start_run(action, now)
        case EndRun(run, expect, outcome, reason):
            runs.end(run, expect, RunOutcome(outcome), reason, now)
            ledger.settle_keys(town, f"idle:{run}:", ACTOR, now, f"the run has ended: {reason}")
        case StopRun(run, reason, counts):
            runs.request_stop(run, reason, now, counts=counts)
        case NudgeRun(run, message):
            _nudge(run, message, now)
        case PublishRun(run):
            runs.request_publish(run, now)
            enqueue(town, effects.Publish(run), now, Run.objects.only("rig").get(pk=run).rig_id)
        case RetireAgent(agent):
            roster.retire(Agent(pk=agent), now)


def _nudge(run_id: str, message: str, now: dt.datetime) -> None:
    runs.note_nudged(run_id, now)
    run = Run.objects.select_related("agent").get(pk=run_id)
    if run.agent is not None:
        mail.nudge(run, "patrol", message, now)


def _start_run(action: StartRun, now: dt.datetime) -> None:
    (bead,) = _BEAD(action.bead)
    if action.expect_status is not None:
        change = ledger.Transition(BeadStatus.IN_PROGRESS, reason=f"{action.brief} dispatched")
        ledger.move(bead, action.expect_status, change, actor=ACTOR)
    order = briefs.order(bead, action.brief, action.start_sha)
    agent: Agent | None
    match RunKind(action.kind):
        case RunKind.POLECAT:
            agent = roster.polecat_for(order.rig, action.prefer_agent, order.author)
        case RunKind.REFINERY:
            agent = roster.refinery_for(order.rig, order.lane_convoy)
        case RunKind.MAYOR:
            agent = roster.mayor_for(bead.town)
        case _:
            agent = None
    runs.queue_run(
        bead,
        runs.Assignment(
            RunKind(action.kind),
            action.brief,
            target=order.target,
            steps=order.steps,
            brief=order.brief,
            start_sha=action.start_sha,
            account=order.account,
        ),
        agent=agent,
        lease=order.lease,
        prefix=order.prefix,
        at_most=action.at_most,
    )
    mail.briefed(order.brief.get("beads") or (), now)
    verdicts.pass_on(order.words.verdicts, bead)
    comments.pass_on(order.words.comments, bead)
