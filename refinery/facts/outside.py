"""What came of the work outside the database: builds, pushes, looks, and what gave up."""

from __future__ import annotations

from agents import runs
from beads import ledger
from beads.models import Bead, Rig
from refinery.core import effects
from refinery.core.states import BuildResult, LandingState
from refinery.facts import subjects
from refinery.facts.payloads import BranchSeen, Built, EffectKey, EffectTold, Foreseen, Landed
from refinery.facts.registry import Taken, fact
from refinery.store import candidates, entries, forecasts, landings


@fact("candidate.built", says=Built, replayable=True)
def built(it: Taken[Built]) -> None:
    """What one build gave."""
    entry = subjects.entry(it)
    candidates.record(entry.pk, it.said.build_no, it.said.model_dump())
    if it.said.base and it.said.on is None:
        _target_seen(entry.rig, entry.target, it.said.base)


def _target_seen(rig: Rig, target: str, sha: str) -> None:
    """Where a lane's target is."""
    forecasts.seen(rig, target, sha)
    entries.target_seen(rig, target, sha)


@fact("landing.concluded", says=Landed, replayable=True)
def landed(it: Taken[Landed]) -> None:
    """How a push ended, for each car that it carried."""
    for car in landings.cars_of(subjects.landing(it)):
        end = it.said.cars.get(str(car.pk), it.said)
        landings.conclude(car.pk, end.state, end.message, it.now)
        if end.state == LandingState.HEAD_MOVED:
            entries.head_seen(car.entry_id, end.head)
        elif end.state == LandingState.LANDED:
            _target_seen(car.rig, car.target, car.candidate.sha)


@fact("branch.seen", says=BranchSeen, replayable=True)
def branch_seen(it: Taken[BranchSeen]) -> None:
    """Where a convoy's branch is."""
    ledger.branch_seen(subjects.branch(it).pk, it.said.sha, it.said.asked_at)


@fact("lane.foreseen", says=Foreseen, replayable=True)
def foreseen(it: Taken[Foreseen]) -> None:
    """What was asked about a lane ahead of time."""
    forecasts.answered(subjects.forecast(it), it.said.model_dump())


_HAS_A_SUBJECT = frozenset({effects.Build.name, effects.Land.name, effects.Publish.name})


@fact("effect.failed", says=EffectTold, replayable=True)
def failed(it: Taken[EffectTold]) -> None:
    """An effect gave up: the subject it was for learns that, and why."""
    said = it.said
    match effects.read(said.kind, said.payload) if said.kind in _HAS_A_SUBJECT else None:
        case effects.Build(entry=entry, build_no=build_no, head=head):
            told = {"result": BuildResult.ERROR, "head": head, "error": said.error}
            candidates.record(entry, build_no, told)
        case effects.Land(landing=landing):
            landings.conclude(landing, LandingState.REFUSED, said.error, it.now)
        case effects.Publish(run=run):
            runs.note_refused(run, f"the remote refused its branch: {said.error}")
        case _:
            ledger.escalate(
                it.town,
                ledger.Problem(
                    f"effect:{said.kind}:{it.town.slug}",
                    f"Outside work failed: {said.kind}",
                    body=said.error,
                    severity="high",
                ),
                actor="gastown",
            )


@fact("effect.struggling", says=EffectTold, replayable=True)
def struggling(it: Taken[EffectTold]) -> None:
    """An effect fails time and again, and goes on trying."""
    ledger.escalate(
        it.town,
        ledger.Problem(
            f"effect:{it.said.key}",
            f"Outside work keeps failing: {it.said.kind}",
            body=it.said.error,
            severity="high",
            about=Bead.objects.filter(pk=str(it.said.payload.get("entry", "")), town=it.town).first(),
        ),
        actor="gastown",
    )


@fact("effect.recovered", says=EffectKey)
def recovered(it: Taken[EffectKey]) -> None:
    """It has succeeded after all."""
    ledger.settle_key(it.town, f"effect:{it.said.key}", "gastown", it.now, "it has succeeded")
