"""What the snapshot reads: the live rows of a town and what hangs on them, each query prepared once."""

from __future__ import annotations

import datetime as dt

from django.db.models import Case, Exists, F, OuterRef, Q, TextField, Value, When

from agents.lifecycle import Role, RunKind, RunOutcome
from agents.models import LIVE_RUN, Agent, Run, ToolCall
from beads.lifecycle import FINAL, LIVE, BeadStatus, BeadType
from beads.models import Bead, Convoy, ConvoyBranch, Dependency, Effect, Escalation, Outage, Rig
from beads.prepared import Prepared
from refinery.core.states import EntryKind
from refinery.models import (
    Candidate,
    Forecast,
    GateResult,
    HostedPull,
    Landing,
    Lane,
    ReviewEntry,
    RigHost,
    Stack,
    Verdict,
    Waiver,
)

_LIVE = sorted(LIVE)
# What the rules ask of the rows beside an entry: a row of each for every entry would cost more than all the rest.
_BESIDE = {
    "bead_title": F("bead__title"),
    "bead_status": F("bead__status"),
    "bead_priority": F("bead__priority"),
    "bead_retried_at": F("bead__retried_at"),
    "source_status": F("source__status"),
    "source_cancel_at": F("source__cancel_requested_at"),
    "convoy_started_at": F("convoy__started_at"),
    "convoy_close_at": F("convoy__close_requested_at"),
    "convoy_status": F("convoy__bead__status"),
    "onto_convoy": Exists(
        ConvoyBranch.objects.filter(convoy=OuterRef("convoy"), rig=OuterRef("rig"), name=OuterRef("target"))
    ),
}
_ISSUE = (
    *("pk", "status", "created_at", "rig_id", "title", "purpose", "priority", "convoy_id", "parent_id"),
    *("cancel_requested_at", "created_by", "filed_by", "released_at", "hold"),
)
_BLOCKER = (
    *("bead_id", "on_id", "on__status", "on__title", "on__purpose", "on__resolution", "on__closed_at", "on__rig"),
    *("on__filed_by", "on__released_at", "why_failed"),
)


def _why_failed(status: str, reason: str) -> Case:
    """Why a bead has failed; empty for others, whose reasons nobody asks for."""
    return Case(When(**{status: BeadStatus.FAILED}, then=F(reason)), default=Value(""), output_field=TextField())


# Ended within seconds of its start, having neither committed nor called a tool: it could not get to work.
STILLBORN = dt.timedelta(seconds=30)
_STILLBORN = Q(outcome=RunOutcome.FAILED, work__in=["", "nothing"], exited_at__lt=F("claimed_at") + STILLBORN)
_HOST = [RunOutcome.FAILED, RunOutcome.LOST, RunOutcome.START_FAILED]

# -- by town --

