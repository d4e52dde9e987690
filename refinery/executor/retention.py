"""What goes from the database after its time: archived first, in small batches, outside of any tick's lock.

A batch is archived and deleted in a short transaction of its own, which locks no town: ticks go on beside it, however
many years there are to go. Who is killed in between loses nothing. Rows go through the writers of their tables.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from axes.models import AccessAttempt
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Model, Q, QuerySet
from django_q.models import Task

from agents import mail, roster, runs, sessions, usage
from agents.api import tools
from agents.models import Agent, Allowance, Mail, Nudge, Run, ToolCall, Usage
from beads import inbox, ledger, ops, outbox, prune
from beads.config import RetentionConfig
from beads.models import Bead, BeadEvent, Convoy, ConvoyBranch, Dependency, Escalation, Rig, Town
from refinery.executor import archive, families
from refinery.executor.archive import Archive
from refinery.git.repo import Repo
from refinery.models import Candidate, GateResult, HostedPull, Landing, ReviewComment, ReviewEntry, Verdict, Waiver
from refinery.store import candidates, comments, entries, gates, landings, lanes, pulls, verdicts
from refinery.tick import invariants, metrics

log = structlog.get_logger(__name__)
AT_ONCE = 500
BEADS_AT_ONCE = 50
SECONDS = 600.0  # of one round's work with closed beads: the rest is done an hour later
LOCK_WAIT = "2s"
ATTEMPTS = dt.timedelta(days=30)  # of wrong passwords, which count for minutes
RepoOf = Callable[[Rig], Repo]


def of_town(town: Town, kept: RetentionConfig, work: dt.timedelta, now: dt.datetime, repo_of: RepoOf) -> Counter[str]:
    """What is past its time in a town; returns how much of what went. `work`: how long closed beads are kept."""
    kept_in = Archive(now)
    gone: Counter[str] = Counter()
    sweeps: tuple[tuple[str, QuerySet[Any], Callable[[Sequence[Any]], int]], ...] = (
        ("facts", inbox.past(town, now - kept.facts), inbox.forget),
        ("effects", outbox.past(town, now - kept.facts), outbox.forget),
        ("effects", outbox.past(town, now - work, "failed"), outbox.forget),
        ("nudges", mail.past_nudges(town, now - kept.facts), mail.forget_nudges),
        ("tool calls", tools.past(town, now - kept.calls), tools.forget),
        ("tick records", metrics.past(town, now - kept.ticks), metrics.forget),
        ("violations cleared", invariants.past(town, now - work), invariants.forget),
        ("mail", mail.past(town, now - work), mail.forget),
        ("pull requests", pulls.past(town, now - work), pulls.forget_rows),
        ("config versions", ledger.old_configs(town, now - work), ledger.forget_configs),
    )
    for name, rows, forget in sweeps:
        gone[name] += _sweep(kept_in, town.slug, rows, forget)
    gone["beads"] = _beads(kept_in, town, now - work, repo_of)
    gone["lanes"] = _sweep(kept_in, town.slug, lanes.past(town), lanes.forget)
    return gone


def of_installation(kept: RetentionConfig, now: dt.datetime) -> Counter[str]:
    """What belongs to no town: the console's log, failed tasks, sessions (never archived: they open doors)."""
    kept_in, gone = Archive(now), Counter[str]()
    sessions = Session.objects.filter(expire_date__lt=now).order_by("pk")
    while some := list(sessions.values_list("pk", flat=True)[:AT_ONCE]):
        gone["sessions"] += Session.objects.filter(pk__in=some).delete()[0]
    gone["guesses"] = AccessAttempt.objects.filter(attempt_time__lt=now - ATTEMPTS).delete()[0]
    for name, rows in (
        ("console log", LogEntry.objects.filter(action_time__lt=now - kept.work).order_by("pk")),
        ("tasks", Task.objects.filter(stopped__lt=now - kept.facts).order_by("pk")),
    ):
        gone[name] = _sweep(kept_in, archive.INSTALLATION, rows, _deleter(rows.model))
    gone["heartbeats"] = _sweep(
        kept_in, archive.INSTALLATION, ops.past(now - kept.whole_work).order_by("pk"), ops.forget
    )
    gone["archives"] = archive.prune(now - kept.archives)
    return gone


def _deleter(model: type[Model]) -> Callable[[Sequence[Any]], int]:
    return lambda keys: prune.some(model._default_manager.all(), keys)


def _sweep(kept: Archive, town: str, rows: QuerySet[Any], forget: Callable[[Sequence[Any]], int]) -> int:
    """Archive and remove these rows, some at a time; returns how many went."""
    gone = 0
    while some := list(rows[:AT_ONCE]):
        kept.keep(town, some)
        with transaction.atomic():
            removed = forget([row.pk for row in some])
        if not removed:
            break
        gone += removed
    return gone


# -- closed beads -------------------------------------------------------------------------------------------------


