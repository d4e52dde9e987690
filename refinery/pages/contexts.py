"""What each page shows: rows → a template's context, in a number of queries that does not grow with the rows.

Statuses come from `refinery.pages.boards.Board`; here they are only put in order and drawn.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from django.db.models import Aggregate, Count, DateTimeField, DurationField, F, Q, QuerySet
from django.db.models.functions import Coalesce, Trunc
from django.urls import reverse
from django.utils import timezone

from agents import boxes
from agents.lifecycle import RunOutcome, RunState
from agents.models import Agent, Mail, Run
from beads import lists
from beads.lifecycle import BeadStatus, Purpose
from beads.models import Bead, BeadEvent, Convoy, Escalation, Fact, Town
from refinery import links
from refinery.core import estimates
from refinery.core.states import EntryKind, EntryState, GateOutcome
from refinery.core.world import World
from refinery.models import ReviewEntry
from refinery.pages import ansi, attention, boards, charts, conversation, outcomes
from refinery.pages.attention import Need
from refinery.pages.live import Topic
from refinery.store import flakiness
from refinery.store.results import telling

LOG_TAIL = 96 * 1024
TRAIN = 40  # wagons drawn of a lane
SHOWN_CONVOYS = 30
MAX_FILED = 50  # beads that wait for a release, shown among what a town needs
ENDED = 20  # entries that left the queue, the latest of them
LISTED = 100  # rows of other lists, unless all are asked for (`?all=1`): what is cut says so (`_cut.html`)
# What is shown of an event: a row of each, and of its bead, would take longer than the rest of the page.
_EVENT = "pk", "bead_id", "bead__title", "kind", "from_status", "to_status", "reason", "actor", "created_at"
# The order of a progress bar: what is done on the left, what has not begun on the right.
BAR = (
    "closed", "landing", "reviewing", "gating", "queued", "awaiting_human", "blocked",
    "working", "starting", "ready", "waiting", "failed",
)  # fmt: skip


def _lanes(board: boards.Board) -> list[dict[str, Any]]:
    """The town's lanes in queue order, each row with how long it has been there and how long it may take."""
    lanes, link = [], links.many("review")
    for (rig, target), views in board.lanes.items():
        rows = [boards.view_data(board, view) for view in views]
        cars = sum(1 for row in rows if row["car"])
        ahead: tuple[str, ...] = ()
        for row, view in zip(rows, views, strict=True):
            batch = view.car.batch if view.car else ()
            row |= {"url": link(row["id"]), "joins": bool(batch) and batch == ahead}
            ahead = batch
        counts = Counter(row["phase"] for row in rows)
        lanes.append(
            {
                "key": f"{board.world.rigs[rig].slug}-{target}",
                "rig": board.world.rigs[rig].slug,
                "why": board.lane_why(rig, target),
                "target": target,
                "rows": rows,
                "train": rows[:TRAIN],
                "cars": cars,
                "more": max(len(rows) - TRAIN, 0),
                "counts": [(name, counts[name]) for name in BAR if counts[name]],
                "pace": estimates.pace(board.world.rigs[rig], board.known),
                "check": _check(board, rig, target),
            }
        )
    return lanes


def _check(board: boards.Board, rig: int, target: str) -> dict[str, str] | None:
    """What is said of a lane whose target is being checked, or does not pass its gates itself."""
    known = board.world.known.get((rig, target))
    if known is None:
        return None
    shown = board.shown[known.id]
    return {"url": reverse("review", args=[known.id]), "phase": shown.phase, "why": shown.reason}


def _live_runs(town: Town, *match: Q) -> QuerySet[Run]:
    """Live runs without their bulky columns."""
    bulky = ("brief", "steps", "checkpoint", "step_results", "bead__body", "bead__context")
    rows = Run.objects.select_related("agent", "bead__review").live().filter(*match, town=town)
    return rows.defer(*bulky).order_by("created_at")


# -- towns ----------------------------------------------------------------------------------------------------------


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
                + len(board.unreleased),
            }
        )
    return {"rows": rows}