RIGS = Prepared(lambda town: Rig.objects.filter(town=town))
ISSUES = Prepared(
    lambda town: Bead.objects.filter(town=town, type=BeadType.ISSUE, status__in=_LIVE, rig__isnull=False).values_list(
        *_ISSUE, named=True
    )
)
ENTRIES = Prepared(lambda town: ReviewEntry.objects.active().filter(rig__town=town).annotate(**_BESIDE))
RUNS = Prepared(
    lambda town: (
        Run.objects.filter(town=town)
        .filter(LIVE_RUN | Q(bead__status__in=_LIVE))
        .select_related("bead")
        .defer("brief", "bead__body", "bead__context", "steps")
        .annotate(stillborn=_STILLBORN & ~Exists(ToolCall.objects.filter(run=OuterRef("pk"))))
        .order_by("created_at", "id")
    )
)
BLOCKERS = Prepared(
    lambda town: (
        Dependency.objects.filter(bead__town=town, bead__status__in=_LIVE)
        .annotate(why_failed=_why_failed("on__status", "on__reason"))
        .order_by("id")
        .values_list(*_BLOCKER)
    )
)
ENDED = Prepared(  # the outcomes of agents' runs, the latest first
    lambda town, since: (
        Run.objects.filter(town=town, ended_at__gt=since, outcome__in=[*_HOST, RunOutcome.DONE])
        .exclude(kind=RunKind.GATES)
        .order_by("-ended_at")
        .values_list("outcome", "ended_at")[:100]
    )
)
EFFECTS = Prepared(
    lambda town: (
        Effect.objects.filter(town=town, state__in=["pending", "failed"])
        .order_by()
        .values_list("key", "state", "error", "attempts", "failing_since", "next_try_at")
    )
)
OUTAGES = Prepared(lambda: Outage.objects.order_by("since"))
HOSTS = Prepared(lambda town: RigHost.objects.filter(rig__town=town))
PULLS = Prepared(  # those that are not over
    lambda town: (
        HostedPull.objects.filter(rig__town=town, ended_at=None)
        .annotate(
            entry_state=F("entry__state"),
            entry_reason=F("entry__reason"),
            entry_text=F("entry__reason_text"),
            entry_sha=F("entry__merge_sha"),
        )
        .order_by("pk")
    )
)
LANES = Prepared(lambda town: Lane.objects.filter(rig__town=town))
FORECASTS = Prepared(lambda town: Forecast.objects.filter(rig__town=town))
STACKS = Prepared(
    lambda town, heads: Stack.objects.filter(rig__town=town, upper__any=heads).values_list("rig_id", "upper", "lower")
)
REFUSED = Prepared(  # entries of these heads that failed
    lambda town, heads: (
        ReviewEntry.objects.failed()
        .filter(rig__town=town, head_sha__any=heads)
        .exclude(reason="superseded")
        .exclude(kind=EntryKind.CHECK)
        .order_by("closed_at")
    )
)
CONVOYS = Prepared(
    lambda town: (
        Convoy.objects.select_related("bead")
        .filter(bead__town=town, bead__status__in=_LIVE)
        .defer("bead__body", "bead__context")
        .order_by("pk")
    )
)
REFINERIES = Prepared(
    lambda town: Agent.objects.filter(town=town, role=Role.REFINERY, convoy__isnull=False, retired_at=None).order_by(
        "pk"
    )
)
ESCALATED = Prepared(
    lambda town: (
        Escalation.objects.filter(Q(closed_at=None) | Q(about__status__in=_LIVE), town=town)
        .order_by("pk")
        .values_list("key", "about_id", "closed_at", "bead__created_at", "bead__title")
    )
)

# -- by entries --

CANDIDATES = Prepared(
    lambda entries: Candidate.objects.select_related("on__entry").filter(entry_id__any=entries).order_by("id")
)
RESULTS = Prepared(  # of a tree are all who have the same one
    lambda entries, trees, rigs: (
        GateResult.objects.select_related("candidate")
        .defer("output")
        .annotate(of_rig=F("entry__rig_id"))
        .filter(Q(entry_id__any=entries) | Q(tree_sha__any=trees, entry__rig__any=rigs))
        .order_by("id")
    )
)
TREES = Prepared(  # of commits that were built (or checked) here
    lambda rigs, commits: (
        Candidate.objects.filter(entry__rig__any=rigs, sha__any=commits)
        .order_by("id")
        .values_list("entry__rig_id", "sha", "tree_sha")
    )
)
OUTCOMES = Prepared(
    lambda rigs, trees: (
        GateResult.objects.filter(entry__rig__any=rigs, tree_sha__any=trees)
        .order_by("id")
        .values_list("entry__rig_id", "tree_sha", "gate", "command", "outcome", "id")
    )
)
VERDICTS = Prepared(lambda entries: Verdict.objects.filter(entry_id__any=entries).order_by("id"))
WAIVERS = Prepared(lambda entries: Waiver.objects.filter(entry_id__any=entries))
LANDINGS = Prepared(lambda entries: Landing.objects.filter(entry_id__any=entries).order_by("id"))

# -- by convoys, beads and agents --

TRACKED = Prepared(
    lambda convoys: (
        Bead.objects.filter(convoy_id__any=convoys)
        .annotate(why_failed=_why_failed("status", "reason"))
        .order_by("created_at", "id")
        .values_list("convoy_id", "pk", "rig_id", "status", "resolution", "title", "closed_at", "why_failed")
    )
)
BRANCHES = Prepared(lambda convoys: ConvoyBranch.objects.filter(convoy_id__any=convoys).order_by("pk"))
CONVOY_LANDINGS = Prepared(
    lambda convoys: ReviewEntry.objects.filter(convoy_id__any=convoys, kind=EntryKind.LANDING).order_by("created_at")
)
CLOSED = Prepared(
    lambda beads: Bead.objects.filter(pk__any=beads, status__in=sorted(FINAL)).values_list("pk", flat=True)
)
AGENTS = Prepared(lambda agents: Agent.objects.filter(pk__any=agents))
