"""Effects: what the plan wants done outside the database. Each handler looks before it acts.

At least once, under a deterministic key: a second run finds the work done and reports the same result. The result
is a fact, recorded in the transaction that marks the effect done. What could not be asked is tried again later
(unknown never means fine); what was refused for good is reported as `effect.failed`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from agents import caches
from agents.crashpoints import crashpoint
from agents.gitcmd import GitFailed
from agents.models import Run
from agents.roster import refinery_for
from beads import config as configs
from beads import globs, inbox, outbox
from beads.config import RefineryConfig
from beads.errors import Disposition, GastownError
from beads.models import ConvoyBranch, Effect, Rig
from refinery import forecasts, foresight, git, notices, queue
from refinery.briefs import lane_convoy
from refinery.models import Candidate, Forecast, Landing, ReviewEntry, Verdict

log = structlog.get_logger(__name__)
STRUGGLING = 5
COMMITTER = ("Gastown Refinery", "refinery@gastown.invalid")

Result = tuple[str, str, dict[str, Any]]  # fact kind, subject, payload


def repo_of(rig: Rig) -> git.Repo:
    """The rig's bare mirror, made when missing."""
    return git.Repo.open_or_create(Path(settings.GASTOWN_HOME) / "repos" / f"{rig.pk}.git")


def run_effect(effect_id: int) -> str:
    """Run one effect if it is pending and nobody else has it; returns what came of it, for the log."""
    with outbox.holding(effect_id) as effect:
        if effect is None:
            return "skipped"
        handler = HANDLERS.get(effect.kind)
        crashpoint(f"effect.taken.{effect.kind}")
        try:
            if handler is None:
                raise GastownError(f"unknown kind of effect {effect.kind!r}")
            with bound_contextvars(town=effect.town.slug, effect=effect.key):
                result = handler(effect.payload)
        except Exception as error:
            return _failed(effect, error)
        crashpoint(f"effect.acted.{effect.kind}")
        now = timezone.now()
        with transaction.atomic():
            if outbox.succeed(effect, now) and result is not None:
                kind, subject, payload = result
                inbox.record(effect.town, kind, subject, payload, actor="executor")
        crashpoint(f"effect.recorded.{effect.kind}")
        return "done"


def _failed(effect: Effect, error: Exception) -> str:
    """Try again later, or report the failure: the error's disposition decides; bugs count as permanent."""
    now = timezone.now()
    message = (f"{error}" if isinstance(error, GastownError) else f"{type(error).__name__}: {error}")[:2000]
    again = isinstance(error, GastownError) and error.disposition != Disposition.PERMANENT
    told = {"kind": effect.kind, "key": effect.key, "error": message, "payload": effect.payload}
    log.warning(
        "effect.failed", town=effect.town.slug, effect=effect.key, attempts=effect.attempts, again=again, error=message
    )
    with transaction.atomic():
        if again:
            outbox.retry_later(effect, now, message)
            if effect.attempts == STRUGGLING:
                inbox.record(
                    effect.town,
                    "effect.struggling",
                    effect.key[:100],
                    told,
                    dedupe_key=f"struggling:{effect.pk}",
                )
            return "retry"
        outbox.give_up(effect, now, message)
        inbox.record(
            effect.town,
            "effect.failed",
            effect.key[:100],
            told,
            dedupe_key=f"gave-up:{effect.pk}:{effect.attempts}",
        )
    return "failed"


# -- handlers ---------------------------------------------------------------------