def _beads(kept: Archive, town: Town, before: dt.datetime, repo_of: RepoOf) -> int:
    """Families of closed beads, until there are none or the time is up; returns how many beads went."""
    end, gone = time.monotonic() + SECONDS, 0
    batch: list[str] = []
    for family in families.ready(town, before):
        batch += family
        if len(batch) >= BEADS_AT_ONCE:
            gone += _remove(kept, town, batch, before, repo_of)
            batch = []
        if time.monotonic() > end:
            break
    return gone + (_remove(kept, town, batch, before, repo_of) if batch else 0)


def _remove(kept: Archive, town: Town, keys: list[str], before: dt.datetime, repo_of: RepoOf) -> int:
    """Archive and delete these beads with all that hangs on them; 0 when something has come to refer to them.

    Their refs and sessions go first: work that has landed needs none, and without its rows nobody would know them. The
    locked rows keep away what would refer to them; what came before that is seen by `still_free`, or is a foreign key.
    """
    _drop_refs(keys, repo_of)
    sessions.forget(keys)
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"set local lock_timeout = '{LOCK_WAIT}'")
            for rows in (Bead.objects.filter(pk__any=keys), ReviewEntry.objects.filter(pk__any=keys)):
                list(rows.select_for_update().order_by("pk").values_list("pk"))
            if not families.still_free(keys, town, before):
                return 0
            kept.keep(town.slug, _hanging(keys))
            return _forget(keys)
    except (IntegrityError, OperationalError) as error:
        log.info("retention.kept", town=town.slug, beads=len(keys), why=str(error).splitlines()[0])
        return 0


def _hanging(keys: list[str]) -> Iterator[Model]:
    """The beads and all rows that hang on them, a few at a time."""
    every: tuple[QuerySet[Any], ...] = (
        Bead.objects.filter(pk__any=keys),
        BeadEvent.objects.filter(bead__any=keys),
        Dependency.objects.filter(bead__any=keys),
        Escalation.objects.filter(bead__any=keys),
        Convoy.objects.filter(bead__any=keys),
        ConvoyBranch.objects.filter(convoy__any=keys),
        Agent.objects.filter(convoy__any=keys),
        Run.objects.filter(bead__any=keys),
        ToolCall.objects.filter(run__bead__any=keys),
        Usage.objects.filter(run__bead__any=keys),
        Allowance.objects.filter(subject__in=keys),
        Mail.objects.filter(_mail_of(keys)),
        ReviewEntry.objects.filter(pk__any=keys),
        Candidate.objects.filter(entry__any=keys),
        Verdict.objects.filter(entry__any=keys),
        Waiver.objects.filter(entry__any=keys),
        GateResult.objects.filter(entry__any=keys),
        ReviewComment.objects.filter(entry__any=keys),
        Landing.objects.filter(entry__any=keys),
        HostedPull.objects.filter(entry__any=keys),
    )
    for rows in every:
        yield from rows.order_by("pk").iterator(chunk_size=200)


def _mail_of(keys: list[str]) -> Q:
    """Mail about these beads, for work on them, or told to a run of theirs."""
    return Q(about__any=keys) | Q(bead__any=keys) | Q(run__bead__any=keys)


def _forget(keys: list[str]) -> int:
    """Through the writers of their tables; returns how many beads went."""
    tools.forget(list(ToolCall.objects.filter(run__bead__any=keys).values_list("pk", flat=True)))
    mail.forget(list(Mail.objects.filter(_mail_of(keys)).values_list("pk", flat=True)))
    agents = Agent.objects.filter(convoy__any=keys)
    nudges = Nudge.objects.filter(Q(agent__in=agents) | Q(run__bead__any=keys))
    mail.forget_nudges(list(nudges.values_list("pk", flat=True)))
    for writer in (usage, comments, pulls, landings, gates, verdicts, candidates, entries, runs, roster):
        writer.forget(keys)
    return ledger.forget(keys)


def _drop_refs(keys: list[str], repo_of: RepoOf) -> None:
    """Our own refs of this work, in each rig's mirror. Raises GitFailed; the rows stay then."""
    rigs = Rig.objects.filter(pk__in=Bead.objects.filter(pk__any=keys).values("rig"))
    for rig in rigs.select_related("town"):
        repo_of(rig).drop_refs(list(_refs(rig, keys)))


def _refs(rig: Rig, keys: list[str]) -> Iterator[str]:
    for run in Run.objects.filter(rig=rig, bead__any=keys).values_list("pk", flat=True):
        yield from (f"refs/gastown/{kind}/{run}" for kind in ("runs", "salvage"))
        yield f"refs/gastown/branches/{run}/"
    gone = ReviewEntry.objects.filter(rig=rig, pk__any=keys)
    for head in gone.values_list("head_sha", flat=True):
        yield f"refs/gastown/fetched/{head}"
    for sha in Candidate.objects.filter(entry__in=gone).exclude(sha="").values_list("sha", flat=True):
        yield f"refs/gastown/candidates/{sha}"
    branches = set(gone.values_list("branch", flat=True))
    others = ReviewEntry.objects.filter(rig=rig, branch__in=branches).exclude(pk__in=keys)
    for branch in branches - set(others.values_list("branch", flat=True)) - {rig.default_branch}:
        yield f"refs/gastown/remote/{branch}"
