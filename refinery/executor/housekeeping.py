"""What is finished goes, after its time: rows, logs, refs, branches. Unlanded work stays for ever.

Runs hourly as a django-q2 task, and by hand as `gastown housekeeping`. Every part may fail without the others, says
so, and is simply done the next time. Retention comes from each rig's `[retention]`; what is of a whole town, or of the
installation, is kept for as long as the most patient of those who share it says. Nothing is removed while a backup is
taken.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q

from agents import runs, sessions
from agents.lifecycle import RunState
from agents.models import Run
from agents.runtime import caches, mirrors
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads import serverlog, upkeep
from beads.config import RetentionConfig
from beads.errors import GastownError
from beads.lifecycle import ACHIEVED, BeadStatus
from beads.models import Rig, Town
from refinery.executor import retention
from refinery.git.mirror import repo_of
from refinery.git.repo import Repo
from refinery.models import Candidate
from refinery.store import forecasts
from refinery.tick import invariants

log = structlog.get_logger(__name__)

AT_ONCE = 500


def collect(now: dt.datetime) -> Counter[str]:
    """Everything once; returns how much of what went. Nothing while a backup, or another one of us, is at it."""
    gone: Counter[str] = Counter()
    for town in Town.objects.order_by("pk"):
        gone["violations"] += len(invariants.check(town, now))
    with upkeep.alone() as ours:
        if ours:
            _collect(now, gone)
        else:
            log.info("housekeeping.postponed", why="a backup is being taken, or another housekeeping is going on")
    log.info("housekeeping", **{name.replace(" ", "_"): count for name, count in gone.items()})
    return gone


def _collect(now: dt.datetime, gone: Counter[str]) -> None:
    every: list[RetentionConfig] | None = []
    for town in Town.objects.order_by("pk"):
        told = [configs.usable(town.config, {})]
        for rig in Rig.objects.select_related("town").filter(town=town).order_by("pk"):
            config, problems = configs.usable(town.config, rig.config)
            told.append((config, problems))
            if not problems:
                gone.update(_of_rig(rig, config.retention, now))
        if any(problems for _, problems in told):  # nobody knows how long they want it kept
            every = None
            continue
        kept = [config.retention for config, _ in told]
        every = None if every is None else every + kept
        with _reported(town=town.slug):
            work = max(one.whole_work for one in kept)
            gone.update(retention.of_town(town, kept[0], work, now, repo_of))
    if every:
        longest = {name: max(getattr(one, name) for one in every) for name in RetentionConfig.model_fields}
        with _reported():
            gone.update(retention.of_installation(RetentionConfig.model_construct(**longest), now))
        gone["run directories"] = _left_over(now - longest["logs"])
    gone["server logs"] = _server_log()
    gone["sessions"] = sessions.forget_strays()


@contextlib.contextmanager
def _reported(**where: str) -> Iterator[None]:
    """What fails is said, and done the next time."""
    try:
        yield
    except (GastownError, OSError) as error:  # a full disk, for one: what cannot be archived stays
        log.warning("housekeeping.failed", error=str(error), **where)


def _server_log() -> int:
    """Old files of the embedded PostgreSQL's log."""
    if os.environ.get("DATABASE_URL"):
        return 0
    with connection.cursor() as cursor:
        cursor.execute("select current_setting('data_directory')")
        return serverlog.tidy(Path(cursor.fetchone()[0]))


def _left_over(before: dt.datetime) -> int:
    """Directories of runs that nobody's row tells of any more, untouched since then."""
    count = 0
    root = Path(settings.GASTOWN_HOME) / "runs"
    for place in list(root.iterdir()) if root.is_dir() else []:
        old = place.is_dir() and place.stat().st_mtime < before.timestamp()
        if old and not Run.objects.filter(pk=place.name).exclude(log_path="", state=RunState.ENDED).exists():
            shutil.rmtree(place, ignore_errors=True)
            count += 1
    return count


def _of_rig(rig: Rig, kept: RetentionConfig, now: dt.datetime) -> Counter[str]:
    gone: Counter[str] = Counter()
    gone["logs"] = _logs(rig, now - kept.logs)
    gone["caches"] = caches.prune(Path(settings.GASTOWN_HOME) / "caches" / str(rig.pk), (now - kept.caches).timestamp())
    gone["forecasts"] = forecasts.prune(rig)
    repo = repo_of(rig)
    try:
        gone["branches"] = _branches(rig, repo, now - kept.branches)
        gone["refs"] = repo.drop_refs(_finished_refs(rig, kept, now))
        gone["saved files"] = _saved_files(rig, now - kept.salvage)
        gone["loose objects"] = mirrors.pack(repo.path)
    except GitFailed as error:
        log.warning("housekeeping.git", rig=rig.slug, error=error.message)
    return gone


def _logs(rig: Rig, before: dt.datetime) -> int:
    """The directories of runs that ended before then."""
    count = 0
    root = Path(settings.GASTOWN_HOME) / "runs"
    for run in Run.objects.ended().filter(rig=rig, ended_at__lt=before).exclude(log_path="")[:AT_ONCE]:
        shutil.rmtree(root / run.pk, ignore_errors=True)
        runs.forget_log(run)
        count += 1
    return count


def _branches(rig: Rig, repo: Repo, before: dt.datetime) -> int:
    """Branches on the remote whose bead's work has landed: every attempt's, wherever it stands."""
    pushed = Run.objects.ended().filter(
        rig=rig,
        on_remote=True,
        bead__status=BeadStatus.CLOSED,
        bead__resolution__in=ACHIEVED,
        bead__closed_at__lt=before,
    )
    # a rework's work has landed when the entry it was for has
    pushed = pushed.filter(Q(bead__parent=None) | Q(bead__parent__resolution__in=ACHIEVED))
    count = 0
    for run in pushed.exclude(head_sha="")[:AT_ONCE]:
        if repo.delete_branch(rig.remote_url, run.branch, run.head_sha):
            count += 1
        runs.forget_branch(run)
    return count


def _saved_files(rig: Rig, before: dt.datetime) -> int:
    """Work that no git takes (see `agents.runtime.harvest`), of beads that have landed since."""
    saved = Run.objects.ended().filter(rig=rig, salvage_ref__startswith="file:salvage/")
    count = 0
    for run in saved.filter(bead__resolution__in=ACHIEVED, bead__closed_at__lt=before)[:AT_ONCE]:
        file = Path(settings.GASTOWN_HOME) / "salvage" / f"{run.pk}.tar.gz"
        if file.exists():
            file.unlink()
            count += 1
    return count


def _finished_refs(rig: Rig, kept: RetentionConfig, now: dt.datetime) -> Iterator[str]:
    """Our own refs that nothing needs: candidates of ended entries, runs and salvage of ended beads."""
    ended = Candidate.objects.filter(entry__rig=rig, entry__closed_at__lt=now - kept.branches).exclude(sha="")
    for sha in ended.values_list("sha", flat=True):
        yield f"refs/gastown/candidates/{sha}"
    landed = Run.objects.ended().filter(rig=rig, bead__resolution__in=ACHIEVED)
    for key in landed.filter(bead__closed_at__lt=now - kept.branches).values_list("pk", flat=True):
        yield f"refs/gastown/runs/{key}"
    for key in landed.filter(bead__closed_at__lt=now - kept.salvage).values_list("pk", flat=True):
        yield f"refs/gastown/salvage/{key}"
