"""What a convoy's page shows, in a number of queries that does not grow with the rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from django.db.models import Q, QuerySet

from agents.models import Run
from beads import lists
from beads.lifecycle import BeadStatus
from beads.models import BeadEvent, Convoy, Escalation
from refinery import links
from refinery.core.states import EntryKind, EntryState
from refinery.models import ReviewEntry
from refinery.pages import attention, boards, charts, contexts, conversation, spending
from refinery.pages.attention import Need

# What is shown of an event: a row of each, and of its bead, would take longer than the rest of the page.
_EVENT = "pk", "bead_id", "bead__title", "kind", "from_status", "to_status", "reason", "actor", "created_at"


def convoy(convoy: Convoy, most: int = contexts.LISTED) -> dict[str, Any]:
    """A convoy's progress: what it waits for, who is at it, its graph, its branch, its history."""
    town = convoy.bead.town
    board = boards.Board(town)
    data = boards.convoy_data(board, convoy)
    found = ReviewEntry.objects.select_related("bead").filter(convoy=convoy).defer("bead__body", "bead__context")
    entries = list(found.order_by("created_at").prefetch_related("rig"))
    of_source = {e.source_id: e for e in entries if e.source_id}
    runs = list(
        contexts.live_runs(
            town, Q(bead__convoy=convoy) | Q(bead__review__convoy=convoy) | Q(bead__parent__review__convoy=convoy)
        )
    )
    run_of = {_serves(run, of_source): run for run in runs}
    bead_link, review_link = links.many("bead"), links.many("review")
    for row in data["beads"]:
        row["run"] = run_of.get(row["id"])
        row["entry"] = of_source.get(row["id"])
        row["url"] = bead_link(row["id"])
        row["review_url"], row["since"] = "", row["updated_at"]
        if row["entry"]:
            row["review_url"] = review_link(row["entry"].pk)
        if row["run"]:
            row["since"] = row["run"].created_at
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
        "parts": charts.parts({name: counts[name] for name in contexts.BAR}),
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
        "spending": spending.shown(spending.of_convoy(convoy)),
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
    found = attention.of_convoy(convoy, data["phase"], data["reason"], alone=True) + attention.of_entries(entries)
    about = Q(about=convoy.bead) | Q(about__convoy=convoy) | Q(about__review__convoy=convoy)
    rows = Escalation.objects.select_related("bead", "town").filter(about, closed_at=None)
    return found + attention.of_escalations(rows, {n.key for n in found})


def _serves(run: Run, of_source: Mapping[str, ReviewEntry]) -> str | None:
    """The convoy's bead that a run works for: its own, or the source of the entry that it builds, reviews or fixes."""
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
