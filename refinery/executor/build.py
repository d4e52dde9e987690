"""Building: the exact commit that gates test and landing pushes, for one entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog

from agents.models import Run
from agents.roster import refinery_for
from agents.runtime.failures import TROUBLE, GitFailed
from beads import config as configs
from beads import globs
from beads.config import Config, RefineryConfig
from beads.models import Rig
from refinery.core import effects
from refinery.core.states import EntryKind, EntryState, Judgement
from refinery.executor.proof import is_on_target
from refinery.executor.registry import Result, does
from refinery.git import repo as git
from refinery.git.mirror import fetch_target, repo_of
from refinery.models import Candidate, ReviewEntry, Verdict
from refinery.tick.briefs import lane_convoy

log = structlog.get_logger(__name__)


@does(effects.Build)
def build(work: effects.Build) -> Result | None:
    """Build the candidate of one entry on the target's present head."""
    entry = ReviewEntry.objects.select_related("rig__town", "bead", "source").get(pk=work.entry)
    if entry.state != EntryState.ACTIVE or entry.build_no != work.build_no:
        return None
    rig = entry.rig
    config = configs.effective(rig.town.config, rig.config)
    repo = repo_of(rig)
    told: dict[str, Any] = {"build_no": work.build_no, "head": work.head, "on": work.on}
    try:
        base = Candidate.objects.get(pk=work.on).sha if work.on else fetch_target(rig, repo, entry.target)
    except GitFailed as error:
        if error.kind != "unfit" or entry.kind == EntryKind.CHECK:
            raise
        return "candidate.built", entry.pk, told | {"result": "refused", "error": error.message[:2000]}
    told["base"] = base
    if entry.kind == EntryKind.CHECK:  # the target's own head, as it is
        told |= {"result": "built", "head": base, "sha": base, "tree": repo.tree_of(base)}
        return "candidate.built", entry.pk, told
    spec = _spec(entry, work, base, config)
    try:
        built = _candidate(repo, entry, spec)
    except GitFailed as error:
        if error.kind not in ("unfit", "unrelated", "missing_ref"):
            raise
        return "candidate.built", entry.pk, told | {"result": "refused", "error": _why(error, entry)}
    seal = ""
    if work.seal:
        seal = Candidate.objects.get(pk=work.seal).base_sha
    return "candidate.built", entry.pk, told | _outcome(repo, entry, spec, built, seal, config.refinery)


def _spec(entry: ReviewEntry, work: effects.Build, base: str, config: Config) -> git.CandidateSpec:
    """What commit is to be built, to the last byte: the same order gives the same commit."""
    method = str(config.refinery.merge_method)
    if entry.kind == EntryKind.LANDING and method == "squash":
        method = "merge"  # the beads were squashed one by one: landing keeps their commits
    return git.CandidateSpec(
        head=work.head,
        base=base,
        method=method,
        title=_title(entry),
        body=_body(entry),
        trailers=_trailers(entry, work.head, reviewed=config.refinery.code_review),
        committer=(config.git.name, config.git.email),
        date=work.date,
    )


def _outcome(
    repo: git.Repo, entry: ReviewEntry, spec: git.CandidateSpec, built: git.Answer, seal: str, config: RefineryConfig
) -> dict[str, Any]:
    """What is told of a build. `seal`: the commit that its batch stands on, which is sealed here; empty for none."""
    match built:
        case git.Built(sha=sha, tree=tree):
            untouched = _untouched(repo, seal or spec.base, sha, config)
            if seal:
                sha = repo.seal(seal, sha, tree, _batch_message(entry, seal), spec.committer, spec.date)
            return {"result": "built", "sha": sha, "tree": tree, "seal": seal, "untouched": untouched}
        case git.ConflictFound(files=files):
            return {"result": "conflict", "files": list(files)}
        case git.AlreadyMerged() | git.NothingToMerge() if not is_on_target(repo, entry, built):
            return {"result": "unchanged"}
        case git.AlreadyMerged():
            return {"result": "already_merged"}
        case git.NothingToMerge():
            return {"result": "empty"}


def _candidate(repo: git.Repo, entry: ReviewEntry, spec: git.CandidateSpec) -> git.Answer:
    """Build it. Raises GitFailed: `unfit`, `unrelated` and `missing_ref` for what the change itself is to blame for."""
    rig, base, head = entry.rig, spec.base, spec.head
    try:
        built = _build(repo, spec)
    except GitFailed as error:
        if error.kind in ("unfit", "unrelated"):
            raise
        if not repo.has(head):  # it is here since the entry was opened, unless the mirror was made anew
            repo.fetch_sha(rig.remote_url, head, entry.branch)
            built = _build(repo, spec)
        elif (what := repo.type_of(head)) not in ("commit", ""):
            raise GitFailed(f"{head[:12]} of {entry.branch} is a {what}, not a commit", kind="unfit") from error
        else:
            raise
    if isinstance(built, git.ConflictFound) and (below := _heads_below(repo, rig, base, head)):
        built = _build(repo, replace(spec, landed=below))
    return built


def _build(repo: git.Repo, spec: git.CandidateSpec) -> git.Answer:
    """Nothing here asks the remote: what fails without a word that is known fails here."""
    try:
        return repo.build_candidate(spec)
    except GitFailed as error:
        if error.fate not in TROUBLE or error.kind == "credential":
            raise
        raise GitFailed(error.message, kind="local") from error


def _why(error: GitFailed, entry: ReviewEntry) -> str:
    if error.kind != "unrelated":
        return error.message[:2000]
    return (
        f"{entry.branch} has no commit in common with {entry.target} (an orphan branch, or `git init` made a new "
        f"repository): make the change on a branch of {entry.target}"
    )


def _batch_message(entry: ReviewEntry, base: str) -> str:
    """What the commit says that seals a batch: the last car's entry is `entry`, the first stands on `base`."""
    cars = (
        ReviewEntry.objects.select_related("bead")
        .active()
        .filter(rig=entry.rig, target=entry.target, batch=entry.batch)
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
    inside = inside.exclude(entry__kind=EntryKind.CHECK)
    return sorted(set(inside.values_list("head_sha", flat=True)))[:20]


def _title(entry: ReviewEntry) -> str:
    return " ".join(entry.bead.title.split())


def _body(entry: ReviewEntry) -> str:
    if entry.source is None:
        return ""
    run = Run.objects.filter(bead=entry.source, head_sha=entry.head_sha).exclude(summary="").last()
    if run:
        return run.summary.strip()[:4000]
    return ""


def _trailers(entry: ReviewEntry, head: str, *, reviewed: bool) -> list[tuple[str, str]]:
    """`Reviewed-by` names who has approved this head, and the refinery whose approval landing still needs."""
    names = list(
        Verdict.objects.filter(entry=entry, head_sha=head, decision=Judgement.APPROVE).values_list("by", flat=True)
    )
    if reviewed and not names:
        names = [refinery_for(entry.rig, lane_convoy(entry)).name]
    trailers = [("Bead", entry.source_id or entry.convoy_id or entry.pk), ("Merge-Request", entry.pk)]
    return trailers + [("Reviewed-by", name) for name in dict.fromkeys(names)]