def _build(payload: Mapping[str, Any]) -> Result | None:
    """Build the candidate of one entry on the target's present head."""
    entry = ReviewEntry.objects.select_related("rig__town", "bead", "source").get(pk=payload["entry"])
    if entry.state != "active" or entry.build_no != payload["build_no"]:
        return None
    rig = entry.rig
    config = configs.effective(rig.town.config, rig.config).refinery
    repo = repo_of(rig)
    head = payload["head"]
    on = payload.get("on")
    base = Candidate.objects.get(pk=on).sha if on else repo.fetch_branch(rig.remote_url, entry.target)
    method = str(config.merge_method)
    if entry.kind == "landing" and method == "squash":
        method = "merge"  # the beads were squashed one by one: landing keeps their commits
    spec = git.CandidateSpec(
        head=head,
        base=base,
        method=method,
        title=_title(entry),
        body=_body(entry),
        trailers=_trailers(entry, head, reviewed=config.code_review),
        committer=COMMITTER,
        date=int(payload["date"]),
    )
    try:
        built = repo.build_candidate(spec)
    except GitFailed:
        if repo.has(head):  # since the entry was opened, unless the mirror was made anew
            raise
        repo.fetch_sha(rig.remote_url, head, entry.branch)
        built = repo.build_candidate(spec)
    if isinstance(built, git.ConflictFound) and (below := _heads_below(repo, rig, base, head)):
        built = repo.build_candidate(replace(spec, landed=below))
    seal = Candidate.objects.get(pk=payload["seal"]).base_sha if payload.get("seal") else ""
    told: dict[str, Any] = {"build_no": payload["build_no"], "head": head, "base": base, "on": on}
    match built:
        case git.Built(sha=sha, tree=tree):
            untouched = _untouched(repo, seal or base, sha, config)
            if seal:
                sha = repo.seal(seal, sha, tree, _batch_message(entry, seal), COMMITTER, spec.date)
            told |= {"result": "built", "sha": sha, "tree": tree, "seal": seal, "untouched": untouched}
        case git.ConflictFound(files=files):
            told |= {"result": "conflict", "files": list(files)}
        case git.AlreadyMerged():
            told |= {"result": "already_merged"}
        case git.NothingToMerge():
            told |= {"result": "empty"}
    return "candidate.built", entry.pk, told


def _batch_message(entry: ReviewEntry, base: str) -> str:
    """What the commit says that seals a batch: the last car's entry is `entry`, the first stands on `base`."""
    cars = ReviewEntry.objects.select_related("bead").filter(
        state="active", rig=entry.rig, target=entry.target, batch=entry.batch
    )
    lines = [f"- {_title(car)} ({car.pk})" for car in cars.order_by("slot")]
    return f"Merge a batch of {len(lines)} changes\n\nGated as one, on {base}:\n" + "\n".join(lines) + "\n"


def _untouched(repo: git.Repo, base: str, sha: str, config: RefineryConfig) -> list[list[str]]:
    """The gates' lists of paths that the change touches nothing of. What cannot be told is not said: the gate runs."""
    asked = dict.fromkeys(gate.paths for gate in config.gates if gate.paths)
    if not asked:
        return []
    try:
        paths = repo.touched(base, sha)
    except GitFailed as error:
        log.warning("build.touched", candidate=sha, error=error.message)
        return []
    return [list(patterns) for patterns in asked if not globs.touches(patterns, paths)]


def _heads_below(repo: git.Repo, rig: Rig, base: str, head: str) -> list[str]:
    """Other entries' heads that this one contains: squashed, they conflict with their own commits where they landed."""
    inside = Candidate.objects.filter(entry__rig=rig, head_sha__in=repo.own(base, head)).exclude(head_sha=head)
    return sorted(set(inside.values_list("head_sha", flat=True)))[:20]


def _title(entry: ReviewEntry) -> str:
    return " ".join(entry.bead.title.split())


def _body(entry: ReviewEntry) -> str:
    run = Run.objects.filter(bead=entry.source, head_sha=entry.head_sha).exclude(summary="").last()
    return run.summary.strip()[:4000] if entry.source and run else ""


def _trailers(entry: ReviewEntry, head: str, *, reviewed: bool) -> list[tuple[str, str]]:
    """`Reviewed-by` names who has approved this head, and the refinery whose approval landing still needs."""
    names = list(Verdict.objects.filter(entry=entry, head_sha=head, decision="approve").values_list("by", flat=True))
    if reviewed and not names:
        names = [refinery_for(entry.rig, lane_convoy(entry)).name]
    trailers = [("Bead", entry.source_id or entry.convoy_id or entry.pk), ("Merge-Request", entry.pk)]
    return trailers + [("Reviewed-by", name) for name in dict.fromkeys(names)]


