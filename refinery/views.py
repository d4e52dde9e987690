"""The people's pages: fetch, show. Acting views parse a form, open one door of `refinery.doors`, and redirect.

Every status shown comes from `refinery.phases` through `refinery.shows`. Who may see and do what is asked of
`beads.people`: a page is there for the members of its town; reviewers act on reviews, operators on convoys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from agents.models import LIVE_RUN, Mail, Run
from beads import people
from beads.errors import GastownError
from beads.models import Bead, Convoy, Escalation, Fact, Town, TownRole
from refinery import doors, shows
from refinery.models import ReviewEntry
from refinery.texts import tame

LOG_TAIL = 256 * 1024


@login_required
@require_GET
def towns(request: HttpRequest) -> HttpResponse:
    """The towns of whoever looks."""
    rows = []
    for one in people.towns(request.user):
        board = shows.Board(one)
        rows.append(
            {
                "town": one,
                "rigs": len(board.world.rigs),
                "convoys": len(board.world.convoys),
                "beads": len(board.world.beads),
                "entries": len(board.world.entries),
                "runs": len(board.world.runs),
                "needs": sum(1 for s in board.shown.values() if s.phase == "awaiting_human"),
            }
        )
    return render(request, "refinery/towns.html", {"rows": rows})


@login_required
@require_GET
def town(request: HttpRequest, slug: str) -> HttpResponse:
    """One town: what needs a person, convoys, lanes, runs."""
    found = get_object_or_404(Town, slug=slug)
    people.see(request.user, found)
    board = shows.Board(found)
    convoys = Convoy.objects.select_related("bead", "rig").filter(bead__town=found).order_by("-bead__created_at")
    live_runs = Run.objects.select_related("agent", "rig", "bead").filter(LIVE_RUN, town=found)
    context = {
        "town": found,
        "rigs": board.world.rigs.values(),
        "convoys": [shows.convoy_data(board, c) for c in convoys[:20]],
        "lanes": _lanes(board),
        "runs": live_runs,
        "waiting": [row for lane in _lanes(board) for row in lane["rows"] if row["phase"] == "awaiting_human"],
        "escalations": Escalation.objects.select_related("bead").filter(town=found, closed_at=None)[:50],
        "quarantined": Fact.objects.filter(town=found, processed_at=None, quarantined_at__isnull=False).count(),
        "loose": [
            shows.bead_row(board, b)
            for b in Bead.objects.select_related("rig").filter(pk__in=[v.id for v in board.world.beads if not v.convoy])
        ],
    }
    return render(request, "refinery/town.html", context)


def _lanes(board: shows.Board) -> list[dict[str, Any]]:
    """The town's lanes in queue order."""
    ids = [view.id for views in board.lanes.values() for view in views]
    entries = {e.pk: e for e in ReviewEntry.objects.select_related("bead", "rig").filter(pk__in=ids)}
    return [
        {
            "rig": board.world.rigs[rig].slug,
            "target": target,
            "rows": [shows.entry_data(board, entries[v.id]) for v in views if v.id in entries],
        }
        for (rig, target), views in board.lanes.items()
    ]


@login_required
@require_GET
def queue(request: HttpRequest) -> HttpResponse:
    """All lanes of the towns of whoever looks."""
    lanes = [lane | {"town": one} for one in people.towns(request.user) for lane in _lanes(shows.Board(one))]
    return render(request, "refinery/queue.html", {"lanes": lanes})


