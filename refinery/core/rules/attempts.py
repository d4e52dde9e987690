"""What follows from an agent's run that could not be started, was lost or has failed: another attempt, or a person.

Pure. The same for all who work on beads, be it a polecat on an issue or the mayor on a request.
"""

from __future__ import annotations

from agents.lifecycle import RunOutcome, RunState
from beads.lifecycle import BeadStatus
from refinery.core.actions import Action, Escalate, MoveBead, Ruling
from refinery.core.beadviews import BeadView, RunView
from refinery.core.readiness import host_faults, same_set_up_error, stays
from refinery.core.rules.needs import raised, settled
from refinery.core.stages import HOST_FAULTS_FREE
from refinery.core.world import World


def another(bead: BeadView, why: str) -> MoveBead:
    """The bead goes back in line, for another attempt."""
    return MoveBead(bead.id, bead.status, BeadStatus.OPEN, why)


def hopeless(world: World, bead: BeadView, run: RunView) -> str:
    """Why a bead whose last run has failed gets no other attempt; empty when it does."""
    if same_set_up_error(bead.runs):
        return f"the same set-up error twice: {run.reason}"
    limit = world.rigs[bead.rig].config.dispatch.max_attempts
    if bead.attempts_used >= limit:
        return f"gave up after {limit} attempts; the last: {run.reason}"
    return ""


def voided(world: World, bead: BeadView, run: RunView) -> Ruling:
    """A run for whose end the bead is not to blame costs no attempt."""
    why = f"run {run.id} {run.outcome.replace('_', ' ')}: {run.reason}"
    return "attempt-void", why, (another(bead, why), *_cannot_start(world, bead, run))


def runs_again(world: World, bead: BeadView) -> tuple[Action, ...]:
    """The end of the need that runs of a rig cannot be started: the bead's run has."""
    if bead.live_run is None or bead.live_run.state != RunState.RUNNING:
        return ()
    return settled(world, _start_key(bead), "runs start again")


def _start_key(bead: BeadView) -> str:
    return f"start:{bead.rig}"


def _cannot_start(world: World, bead: BeadView, run: RunView) -> tuple[Action, ...]:
    """What keeps all runs of a rig from starting is one need, until one of them runs."""
    lasting = stays(run) or host_faults(bead.runs) >= HOST_FAULTS_FREE
    if run.outcome != RunOutcome.START_FAILED or not lasting:
        return ()
    rig = world.rigs[bead.rig].slug
    text = (
        f"Run {run.id} of {bead.id} could not be started: {run.reason}\n\n"
        f"What to do: mend that (gastown doctor looks at this machine; gastown rig config {rig} --config FILE replaces "
        "the config). It is tried again by itself, more and more rarely."
    )
    title = f"Rig {rig}: runs cannot be started: {run.reason}"[:300]
    return raised(world, Escalate(_start_key(bead), title, text, "high", bead.id))