def town(town: Town, most: int = LISTED) -> dict[str, Any]:
    """One town: what needs a person, convoys, who is at work, lanes, how fast it goes. `most`: of each list; 0: all."""
    board = boards.Board(town)
    live = [c.id for c in board.world.convoys]
    found = Convoy.objects.select_related("bead", "rig").filter(bead__town=town)
    recent = list(found.filter(pk__in=live).order_by("-bead__created_at"))
    past = lists.first(
        found.exclude(pk__in=live).order_by("-bead__created_at"), most and max(SHOWN_CONVOYS - len(recent), 5)
    )
    recent += past.rows
    lanes = _lanes(board)
    convoys = _convoy_rows(board, recent)
    waiting = attention.of_checks(board.world, {key: s.reason for key, s in board.shown.items()})
    waiting += attention.of_entries(row for lane in lanes for row in lane["rows"])
    filed = lists.first(board.unreleased, most and MAX_FILED)
    waiting += attention.of_filed(filed.rows)
    for row in convoys:
        if row["convoy"].pk in live:
            waiting += attention.of_convoy(row["convoy"], row["phase"], row["reason"])
    open_escalations = Escalation.objects.select_related("bead").filter(town=town, closed_at=None)
    escalated = lists.first(open_escalations.order_by("-pk"), most)
    waiting += attention.of_escalations(escalated.rows, {n.key for n in waiting})
    runs = list(_live_runs(town))
    resting = Agent.objects.filter(town=town, retired_at=None).order_by("name")
    outside = Bead.objects.select_related("rig").filter(pk__in=[v.id for v in board.world.beads if not v.convoy])
    loose = lists.first(outside.filter(purpose=Purpose.WORK), most)
    return {
        "town": town,
        "rigs": list(board.world.rigs.values()),
        "unboxed": [rig.slug for rig in board.world.rigs.values() if boxes.is_off(rig.config)],
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
        counts = {name: beads[convoy.pk][name] for name in BAR}
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
    young = now - town.created_at < dt.timedelta(days=2)
    kind, step, count = ("hour", dt.timedelta(hours=1), 24) if young else ("day", dt.timedelta(days=1), 14)
    last = now.replace(minute=0, second=0, microsecond=0, hour=now.hour if young else 0)
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
    form = "%H:00" if young else "%d %b"
    landed = [(at.strftime(form), float(rows[at]["number"]) if at in rows else 0.0) for at in moments]
    took = [(at.strftime(form), rows[at]["took"].total_seconds() if at in rows else 0.0) for at in moments]
    return [
        {"key": "throughput", "title": f"Changes merged by {kind}", "chart": charts.chart(landed), "timed": False},
        {"key": "lead", "title": f"Median lead time by {kind}", "chart": charts.chart(took), "timed": True},
    ]


# -- queue, mail ----------------------------------------------------------------------------------------------------


def queued(found: Iterable[Town]) -> dict[str, int]:
    """Town's slug → how many entries are in its queue, in the towns' order."""
    towns = list(found)
    entries = ReviewEntry.objects.active().filter(rig__town__in=towns).exclude(kind=EntryKind.CHECK)
    rows = entries.values("rig__town_id").order_by()
    counts = {row["rig__town_id"]: row["number"] for row in rows.annotate(number=Count("pk"))}
    return {one.slug: counts.get(one.pk, 0) for one in towns}


def queue(town: Town, counts: Mapping[str, int], most: int = ENDED) -> dict[str, Any]:
    """One town's lanes, and the way to the queues of the others (`counts`: see `queued`)."""
    board = boards.Board(town)
    towns = [{"slug": slug, "count": n, "here": slug == town.slug} for slug, n in counts.items()]
    ended = ReviewEntry.objects.select_related("bead", "rig").filter(rig__town=town, closed_at__isnull=False)
    return {
        "town": town,
        "lanes": _lanes(board),
        "towns": towns if len(towns) > 1 else [],
        "ended": lists.first(
            ended.exclude(kind=EntryKind.CHECK).defer("bead__body", "bead__context").order_by("-closed_at"), most
        ),
        "rig": next((rig.slug for rig in board.world.rigs.values()), ""),
    }


def mail(found: QuerySet[Town], most: int = LISTED) -> dict[str, Any]:
    """Open escalations of these towns, and their latest mail. `most`: of each; 0: all."""
    escalations = Escalation.objects.select_related("bead", "town").filter(closed_at=None, town__in=found)
    return {
        "escalations": lists.first(escalations.order_by("-pk"), most),
        "mail": lists.first(Mail.objects.select_related("town").filter(town__in=found).order_by("-id"), most),
    }


# -- runs -----------------------------------------------------------------------------------------------------------


def run(run: Run, most: int = LISTED) -> dict[str, Any]:
    """One run with the end of its log, and its latest calls of tools."""
    text, cut = log_tail(run)
    return {
        "run": run,
        "why": run.reason if run.state == RunState.ENDED else boards.Board(run.town).run(run),
        "made": outcomes.made(run),
        "failed": [telling(result) for result in run.gate_results.exclude(outcome=GateOutcome.PASS).defer("output")],
        "restore": outcomes.restore(run),
        "log": ansi.spans(text),
        "cut": cut,
        "calls": lists.first(run.tool_calls.order_by("-id").values("pk", "tool", "created_at"), most),
        "took": ((run.ended_at or timezone.now()) - run.created_at).total_seconds(),
    }


def run_topic(run: Run) -> Topic | None:
    """What a run's page follows; None when the run has ended."""
    if run.state == RunState.ENDED:
        return None
    return Topic(run.town.slug, run.pk, Path(run.log_path) if run.log_path else None)


def log_tail(run: Run, limit: int = LOG_TAIL) -> tuple[str, bool]:
    """The last `limit` bytes of a run's log, from a line's start where there is one; and whether there is more."""
    path = Path(run.log_path) if run.log_path else None
    if path is None or not path.is_file():
        return "", False
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(size - limit, 0))
        raw = handle.read(limit)
    if size > limit and b"\n" in raw[:-1]:
        raw = raw.partition(b"\n")[2]
    return raw.decode("utf-8", "replace"), size > limit


