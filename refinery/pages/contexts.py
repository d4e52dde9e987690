"""What each page shows: rows → a template's context, in a number of queries that does not grow with the rows.

Statuses come from `refinery.pages.boards.Board`; here they are only put in order and drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from django.db.models import Count, Q, QuerySet
from django.urls import reverse
from django.utils import timezone

from agents.lifecycle import RunState
from agents.models import Mail, Run
from beads import lists, questions
from beads.lifecycle import BeadStatus
from beads.models import Bead, Escalation, Town
from refinery import links
from refinery.core import estimates
from refinery.core.states import EntryKind, GateOutcome
from refinery.models import ReviewEntry
from refinery.pages import ansi, attention, boards, outcomes, pulls, spending, transcripts, ways
from refinery.pages.live import Topic
from refinery.store.results import telling

LOG_TAIL = 96 * 1024
TRAIN = 40  # entries drawn of a lane
ENDED = 20  # entries that left the queue, the latest of them
LISTED = 100  # rows of other lists, unless all are asked for (`?all=1`): what is cut says so (`_cut.html`)
# The order of a progress bar: what is done on the left, what has not begun on the right.
BAR = (
    "closed", "landing", "reviewing", "gating", "queued", "awaiting_human", "blocked",
    "working", "starting", "ready", "waiting", "failed",
)  # fmt: skip


def lanes(board: boards.Board) -> list[dict[str, Any]]:
    """The town's lanes in queue order, each row with how long it has been there and how long it may take."""
    lanes, link = [], links.many("review")
    for (rig, target), views in board.lanes.items():
        rows = [boards.view_data(board, view) for view in views]
        cars = sum(1 for row in rows if row["car"])
        ahead: tuple[str, ...] = ()
        for row, view in zip(rows, views, strict=True):
            batch: tuple[str, ...] = ()
            if view.car:
                batch = view.car.batch
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


def live_runs(town: Town, *match: Q) -> QuerySet[Run]:
    """Live runs without their bulky columns."""
    bulky = ("brief", "steps", "checkpoint", "step_results", "bead__body", "bead__context")
    rows = Run.objects.select_related("agent", "bead__review").live().filter(*match, town=town)
    return rows.defer(*bulky).order_by("created_at")


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
        "lanes": lanes(board),
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


def run(run: Run, most: int = LISTED, look: transcripts.Look = transcripts.END) -> dict[str, Any]:
    """One run with a part of its transcript, or the end of its log, and its latest calls of tools."""
    told = transcripts.shown(run, look)
    text, cut = "", False
    if not told.get("entries_shown"):
        text, cut = log_tail(run)
    return {
        **told,
        "run": run,
        "why": run.reason if run.state == RunState.ENDED else boards.Board(run.town).run(run),
        "made": outcomes.made(run),
        "failed": [telling(result) for result in run.gate_results.exclude(outcome=GateOutcome.PASS).defer("output")],
        "restore": outcomes.restore(run),
        "needs": attention.of_questions(questions.unanswered([run.bead_id])),
        "log": ansi.spans(text),
        "cut": cut,
        "calls": lists.first(run.tool_calls.order_by("-id").values("pk", "tool", "created_at"), most),
        "spending": spending.shown(spending.of_run(run)),
        "took": ((run.ended_at or timezone.now()) - run.created_at).total_seconds(),
    }


def run_topic(run: Run) -> Topic | None:
    """What a run's page follows; None when the run has ended."""
    if run.state == RunState.ENDED:
        return None
    return Topic(run.town.slug, run.pk, transcripts.files(run))


def log_tail(run: Run, limit: int = LOG_TAIL) -> tuple[str, bool]:
    """The last `limit` bytes of a run's log, from a line's start where there is one; and whether there is more."""
    path = None
    if run.log_path:
        path = Path(run.log_path)
    if path is None or not path.is_file():
        return "", False
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(size - limit, 0))
        raw = handle.read(limit)
    if size > limit and b"\n" in raw[:-1]:
        raw = raw.partition(b"\n")[2]
    return raw.decode("utf-8", "replace"), size > limit


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
        "again": bead.type == "issue" and (bead.status == BeadStatus.FAILED or bool(bead.hold)),
        "commands": ways.ways_on(bead),
        "needs": attention.of_questions(questions.unanswered([bead.pk])),
        "runs": runs,
        "entries": bead.entries.order_by("created_at"),
        "pulls": pulls.of_bead(bead),
        "after": [d.on for d in bead.blocked_by.select_related("on")],
        "children": bead.children.all(),
        "spending": spending.shown(spending.of_bead(bead)),
        "history": history,
        "history_cut": lists.Shown(history, bead.events.count() if most and len(history) == most * 5 else len(history)),
    }