@login_required
@require_GET
def convoy(request: HttpRequest, key: str) -> HttpResponse:
    """A convoy's progress."""
    found = get_object_or_404(Convoy.objects.select_related("bead__town", "rig"), pk=key)
    people.see(request.user, found.bead.town)
    board = shows.Board(found.bead.town)
    data = shows.convoy_data(board, found)
    runs = {r.bead_id: r for r in Run.objects.select_related("agent").filter(LIVE_RUN, bead__convoy=found)}
    entries = {e.source_id: e for e in ReviewEntry.objects.filter(source__convoy=found).order_by("created_at")}
    for row in data["beads"]:
        row["run"] = runs.get(row["id"])
        row["entry"] = entries.get(row["id"])
        row["phase"] = board.entry(row["entry"]).phase if row["entry"] else row["status"]
    landings = ReviewEntry.objects.select_related("bead", "rig").filter(convoy=found, kind="landing")
    context = {
        "convoy": found,
        "data": data,
        "waves": _by_wave(data["beads"]),
        "bars": _bars(data),
        "landings": [shows.entry_data(board, e) for e in landings],
        "may_operate": people.may(request.user, found.bead.town, TownRole.OPERATOR),
        "history": shows.history(found.bead),
    }
    return render(request, "refinery/convoy.html", context)


def _by_wave(rows: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    numbers = sorted({row["wave"] for row in rows})
    return [(n, [row for row in rows if row["wave"] == n]) for n in numbers]


def _bars(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The progress bar's parts, in hundredths of its width."""
    total = max(data["total"], 1)
    bars, x = [], 0.0
    for status in ("closed", "in_review", "in_progress", "open", "failed"):
        count = sum(1 for row in data["beads"] if row["status"] == status)
        if count:
            width = 100 * count / total
            bars.append({"status": status, "x": round(x, 2), "width": round(width, 2), "count": count})
            x += width
    return bars


@login_required
@require_GET
def bead(request: HttpRequest, key: str) -> HttpResponse:
    """One bead with its history."""
    found = get_object_or_404(Bead.objects.select_related("town", "rig"), pk=key)
    people.see(request.user, found.town)
    if found.type == "convoy":
        return redirect("convoy", key)
    if found.type == "merge_request":
        return redirect("review", key)
    context = {
        "bead": found,
        "why": shows.Board(found.town).bead(found),
        "runs": found.runs.select_related("agent").order_by("created_at"),
        "entries": found.entries.order_by("created_at"),
        "children": found.children.all(),
        "history": shows.history(found),
    }
    return render(request, "refinery/bead.html", context)


@login_required
@require_POST
def convoy_act(request: HttpRequest, key: str, verb: str) -> HttpResponse:
    """Start, close or retry a convoy."""
    user = cast(Any, request.user)
    people.act(user, TownRole.OPERATOR)
    found = get_object_or_404(Convoy.objects.select_related("bead__town", "rig"), pk=key)
    people.act_in(user, found.bead.town, TownRole.OPERATOR)
    act = {"start": doors.start_convoy, "close": doors.close_convoy, "retry": doors.retry_convoy}.get(verb)
    if act is None:
        raise Http404
    try:
        act(found, _name(user))
    except GastownError as error:
        messages.error(request, error.message)
    return redirect("convoy", key)


def _name(user: AbstractBaseUser) -> str:
    return f"web:{user.get_username()}"


@login_required
@require_GET
def run(request: HttpRequest, key: str) -> HttpResponse:
    """One run with the end of its log."""
    found = get_object_or_404(Run.objects.select_related("agent", "rig", "bead", "town"), pk=key)
    people.see(request.user, found.town)
    log, cut = "", False
    path = Path(found.log_path) if found.log_path else None
    if path is not None and path.is_file():
        size = path.stat().st_size
        with path.open("rb") as handle:
            handle.seek(max(size - LOG_TAIL, 0))
            log, cut = tame(handle.read().decode("utf-8", "replace")), size > LOG_TAIL
    context = {"run": found, "log": log, "cut": cut, "calls": found.tool_calls.order_by("-id")[:50]}
    return render(request, "refinery/run.html", context)


@login_required
@require_GET
def mail(request: HttpRequest) -> HttpResponse:
    """The latest mail of the towns of whoever looks."""
    mine = Mail.objects.filter(town__in=people.towns(request.user))
    found = mine.select_related("town", "about").order_by("-id")[:100]
    return render(request, "refinery/mail.html", {"mail": found})
