"""Landing: the cars of one push, and for each what git shows afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from django.conf import settings

from agents.runtime import caches
from agents.runtime.crashpoints import crashpoint
from beads.models import ConvoyBranch, Rig
from refinery.core import effects
from refinery.executor.registry import Result, does
from refinery.git import repo as git
from refinery.git.mirror import missing_target, repo_of
from refinery.models import Landing
from refinery.store import landings


@does(effects.Land)
def land(work: effects.Land) -> Result | None:
    """Push the cars of one landing, and say for each what git shows afterwards."""
    landing = Landing.objects.select_related("entry", "candidate", "rig").get(pk=work.landing)
    if not landings.begin_push(landing.pk):
        return None
    crashpoint("land.begun")
    cars = landings.cars_of(landing)
    rig = landing.rig
    repo = repo_of(rig)
    # A crash may lie behind us: what is on the remote counts, not what we remember.
    branches = [landing.target, *(car.entry.branch for car in cars if car.entry.on_remote)]
    heads = repo.look(rig.remote_url, branches, landing.expected_sha, landing.candidate.sha)
    actual = heads[landing.target]
    if actual is None and landing.target == rig.default_branch:
        raise missing_target(rig, repo)
    if actual is None:
        return _landed(cars, "refused", f"{landing.target} no longer exists on the remote")
    if actual != landing.expected_sha:
        return _look(repo, rig, landing, cars)
    fit = next((n for n, car in enumerate(cars) if _moved(car, heads)), len(cars))
    told = {}
    if fit < len(cars):
        told = {car.pk: _told("abandoned", f"{cars[fit].entry_id} ahead of it fell out") for car in cars[fit + 1 :]}
        told[cars[fit].pk] = _head_is_gone(cars[fit], heads[cars[fit].entry.branch])
        while fit and not landings.ends(cars[fit - 1]):  # the rest of its batch was not gated without it
            fit -= 1
            told[cars[fit].pk] = _told("abandoned", "another car of its batch fell out")
        if fit == 0:
            return _landed(cars, "abandoned", "", told)
    return _push(repo, rig, landing, cars, fit, told)


def _moved(car: Landing, heads: Mapping[str, str | None]) -> bool:
    """True when the branch is on the remote, and no longer where it was gated."""
    return car.entry.on_remote and heads[car.entry.branch] != car.candidate.head_sha


def _push(
    repo: git.Repo, rig: Rig, landing: Landing, cars: list[Landing], fit: int, told: dict[int, dict[str, str]]
) -> Result:
    """Push the first `fit` cars at once. What a remote refuses together is offered by itself: the first car (or batch)
    alone is then judged, and those behind it try again."""
    alone = next(n for n, car in enumerate(cars, 1) if landings.ends(car))
    tip = cars[fit - 1].candidate.sha
    if fit < len(cars):
        repo.look(rig.remote_url, [landing.target], landing.expected_sha, tip)
    match repo.land(rig.remote_url, landing.target, landing.expected_sha, tip):
        case git.Landed():
            _keep_caches(rig, cars[:fit])
            return _landed(cars, "landed", f"landed on {landing.target} with {tip[:12]}", told)
        case git.TargetMoved(actual=actual):
            return _landed(cars, "moved", f"{landing.target} moved to {actual[:12]} before the push", told)
        case git.PushRefused() if fit > alone:
            again = f"refused together with {cars[0].entry_id}: offered again by itself"
            rest = {car.pk: _told("abandoned", again) for car in cars[alone:fit]}
            return _push(repo, rig, landing, cars, alone, rest | told)
        case git.PushRefused(message=message):
            batch = f"its batch was refused: {message}"
            members = {car.pk: _told("abandoned", batch) for car in cars[: alone - 1]}
            return _landed(cars, "refused", message, members | told)


def _look(repo: git.Repo, rig: Rig, landing: Landing, cars: list[Landing]) -> Result:
    """The target is not where it was expected: it moved, or an earlier try of ours has landed some or all cars."""
    actual = repo.fetch_branch(rig.remote_url, landing.target)
    told = {}
    for car in cars:
        if repo.is_ancestor(car.candidate.sha, actual):
            told[car.pk] = _told("landed", f"landed on {landing.target} as {car.candidate.sha[:12]}")
    _keep_caches(rig, [car for car in cars if car.pk in told])
    if told and len(told) < len(cars):
        return _landed(cars, "abandoned", "what was ahead of it has landed", told)
    return _landed(cars, "moved", f"{landing.target} moved to {actual[:12]} before the push", told)


def _keep_caches(rig: Rig, landed: Sequence[Landing]) -> None:
    """What the gates of these have left serves others from now on; not what has only landed on a convoy's branch."""
    changes = {name for car in landed for name in (car.candidate.sha, car.candidate.head_sha)}
    if landed and not ConvoyBranch.objects.filter(rig=rig, name=landed[0].target).exists():
        caches.promote(Path(settings.GASTOWN_HOME) / "caches" / str(rig.pk), changes)


def _head_is_gone(car: Landing, head: str | None) -> dict[str, str]:
    branch = car.entry.branch
    if head is None:
        return _told("refused", f"branch {branch} no longer exists on the remote")
    return _told("head_moved", f"branch {branch} moved from {car.candidate.head_sha[:12]} to {head[:12]}", head)


def _told(state: str, message: str, head: str = "") -> dict[str, str]:
    return {"state": state, "message": message, "head": head}


def _landed(cars: list[Landing], state: str, message: str, told: Mapping[int, dict[str, str]] | None = None) -> Result:
    """The fact: `state` for all cars but those of which something else is `told`."""
    others = {str(key): value for key, value in (told or {}).items()}
    return "landing.concluded", str(cars[-1].pk), {"state": state, "message": message, "cars": others}
