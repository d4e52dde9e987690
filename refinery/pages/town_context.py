"""What the list of towns and a town's own page show, in a number of queries that does not grow with the rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Aggregate, Count, DateTimeField, DurationField, F
from django.db.models.functions import Coalesce, Trunc

from agents import boxes
from agents.lifecycle import RunOutcome
from agents.models import Agent
from beads import lists
from beads.lifecycle import Purpose
from beads.models import Bead, Convoy, Escalation, Fact, Town
from refinery.core.states import EntryKind
from refinery.core.world import World
from refinery.models import ReviewEntry
from refinery.pages import attention, boards, charts, contexts, spending
from refinery.store import flakiness

SHOWN_CONVOYS = 30
MAX_FILED = 50  # beads that wait for a release, shown among what a town needs


def towns(found: Iterable[Town]) -> dict[str, Any]:
    """These towns."""
    rows = []
    for one in found:
        board = boards.Board(one)
        rows.append(
            {
                "town": one,
                "rigs": len(board.world.rigs),
                "convoys": len(board.world.convoys),
                "beads": len(board.world.beads),
                "entries": len(board.world.entries),
                "runs": len(board.world.runs),
                "needs": len(board.asked)
                + sum(1 for c in board.world.convoys if c.started_at is None or c.failed_beads)
                + len(board.unreleased)
                + len(board.world.held),
            }
        )
    return {"rows": rows}


def town(town: Town, most: int = contexts.LISTED) -> dict[str, Any]:
    """One town: what needs a person, convoys, who is at work, lanes, how fast it goes. `most`: of each list; 0: all."""
    board = boards.Board(town)
    live = [c.id for c in board.world.convoys]
    found = Convoy.objects.select_related("bead", "rig").filter(bead__town=town)
    recent = list(found.filter(pk__in=live).order_by("-bead__created_at"))
    past = lists.first(
        found.exclude(pk__in=live).order_by("-bead__created_at"), most and max(SHOWN_CONVOYS - len(recent), 5)
    )
    recent += past.rows
    lanes = contexts.lanes(board)
    convoys = _convoy_rows(board, recent)
    waiting = attention.of_checks(board.world, {key: s.reason for key, s in board.shown.items()})
    waiting += attention.of_entries(row for lane in lanes for row in lane["rows"])
    filed = lists.first(board.unreleased, most and MAX_FILED)
    waiting += attention.of_filed(filed.rows) + attention.of_held(board.world.held)
    for row in convoys:
        if row["convoy"].pk in live:
            waiting += attention.of_convoy(row["convoy"], row["phase"], row["reason"])
    open_escalations = Escalation.objects.select_related("bead", "town").filter(town=town, closed_at=None)
    escalated = lists.first(open_escalations.order_by("-pk"), most)
    waiting += attention.of_escalations(escalated.rows, {n.key for n in waiting})
    runs = list(contexts.live_runs(town))
    resting = Agent.objects.filter(town=town, retired_at=None).order_by("name")
    outside = Bead.objects.select_related("rig").filter(pk__in=[v.id for v in board.world.beads if not v.convoy])
    loose = lists.first(outside.filter(purpose=Purpose.WORK), most)
    return {
        "town": town,
        "rigs": list(board.world.rigs.values()),
        "unboxed": [rig.slug for rig in board.world.rigs.values() if boxes.is_off(rig.config)],
        "scripted": sorted({name for rig in board.world.rigs.values() for name in rig.config.providers.scripted}),
        "unstarted": _unstarted(board.world),
        "wide": board.town_wide,
        "requests": len(board.world.requests),
        "needs": waiting,
        "filed": filed,
        "escalated": escalated,
        "quarantined": Fact.objects.filter(town=town, processed_at=None, quarantined_at__isnull=False).count(),
        "convoys": convoys,
        "past": past,
        "runs": runs,
        "resting": lists.first(resting.exclude(pk__in=[r.agent_id for r in runs if r.agent_id]), most),
        "lanes": lanes,
        "loose": [boards.bead_row(board, b) for b in loose.rows],
        "loose_cut": loose,
        "flaky": flakiness.recent(town, board.world.now),
        "charts": _charts(town, board.world.now),
        "spending": spending.shown(spending.of_town(town)),
    }


def _unstarted(world: World) -> list[str]:
    """Why runs of what is going on could not be started the last time, each reason once, at most three."""
    entries = (*world.entries, *(c.entry for c in world.checks))
    beads = (*world.beads, *world.requests)
    last = (runs[-1] for runs in (*(b.runs for b in beads), *(e.runs for e in entries)) if runs)
    return list(dict.fromkeys(run.reason for run in last if run.outcome == RunOutcome.START_FAILED))[:3]


def _convoy_rows(board: boards.Board, convoys: Sequence[Convoy]) -> list[dict[str, Any]]:
    """Convoys as the town lists them, with a progress bar by phase."""
    beads: dict[str, Counter[str]] = defaultdict(Counter)
    tracked = Bead.objects.filter(convoy__in=convoys).defer("body", "context")
    for bead in tracked:
        beads[str(bead.convoy_id)][board.bead_phase(bead)] += 1
    rows = []
    for convoy in convoys:
        phase, why = board.convoy(convoy)
        counts = {name: beads[convoy.pk][name] for name in contexts.BAR}
        rows.append(
            {
                "convoy": convoy,
                "phase": phase,
                "reason": why,
                "closed": counts["closed"],
                "total": sum(counts.values()),
                "parts": charts.parts(counts),
            }
        )
    return rows


class Median(Aggregate):
    """PostgreSQL's continuous median."""

    function = "percentile_cont"
    template = "%(function)s(0.5) within group (order by %(expressions)s)"
    output_field = DurationField()


def _charts(town: Town, now: dt.datetime) -> list[dict[str, Any]]:
    """Throughput and lead time: by hour in a young town, else by day."""
    kind, step, count, form = "day", dt.timedelta(days=1), 14, "%d %b"
    last = now.replace(minute=0, second=0, microsecond=0, hour=0)
    if now - town.created_at < dt.timedelta(days=2):
        kind, step, count, form = "hour", dt.timedelta(hours=1), 24, "%H:00"
        last = last.replace(hour=now.hour)
    since = last - step * (count - 1)
    # each change once, when it was merged: a convoy's landing brings only what has been counted
    done = ReviewEntry.objects.merged().filter(rig__town=town, kind=EntryKind.CHANGE, closed_at__gte=since)
    begun = Coalesce("source__created_at", "created_at")  # of what was submitted by hand, the submission
    rows = {
        row["at"]: row
        for row in done.order_by()
        .annotate(at=Trunc("closed_at", kind, output_field=DateTimeField()))
        .values("at")
        .annotate(number=Count("pk"), took=Median(F("closed_at") - begun))
    }
    moments = [since + step * number for number in range(count)]
    landed = [(at.strftime(form), float(rows[at]["number"]) if at in rows else 0.0) for at in moments]
    took = [(at.strftime(form), rows[at]["took"].total_seconds() if at in rows else 0.0) for at in moments]
    return [
        {"key": "throughput", "title": f"Changes merged by {kind}", "chart": charts.chart(landed), "timed": False},
        {"key": "lead", "title": f"Median lead time by {kind}", "chart": charts.chart(took), "timed": True},
    ]
