"""Rules for runs: an end is concluded from a report or from the lease, never from a failed look. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from agents.lifecycle import RunOutcome, RunResult
from beads.values import format_duration
from refinery.core.actions import Action, Decision, EndRun, Escalate, NudgeRun, StopRun
from refinery.core.beadviews import RunView
from refinery.core.budgets import waits
from refinery.core.questions import ended_asking
from refinery.core.world import FENCE_MARGIN, World

BUDGET_GRACE = dt.timedelta(seconds=20)
_LIMIT = re.compile(r"\w+ limit of \w+ reached")  # agents.runtime.limits says it so


def decide(world: World) -> Iterator[Decision]:
    """One decision for each live run."""
    for run in world.runs:
        rule, why, actions = _one(world, run)
        yield Decision(f"run {run.id}", rule, why, actions)


def _one(world: World, run: RunView) -> tuple[str, str, tuple[Action, ...]]:
    unwanted = _unwanted(world, run)
    match run.state:
        case "queued":
            unwanted = unwanted or _over(world, run)
            if run.stop_requested or unwanted:
                why = unwanted or "stopped before it started"
                return "stop-queued", why, (EndRun(run.id, "queued", "stopped", why),)
            return "await-runner", "waits for a runner to pick it", ()
        case "starting":
            if run.start_error:
                return (
                    "start-failed",
                    run.start_error,
                    (EndRun(run.id, "starting", "start_failed", run.start_error),),
                )
            if run.start_deadline is not None and world.now > run.start_deadline:
                why = "not claimed before its start deadline"
                return "start-deadline", why, (EndRun(run.id, "starting", "start_failed", why),)
            return "await-claim", "its runner is preparing it", ()
        case _:
            return _running(world, run, unwanted)


def _running(world: World, run: RunView, unwanted: str) -> tuple[str, str, tuple[Action, ...]]:
    over = _over(world, run)
    if run.exited_at is not None:
        outcome, why = conclude(run)
        excuse = over or ended_asking(run, world.asked.get(run.bead))
        if outcome == RunOutcome.FAILED and not run.result and excuse:
            outcome, why = RunOutcome.STOPPED, excuse  # no attempt is used up: it could not go on
        return "exited", why, (EndRun(run.id, "running", outcome, why),)
    if run.lease_until is not None and world.now > run.lease_until + FENCE_MARGIN:
        why = "no heartbeat within its lease: fenced"
        return "lease-over", why, (EndRun(run.id, "running", "lost", why),)
    if unwanted and not run.stop_requested:
        return "stop-unwanted", unwanted, (StopRun(run.id, unwanted),)
    if run.stop_requested:
        return "await-stop", "was asked to stop", ()
    if run.result:
        return "await-exit", "has reported its result and is ending", ()
    if over:
        # its CLI is given time to show the refusal, and to end by itself; any call of a model is refused meanwhile
        used_at = world.budgets.used_at.get(run.id)
        if used_at is None or world.now >= used_at + BUDGET_GRACE:
            return "budget-used-up", over, (StopRun(run.id, over),)
        return "budget-grace", over, ()
    return _patrol(world, run) or ("working", "is working", ())


def _over(world: World, run: RunView) -> str:
    """Why it may spend no more, or an empty string. Gates spend nothing."""
    cap = world.budgets.over(run.id, run.account)
    if cap is None or run.kind == "gates":
        return ""
    return waits(cap)


def _patrol(world: World, run: RunView) -> tuple[str, str, tuple[Action, ...]] | None:
    """An agent of which nothing is heard is reminded, told of, stopped. A tool that it reports is activity."""
    if run.kind == "gates" or run.active_tool or run.activity_at is None or run.rig not in world.rigs:
        return None
    limits = world.rigs[run.rig].config.patrol
    idle = world.now - run.activity_at
    if idle < limits.nudge:
        return None
    why = f"no activity for {_rounded(idle)}"
    if idle >= limits.stop:
        return "patrol-stop", why, (StopRun(run.id, f"stopped by the patrol: {why}", counts=True),)
    key = f"idle:{run.id}:{run.activity_at.isoformat()}"
    if idle >= limits.escalate and key not in world.escalated:
        left = format_duration(limits.stop)
        text = f"Run {run.id} of {run.bead} shows {why}. It is stopped after {left}; look at its log, or stop it now."
        return "patrol-escalate", why, (Escalate(key, f"Silent run: {run.id}", text, "medium", run.bead),)
    if run.nudged_at is None or run.nudged_at < run.activity_at:
        message = f"{why}: go on, say where you are with gt_status, or ask for help with gt_escalate"
        return "patrol-nudge", why, (NudgeRun(run.id, message),)
    return "patrol-silent", why, ()


def _rounded(idle: dt.timedelta) -> str:
    """A length of time in words, never rounded to more than has passed, nor to nothing."""
    unit = dt.timedelta(milliseconds=1)
    if idle >= dt.timedelta(hours=1):
        unit = dt.timedelta(minutes=1)
    elif idle >= dt.timedelta(seconds=1):
        unit = dt.timedelta(seconds=1)
    return format_duration(idle // unit * unit)


def conclude(run: RunView) -> tuple[str, str]:
    """The outcome of a run that has reported its exit, with one sentence."""
    how = f"exit code {run.exit_code}"
    if run.exit_signal:
        how = f"signal {run.exit_signal}"
    if run.kind == "gates":
        return _gates_ended(run, how)
    if run.work == "unsaved" and run.result == RunResult.DONE:
        return "lost", run.exit_error or "its work could not be taken in"
    if run.result == RunResult.DONE and run.work in ("refused", "uncommitted"):
        return "failed", f"it said gt_done, but {run.work_text or run.work}{_quoted(run.words)}"
    if run.result:
        return "done", run.summary or "reported its result"
    said = _quoted(run.last_line)
    if run.stop_requested:
        if run.stop_counts:
            return "failed", f"{run.stop_reason or 'stopped'}{said}"
        return "stopped", f"{run.stop_reason or 'stopped'}{_quoted(run.words)}"
    if run.exit_error:
        # a limit that it has reached is the run's own doing and uses up an attempt; anything else is the host's fault
        if _LIMIT.fullmatch(run.exit_error):
            return "failed", f"{run.exit_error}{said}"
        return "lost", run.exit_error
    return "failed", f"ended without gt_done ({how}){said}"


def _quoted(words: str) -> str:
    """What an agent has said last, behind a sentence; empty where that is not known."""
    if not words:
        return ""
    return f': "{words}"'


def _gates_ended(run: RunView, how: str) -> tuple[str, str]:
    if run.has_steps:
        return "done", "its gates were run"
    if run.stop_requested:
        return "stopped", "stopped"
    return "lost", run.exit_error or how


def _unwanted(world: World, run: RunView) -> str:
    """Why a live run should not go on, or an empty string."""
    if run.bead in world.final_beads_with_live_runs:
        return "its bead has ended"
    check = world.check.get(run.bead)
    if check is not None and run.created_at < check.asked_at:
        return "its gates were asked for again"
    entry = world.entry.get(run.bead)
    if check is not None:
        entry = check.entry
    if entry is not None and run.kind in ("gates", "refinery"):
        if entry.reject_requested or entry.source_cancelled:
            return "its review entry is being withdrawn"
        if entry.waiting_for:
            return "its change is being worked on again"
        wanted = {*entry.commits}
        if run.purpose == "review":  # its verdict is of the head, whatever the car ahead has become meanwhile
            wanted |= entry.built_as
        if run.start_sha not in wanted:
            return "its candidate was replaced"
    return ""
