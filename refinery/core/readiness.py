"""What beads and convoys wait for, derived from the world: readiness, phases, when the next try is due. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from itertools import takewhile

from agents.lifecycle import RunOutcome, RunState
from agents.runtime.failures import KINDS, TROUBLE, Fate
from beads.config import Config
from beads.lifecycle import BeadStatus, Resolution
from refinery.core.beadviews import BeadView, RunView
from refinery.core.budgets import waits
from refinery.core.convoyviews import ConvoyView
from refinery.core.questions import ASKS
from refinery.core.stages import HOST_FAULTS_FREE
from refinery.core.states import EntryState
from refinery.core.telling import alike, led_by
from refinery.core.world import RigView, World

SET_UP = ("sandbox", "set_up")  # kinds of failures of a start, beside those of git
# rules that the phase of a bead depends on
UNRELEASED, HELD, DISPATCH, NO_SLOT = "unreleased", "held", "dispatch", "no-slot"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def unmanned(slug: str) -> str:
    """What is said of a rig that has work and no command for who does it."""
    return (
        f"rig {slug} has no agents.polecat.command, so nobody works on its beads: name one, or a preset, under "
        f"[agents.polecat], then rig config {slug} --config FILE.toml"
    )


def host_faults(bead_runs: Iterable[RunView]) -> int:
    """How many of the latest runs in a row ended by the host's fault; an outage of the remote, and a full disk, are
    waited for and do not count."""
    return sum(1 for run in _by_the_host(bead_runs) if not passes(run.fault))


def _by_the_host(runs: Iterable[RunView]) -> list[RunView]:
    """The latest runs in a row that ended by the host's fault, whatever it was; the last one first."""
    ended = reversed([r for r in runs if not r.live])
    return list(takewhile(lambda run: run.outcome in (RunOutcome.LOST, RunOutcome.START_FAILED), ended))


def passes(fault: str) -> bool:
    """True for a kind of failure of a start that goes by itself, or with the outage that it belongs to."""
    return fault == "disk_full" or (fault in KINDS and KINDS[fault].fate in TROUBLE)


def stays(run: RunView) -> bool:
    """True when a run could not be started, and the next one cannot either until a person mends something."""
    if run.outcome != RunOutcome.START_FAILED:
        return False
    return run.fault in SET_UP or (run.fault in KINDS and KINDS[run.fault].fate == Fate.CHANGE)


def same_set_up_error(runs: Iterable[RunView]) -> str:
    """The line with which the last two attempts ended alike, each within seconds and without having got to work; empty
    where they did not. Whatever it is, it is not the task: a third attempt would end so, too."""
    tried = [
        r
        for r in runs
        if not r.live and r.outcome not in (RunOutcome.LOST, RunOutcome.START_FAILED, RunOutcome.STOPPED)
    ][-2:]
    if len(tried) < 2 or not all(r.outcome == RunOutcome.FAILED and r.stillborn and r.last_line for r in tried):
        return ""
    one, two = ((r.exit_code, r.exit_signal, alike(r.last_line)) for r in tried)
    if one != two:
        return ""
    return tried[-1].last_line


def next_try_at(bead: BeadView, config: Config) -> dt.datetime:
    """The earliest moment for the next attempt. Host faults retry at once, until they repeat."""
    last = bead.last_run
    if last is None or last.ended_at is None:
        return EPOCH
    if last.outcome == RunOutcome.FAILED:
        return last.ended_at + config.dispatch.backoff_for(bead.attempts_used)
    return start_again_at(bead.runs, config)


def start_again_at(runs: Iterable[RunView], config: Config) -> dt.datetime:
    """The earliest moment for another start after runs that ended by the host's fault: the first few at once."""
    faults = _by_the_host(runs)
    if len(faults) < HOST_FAULTS_FREE or (at := faults[0].ended_at) is None:
        return EPOCH
    return at + config.dispatch.backoff_for(len(faults) - HOST_FAULTS_FREE + 1)