def _land(payload: Mapping[str, Any]) -> Result | None:
    """Push the cars of one landing, and say for each what git shows afterwards."""
    landing = Landing.objects.select_related("entry", "candidate", "rig").get(pk=payload["landing"])
    if not queue.begin_push(landing.pk):
        return None
    crashpoint("land.begun")
    cars = queue.cars_of(landing)
    rig = landing.rig
    repo = repo_of(rig)
    # A crash may lie behind us: what is on the remote counts, not what we remember.
    branches = [landing.target, *(car.entry.branch for car in cars)]
    heads = repo.look(rig.remote_url, branches, landing.expected_sha, landing.candidate.sha)
    actual = heads[landing.target]
    if actual is None:
        return _landed(cars, "refused", f"{landing.target} no longer exists on the remote")
    if actual != landing.expected_sha:
        return _look(repo, rig, landing, cars)
    fit = next((n for n, car in enumerate(cars) if heads[car.entry.branch] != car.candidate.head_sha), len(cars))
    told = {}
    if fit < len(cars):
        told = {car.pk: _told("abandoned", f"{cars[fit].entry_id} ahead of it fell out") for car in cars[fit + 1 :]}
        told[cars[fit].pk] = _head_is_gone(cars[fit], heads[cars[fit].entry.branch])
        while fit and not queue.ends(cars[fit - 1]):  # the rest of its batch was not gated without it
            fit -= 1
            told[cars[fit].pk] = _told("abandoned", "another car of its batch fell out")
        if fit == 0:
            return _landed(cars, "abandoned", "", told)
    return _push(repo, rig, landing, cars, fit, told)


def _push(
    repo: git.Repo, rig: Rig, landing: Landing, cars: list[Landing], fit: int, told: dict[int, dict[str, str]]
) -> Result:
    """Push the first `fit` cars at once. What a remote refuses together is offered by itself: the first car (or batch)
    alone is then judged, and those behind it try again."""
    alone = next(n for n, car in enumerate(cars, 1) if queue.ends(car))
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
    if landed and not landed[0].target.startswith("convoy/"):
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


def _create_branch(payload: Mapping[str, Any]) -> Result | None:
    """Cut a convoy's feature branch from the default branch, once."""
    branch = ConvoyBranch.objects.select_related("rig").get(pk=payload["branch"])
    repo = repo_of(branch.rig)
    base = repo.fetch_branch(branch.rig.remote_url, branch.rig.default_branch)
    sha = repo.create_branch(branch.rig.remote_url, branch.name, base)
    return "branch.seen", str(branch.pk), {"sha": sha, "asked_at": payload["asked_at"]}


def _observe_branch(payload: Mapping[str, Any]) -> Result | None:
    """Look where a convoy's feature branch stands; an empty SHA says the remote has no such branch."""
    branch = ConvoyBranch.objects.select_related("rig").get(pk=payload["branch"])
    sha = repo_of(branch.rig).ls_remote(branch.rig.remote_url, branch.name)
    return "branch.seen", str(branch.pk), {"sha": sha or "", "asked_at": payload["asked_at"]}


def _foresee(payload: Mapping[str, Any]) -> Result | None:
    """Who in a lane's queue stands on whom, and who would conflict with whom. None when it was asked anew."""
    found = Forecast.objects.select_related("rig").filter(pk=payload["forecast"], number=payload["number"]).first()
    if found is None:
        return None
    active = ReviewEntry.objects.filter(rig=found.rig, target=found.target, state="active")
    branches = dict(active.values_list("head_sha", "branch"))
    return "lane.foreseen", str(found.pk), forecasts.look(repo_of(found.rig), found, branches, foresight.PAIRED)


def _delete_branch(payload: Mapping[str, Any]) -> Result | None:
    """Delete a branch whose change the target is seen to contain; keep it when it moved or when it does not."""
    rig = Rig.objects.get(pk=payload["rig"])
    repo_of(rig).delete_branch(rig.remote_url, payload["branch"], payload["sha"])
    return None


def _publish(payload: Mapping[str, Any]) -> Result | None:
    """Push what a run's shim had to keep local."""
    run = Run.objects.select_related("rig").get(pk=payload["run"])
    if run.head_sha and run.branch:
        found = repo_of(run.rig).create_branch(run.rig.remote_url, run.branch, run.head_sha)
        if found != run.head_sha:
            raise GastownError(f"branch {run.branch} is at {found[:12]} on the remote, not at {run.head_sha[:12]}")
    return "run.published", run.pk, {}


def _notify(payload: Mapping[str, Any]) -> Result | None:
    """Tell people what they asked to hear."""
    notices.deliver(payload)
    return None


HANDLERS: dict[str, Callable[[Mapping[str, Any]], Result | None]] = {
    "build": _build,
    "land": _land,
    "create_branch": _create_branch,
    "observe_branch": _observe_branch,
    "foresee": _foresee,
    "delete_branch": _delete_branch,
    "publish": _publish,
    "notify": _notify,
}


def sweep(now: dt.datetime | None = None) -> int:
    """Hand over again what is due and lies about; see `beads.outbox.sweep`."""
    return outbox.sweep(now or timezone.now())
