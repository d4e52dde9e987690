"""The only writer of landings: the intent to push one candidate, and what git showed afterwards.

An intent names the evidence that lets its candidate land, and is refused (`LostRace`) where that does not hold.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from django.db import transaction

from beads import prune
from beads.errors import LostRace
from refinery.core.entryviews import NotNeeded
from refinery.core.states import GateOutcome, LandingState
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, Waiver

OPEN_LANDING = ("intent", "pushing")


def intend(
    cars: Sequence[tuple[Candidate, Sequence[int | NotNeeded]]], waivers: Mapping[int, int] | None = None
) -> Landing:
    """Write the intent to push candidates, each on the one before, with the gate results that let each land.

    `waivers`: candidate → the waiver of its gates that let it land without them.

    Returns the landing of the last one, whose push carries them all. LostRace when an entry moved on, a result is no
    pass on exactly its tree or that of its batch, a gate is needed after all, they do not stand on one another, or the
    target has an open landing.
    """
    last, entry = cars[-1][0], cars[-1][0].entry
    for (below, _), (above, _) in pairwise(cars):
        if above.base_sha != below.sha:
            raise LostRace(f"candidate {above.pk} does not stand on {below.pk}")
    if Landing.objects.filter(rig=entry.rig, target=entry.target, state__in=OPEN_LANDING).exists():
        raise LostRace(f"{entry.target} has an open landing")
    expected = cars[0][0].base_sha
    waived = waivers or {}
    sealed_by = _seals([candidate for candidate, _ in cars])
    push = _intend(last, cars[-1][1], expected, None, None, waived.get(last.pk))
    for candidate, evidence in cars[:-1]:
        _intend(candidate, evidence, expected, push, sealed_by.get(candidate.pk), waived.get(candidate.pk))
    return push


def _seals(cars: Sequence[Candidate]) -> dict[int, Candidate]:
    """The candidates that are members of a batch among these, and the one that seals it."""
    found: dict[int, Candidate] = {}
    for end, seal in enumerate(cars):
        first = next((n for n, c in enumerate(cars[:end]) if seal.seal_sha and c.base_sha == seal.seal_sha), end)
        found |= {member.pk: seal for member in cars[first:end]}
    return found


def _intend(
    candidate: Candidate,
    evidence: Sequence[int | NotNeeded],
    expected: str,
    push: Landing | None,
    seal: Candidate | None,
    waiver: int | None,
) -> Landing:
    entry = candidate.entry
    if (
        not ReviewEntry.objects.active()
        .filter(pk=entry.pk, head_sha=candidate.head_sha, build_no=candidate.build_no, held="")
        .exists()
    ):
        raise LostRace(f"{entry.pk} is no longer at candidate {candidate.pk}")
    passed = [e for e in evidence if isinstance(e, int)]
    others = [e for e in evidence if not isinstance(e, int)]
    results = list(GateResult.objects.select_related("candidate__entry").filter(pk__in=passed))
    trees = {r.tree_sha for r in results} or {candidate.tree_sha}
    sealed = seal is not None and trees == {seal.tree_sha} != {candidate.tree_sha}
    if (
        len(results) != len(passed)
        or not (sealed or trees == {candidate.tree_sha})
        or any(r.outcome != GateOutcome.PASS or r.candidate.entry.rig_id != entry.rig_id for r in results)
    ):
        raise LostRace(f"the gates of {entry.pk} have not all passed on tree {candidate.tree_sha} or its batch's")
    gated = candidate
    if sealed and seal is not None:
        gated = seal
    if any(list(e.paths) not in gated.untouched for e in others):
        raise LostRace(f"it is not known that {entry.pk} needs none of the gates that it has not passed")
    batch = {}
    if gated is not candidate:
        batch = {"batch": gated.pk}
    told: list[dict[str, Any]] = [
        {"gate": r.gate, "outcome": r.outcome, "tree": r.tree_sha, "result": r.pk, **batch}
        | ({"flaky": True} if r.flaky else {})
        for r in results
    ]
    told += [
        {"gate": e.gate, "outcome": "not_needed", "tree": gated.tree_sha, "paths": list(e.paths), **batch}
        for e in others
    ]
    if waiver:
        given = Waiver.objects.filter(pk=waiver, entry=entry, head_sha=candidate.head_sha).first()
        if given is None:
            raise LostRace(f"nobody has waived the gates of {candidate.head_sha[:12]}")
        because = {"waiver": given.pk, "by": given.by, "because": given.reason}
        told.append({"gate": "*", "outcome": "skipped", "tree": candidate.tree_sha, **because})
    return Landing.objects.create(
        entry=entry,
        candidate=candidate,
        push=push,
        rig=entry.rig,
        target=entry.target,
        expected_sha=expected,
        evidence=told,
    )


def begin_push(landing_id: int) -> bool:
    """The executor's compare-and-swap before it pushes: False when the intent was withdrawn or concluded."""
    with transaction.atomic():
        if Landing.objects.intended().filter(pk=landing_id).update(state=LandingState.PUSHING):
            Landing.objects.intended().filter(push=landing_id).update(state=LandingState.PUSHING)
            return True
    return Landing.objects.pushing().filter(pk=landing_id).exists()


def cars_of(landing: Landing) -> list[Landing]:
    """The landings that one push carries, in order; the last one is the push itself."""
    carried = Landing.objects.select_related("entry", "candidate", "rig").filter(push=landing).order_by("id")
    return [*carried, landing]


def ends(landing: Landing) -> bool:
    """True when the very tree of this car was gated, so that a push may end with it; else its batch's was."""
    return not any("batch" in seen for seen in landing.evidence)


def conclude(landing_id: int, state: str, message: str, now: dt.datetime) -> None:
    """Observation: what git showed after the push. The first conclusion counts."""
    Landing.objects.filter(pk=landing_id, state__in=OPEN_LANDING).update(
        state=state, message=message[:2000], concluded_at=now
    )


def abandon(landing_id: int, now: dt.datetime) -> None:
    """Withdraw an intent that nobody has begun to push, with all that its push carries; LostRace when somebody has."""
    found = Landing.objects.get(pk=landing_id)
    push = found.push_id or found.pk
    changed = Landing.objects.intended().filter(pk=push).update(state=LandingState.ABANDONED, concluded_at=now)
    if changed != 1:
        raise LostRace(f"landing {landing_id} is being pushed")
    Landing.objects.intended().filter(push=push).update(state=LandingState.ABANDONED, concluded_at=now)


def abandon_intents(entry: ReviewEntry, now: dt.datetime) -> None:
    """Withdraw the intents of an entry that leaves; LostRace when one is being pushed."""
    for landing in entry.landings.intended():
        abandon(landing.pk, now)


def forget(entries: Sequence[str]) -> int:
    """Remove the landings of these entries: they have been archived."""
    return prune.delete(Landing.objects.filter(entry__any=entries))