def bead_wait(world: World, bead: BeadView) -> str | None:
    """Why an open bead is not dispatched now, in one sentence; None when it is ready."""
    rig = world.rigs[bead.rig]
    convoy = world.convoy.get(bead.convoy or "")
    if bead.unreleased and (convoy is None or convoy.started_at is not None):
        return bead.unreleased
    if stopped := world.stopped(rig):
        return stopped
    if world.no_room:
        return world.no_room
    if convoy is not None and convoy.started_at is None:
        return "its convoy is staged: start it"
    if bead.waiting_for:
        return "waits for " + ", ".join(f"{b.id} ({b.status}{b.unreleased})" for b in bead.waiting_for)
    if convoy is not None and convoy.lands_once and not convoy.is_cut_in(bead.rig):
        return "its convoy's feature branch is being created"
    nobody = ""
    if rig.config.agents.polecat is None:
        nobody = unmanned(rig.slug)
    return rig_wait(world, rig, nobody) or budget_wait(world, bead) or retry_wait(world, bead)


def budget_wait(world: World, bead: BeadView) -> str | None:
    """Which budget has nothing left for a bead; None when none holds it."""
    cap = world.budgets.held(world.account_of(bead))
    if cap is None:
        return None
    return waits(cap)


def rig_wait(world: World, rig: RigView, nobody: str) -> str | None:
    """Why nobody is sent to work in a rig now. `nobody`: what is said where no agent is configured who could be."""
    if rig.problems:
        return f"the config is refused: {rig.problems[0]}"
    if rig.outage is not None:
        return rig.outage.words(world.now)
    if nobody:
        return nobody
    if world.breaker_open and not world.probe_due:
        return breaker(world)
    return None


def retry_wait(world: World, bead: BeadView) -> str | None:
    """Why a bead's next attempt is still to come; None when it may begin."""
    due = next_try_at(bead, world.rigs[bead.rig].config)
    if world.now >= due:
        return None
    last, again = bead.last_run, f"{due:%H:%M:%S} UTC"
    if last is not None and last.outcome == RunOutcome.START_FAILED:
        return f"its run could not be started: {last.reason}; tried again at {again}"
    if last is not None and last.outcome == RunOutcome.LOST:
        return f"its run was lost: {last.reason}; tried again at {again}"
    if last is not None:
        again += led_by("; the last: ", last.reason)
    return f"attempt {bead.attempts_used + 1} starts at {again}"


def breaker(world: World) -> str:
    """What is said of a bead that the open breaker keeps waiting."""
    return f"the breaker is open: {world.failures_in_a_row} runs in a row failed"


def bead_phase(bead: BeadView, rule: str) -> str:
    """The people's word for a live bead without a review entry, by the `rule` that decided about it: awaiting_human,
    waiting, ready, starting or working."""
    if bead.live_run is not None and bead.live_run.state == RunState.RUNNING:
        return "working"
    if bead.live_run is not None:
        return "starting"
    if rule in (UNRELEASED, HELD, ASKS):
        return "awaiting_human"
    if rule in (DISPATCH, NO_SLOT):
        return "ready"
    return "waiting"


def convoy_phase(convoy: ConvoyView) -> str:
    """The people's word for a live convoy: staged, active, needs_attention, ready_to_land or landing."""
    if convoy.started_at is None:
        return "staged"
    if convoy.uncut:
        return "active"
    if convoy.failed_beads:
        return "needs_attention"
    if any(entry.state == EntryState.ACTIVE for entry in convoy.landings):
        return "landing"
    if convoy.all_closed:
        return "ready_to_land"
    return "active"


def ended_phase(status: str, resolution: str) -> str:
    """An ended convoy's phase: landed, closed, cancelled or failed."""
    if status == BeadStatus.FAILED:
        return "failed"
    if resolution == Resolution.MERGED:
        return "landed"
    if resolution == Resolution.CANCELLED:
        return "cancelled"
    return "closed"