# -- convoys --------------------------------------------------------------------------------------------------------


def convoy(convoy: Convoy, most: int = LISTED) -> dict[str, Any]:
    """A convoy's progress: what it waits for, who is at it, its graph, its branch, its history."""
    town = convoy.bead.town
    board = boards.Board(town)
    data = boards.convoy_data(board, convoy)
    found = ReviewEntry.objects.select_related("bead").filter(convoy=convoy).defer("bead__body", "bead__context")
    entries = list(found.order_by("created_at").prefetch_related("rig"))
    of_source = {e.source_id: e for e in entries if e.source_id}
    runs = list(
        _live_runs(
            town, Q(bead__convoy=convoy) | Q(bead__review__convoy=convoy) | Q(bead__parent__review__convoy=convoy)
        )
    )
    run_of = {_serves(run, of_source): run for run in runs}
    bead_link, review_link = links.many("bead"), links.many("review")
    for row in data["beads"]:
        row["run"] = run_of.get(row["id"])
        row["entry"] = of_source.get(row["id"])
        row["url"] = bead_link(row["id"])
        row["review_url"] = review_link(row["entry"].pk) if row["entry"] else ""
        row["since"] = row["run"].created_at if row["run"] else row["updated_at"]
    _name_beads(data["beads"])
    counts = Counter(row["phase"] for row in data["beads"])
    timeline = lists.first(_timeline(convoy), most)
    listed = (
        e
        for e in entries
        if e.kind == EntryKind.LANDING or (e.state == EntryState.ACTIVE and board.entry(e).needs_person)
    )
    shown = [boards.entry_data(board, e) | {"url": review_link(e.pk)} for e in listed]
    return {
        "convoy": convoy,
        "town": town,
        "data": data,
        "waves": _by_wave(data["beads"]),
        "parts": charts.parts({name: counts[name] for name in BAR}),
        "graph": _graph(data["beads"]),
        "plan": conversation.plan_of(convoy) if data["staged"] else {},
        "needs": [] if _ended(convoy) and data["phase"] != "failed" else _needs(convoy, data, shown),
        "runs": runs,
        "ended": _ended(convoy),
        "commits": sorted(
            (e for e in entries if e.kind == EntryKind.CHANGE and e.state == EntryState.MERGED and e.closed_at),
            key=lambda e: (e.closed_at, e.pk),
        ),
        "landings": [row for row in shown if row["kind"] == "landing"],
        "timeline": timeline.rows,
        "timeline_cut": timeline,
    }


