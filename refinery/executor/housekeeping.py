"""What is finished goes, after its time: facts, effects, logs, refs, branches. Unlanded work stays for ever.

Runs hourly as a django-q2 task, and by hand as `manage.py housekeeping`. Every part may fail without the others, says
so, and is simply done the next time. Retention comes from each rig's `[retention]`.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog
from django.conf import settings
from django.db.models import Q

from agents import dispatch
from agents.models import Run, RunState
from agents.runtime import caches, gitcmd
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads import inbox, outbox
from beads.config import RetentionConfig
from beads.lifecycle import BeadStatus, Resolution
from beads.models import Rig, Town
from refinery import forecasts, invariants, metrics
from refinery.git.mirror import repo_of
from refinery.git.repo import Repo
from refinery.models import Candidate

log = structlog.get_logger(__name__)
LANDED = (Resolution.MERGED, Resolution.ALREADY_MERGED, Resolution.DONE)
AT_ONCE = 500


def collect(now: dt.datetime) -> Counter[str]:
    """Everything once; returns how much of what went."""
    gone: Counter[str] = Counter()
    for town in Town.objects.order_by("pk"):
        gone["violations"] += len(invariants.check(town, now))
        kept = configs.usable(town.config, {})[0].retention.facts
        gone["facts"] += inbox.prune(town, now - kept)
        gone["effects"] += outbox.prune(town, now - kept)
    gone["tick records"] += metrics.prune(now)
    for rig in Rig.objects.select_related("town").order_by("pk"):
        config, problems = configs.usable(rig.town.config, rig.config)
        if not problems:
            gone.update(_of_rig(rig, config.retention, now))
    log.info("housekeeping", **{name.replace(" ", "_"): count for name, count in gone.items()})
    return gone


def _of_rig(rig: Rig, kept: RetentionConfig, now: dt.datetime) -> Counter[str]:
    gone: Counter[str] = Counter()
    gone["logs"] = _logs(rig, now - kept.logs)
    gone["caches"] = caches.prune(Path(settings.GASTOWN_HOME) / "caches" / str(rig.pk), (now - kept.caches).timestamp())
    gone["forecasts"] = forecasts.prune(rig)
    repo = repo_of(rig)
    try:
        gone["branches"] = _branches(rig, repo, now - kept.branches)
        gone["refs"] = repo.drop_refs(_finished_refs(rig, kept, now))
        gone["loose objects"] = gitcmd.pack(repo.path)
    except GitFailed as error:
        log.warning("housekeeping.git", rig=rig.slug, error=error.message)
    return gone


def _logs(rig: Rig, before: dt.datetime) -> int:
    """The directories of runs that ended before then."""
    count = 0
    root = Path(settings.GASTOWN_HOME) / "runs"
    for run in Run.objects.filter(rig=rig, state=RunState.ENDED, ended_at__lt=before).exclude(log_path="")[:AT_ONCE]:
        shutil.rmtree(root / run.pk, ignore_errors=True)
        dispatch.forget_log(run)
        count += 1
    return count


def _branches(rig: Rig, repo: Repo, before: dt.datetime) -> int:
    """Branches on the remote whose bead's work has landed: every attempt's, wherever it stands."""
    runs = Run.objects.filter(
        rig=rig,
        state=RunState.ENDED,
        on_remote=True,
        bead__status=BeadStatus.CLOSED,
        bead__resolution__in=LANDED,
        bead__closed_at__lt=before,
    )
    # a rework's work has landed when the entry it was for has
    runs = runs.filter(Q(bead__parent=None) | Q(bead__parent__resolution__in=LANDED))
    count = 0
    for run in runs.exclude(head_sha="")[:AT_ONCE]:
        if repo.delete_branch(rig.remote_url, run.branch, run.head_sha):
            count += 1
        dispatch.forget_branch(run)
    return count


def _finished_refs(rig: Rig, kept: RetentionConfig, now: dt.datetime) -> Iterator[str]:
    """Our own refs that nothing needs: candidates of ended entries, runs and salvage of ended beads."""
    ended = Candidate.objects.filter(entry__rig=rig, entry__closed_at__lt=now - kept.branches).exclude(sha="")
    for sha in ended.values_list("sha", flat=True):
        yield f"refs/gastown/candidates/{sha}"
    landed = Run.objects.filter(rig=rig, state=RunState.ENDED, bead__resolution__in=LANDED)
    for key in landed.filter(bead__closed_at__lt=now - kept.branches).values_list("pk", flat=True):
        yield f"refs/gastown/runs/{key}"
    for key in landed.filter(bead__closed_at__lt=now - kept.salvage).values_list("pk", flat=True):
        yield f"refs/gastown/salvage/{key}"
