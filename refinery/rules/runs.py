"""Rules for runs: an end is concluded from a report or from the lease, never from a failed look. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from refinery.rules.actions import Action, Decision, EndRun, StopRun
from refinery.world import FENCE_MARGIN, RunView, World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each live run."""
    for run in world.runs:
        rule, why, actions = _one(world, run)
        yield Decision(f"run {run.id}", rule, why, actions)


def _one(world: World, run: RunView) -> tuple[str, str, tuple[Action, ...]]:
    unwanted = _unwanted(world, run)
    match run.state:
        case "queued":
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
    if run.exited_at is not None:
        outcome, why = conclude(run)
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
    return "working", "is working", ()


def conclude(run: RunView) -> tuple[str, str]:
    """The outcome of a run that has reported its exit, with one sentence."""
    how = f"signal {run.exit_signal}" if run.exit_signal else f"exit code {run.exit_code}"
    if run.kind == "gates":
        if run.has_steps:
            return "done", "its gates were run"
        return ("stopped", "stopped") if run.stop_requested else ("lost", run.exit_error or how)
    if run.result:
        return "done", run.summary or "reported its result"
    if run.stop_requested:
        return "stopped", "stopped"
    if run.exit_error:
        return "lost", run.exit_error
    return "failed", f"ended without gt_done ({how})"


def _unwanted(world: World, run: RunView) -> str:
    """Why a live run should not go on, or an empty string."""
    if run.bead in world.final_beads_with_live_runs:
        return "its bead has ended"
    entry = world.entry.get(run.bead)
    if entry is not None and run.kind in ("gates", "refinery"):
        if entry.reject_requested or entry.source_cancelled:
            return "its review entry is being withdrawn"
        candidate = entry.candidate
        if candidate is None or run.start_sha not in (candidate.sha, candidate.head):
            return "its candidate was replaced"
    return ""