def drawn(board: boards.Board, convoy: Convoy) -> dict[str, Any]:
    """The plan of a convoy that has not begun: `graph`, `waves`, and its `data`."""
    data = boards.convoy_data(board, convoy)
    link = links.many("bead")
    for row in data["beads"]:
        row |= {"run": None, "entry": None, "url": link(row["id"]), "review_url": "", "since": row["updated_at"]}
    return {"data": data, "waves": _by_wave(data["beads"]), "graph": _graph(data["beads"])}


def _ended(convoy: Convoy) -> bool:
    return convoy.bead.status in (BeadStatus.CLOSED, BeadStatus.FAILED)


def _needs(convoy: Convoy, data: dict[str, Any], entries: list[dict[str, Any]]) -> list[Need]:
    found = attention.of_convoy(convoy, data["phase"], data["reason"]) + attention.of_entries(entries)
    about = Q(about=convoy.bead) | Q(about__convoy=convoy) | Q(about__review__convoy=convoy)
    rows = Escalation.objects.select_related("bead").filter(about, closed_at=None)
    return found + attention.of_escalations(rows, {n.key for n in found})


def _serves(run: Run, of_source: Mapping[str, ReviewEntry]) -> str | None:
    """The convoy's bead that a run works for: its own, or the source of the entry it builds, reviews or mends."""
    entries = {e.pk: source for source, e in of_source.items()}
    return entries.get(run.bead_id) or entries.get(run.bead.parent_id or "") or run.bead_id


def _name_beads(rows: list[dict[str, Any]]) -> None:
    """Sentences name the convoy's beads by title."""
    titles = {row["id"]: f"“{row['title']}”" for row in rows}
    for row in rows:
        named = re.sub(r"\bgt-\w+", lambda found: titles.get(found[0], found[0]), row["reason"])
        row["reason"] = named.replace("(in_progress)", "(in progress)").replace("(in_review)", "(in review)")


def _by_wave(rows: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    waves: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        waves[row["wave"]].append(row)
    return sorted(waves.items())


def _graph(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The dependency graph, with each box's bead."""
    drawn = charts.graph({r["id"]: r["wave"] for r in rows}, {r["id"]: r["after"] for r in rows})
    of = {row["id"]: row for row in rows}
    phase = {row["id"]: row["phase"] for row in rows}
    return {
        "width": drawn.width,
        "height": drawn.height,
        "nodes": [{"box": box, "bead": of[box.id]} for box in drawn.boxes],
        "edges": [  # one element for all that look alike
            {"path": path, "done": done}
            for done in (False, True)
            if (path := " ".join(e.path for e in drawn.edges if (phase[e.start] == "closed") is done))
        ],
        "columns": drawn.columns,
    }


def _timeline(convoy: Convoy) -> QuerySet[Any, dict[str, Any]]:
    """What happened to the convoy, its beads and their reviews, newest first."""
    about = Q(bead=convoy.bead) | Q(bead__convoy=convoy) | Q(bead__review__convoy=convoy)
    told_by_source = Q(bead__review__source__isnull=False, kind__in=["created", "status"])
    rows = BeadEvent.objects.filter(about).exclude(kind="blocked_by").exclude(told_by_source)
    shown: QuerySet[Any, dict[str, Any]] = rows.order_by("-id").values(*_EVENT)
    return shown


# -- beads ----------------------------------------------------------------------------------------------------------


def bead(bead: Bead, most: int = LISTED) -> dict[str, Any]:
    """One bead with its runs, reviews, tasks and history."""
    board = boards.Board(bead.town)
    history = boards.history(bead, most * 5)
    runs = lists.first(bead.runs.select_related("agent").defer("brief", "steps").order_by("-created_at"), most)
    for run in runs.rows:
        cast(Any, run).why = board.run(run)
    return {
        "bead": bead,
        "phase": board.bead_phase(bead),
        "why": board.bead(bead),
        "unreleased": bead.pk in {b.id for b in board.unreleased},
        "again": bead.status == BeadStatus.FAILED and bead.type == "issue",
        "commands": boards.ways_on(bead),
        "runs": runs,
        "entries": bead.entries.order_by("created_at"),
        "after": [d.on for d in bead.blocked_by.select_related("on")],
        "children": bead.children.all(),
        "history": history,
        "history_cut": lists.Shown(history, bead.events.count() if most and len(history) == most * 5 else len(history)),
    }
