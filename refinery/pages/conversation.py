"""Requests to the mayor → what its page and its command show: what was said, by whom, what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from agents.lifecycle import RunKind
from agents.models import Run
from beads.lifecycle import FINAL, BeadStatus, BeadType
from beads.models import Bead, BeadEvent, Convoy, Town
from beads.plans import Touches, clashes
from refinery.core.rules.mayor import WAITS_FOR_ANSWER
from refinery.pages import boards
from refinery.store.requests import ANSWERED, ASKED, REPLIED


def of_town(town: Town, most: int) -> list[Bead]:
    """The latest requests of a town, newest first."""
    rows = Bead.objects.select_related("rig", "town").filter(town=town, type=BeadType.MESSAGE)
    return list(rows.order_by("-created_at", "-id")[:most])


def shown(board: boards.Board, requests: Sequence[Bead]) -> list[dict[str, Any]]:
    """What is known of these requests of the board's town, in five queries."""
    keys = [r.pk for r in requests]
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)
    events = BeadEvent.objects.filter(bead__any=keys, kind__in=[ASKED, ANSWERED, REPLIED]).order_by("id")
    for event in events:
        one = {"kind": event.kind, "by": event.actor, "text": event.reason, "at": event.created_at.isoformat()}
        said[event.bead_id].append(one)
    runs: dict[str, list[Run]] = defaultdict(list)
    found = Run.objects.filter(bead__any=keys, kind=RunKind.MAYOR).defer("brief", "steps").order_by("created_at")
    for run in found:
        runs[run.bead_id].append(run)
    of_run = {run.pk: run.bead_id for some in runs.values() for run in some}
    convoys: dict[str, list[Convoy]] = defaultdict(list)
    planned = Convoy.objects.select_related("bead", "rig").filter(bead__filed_by__any=list(of_run))
    for convoy in planned.order_by("bead__created_at"):
        convoys[of_run[convoy.bead.filed_by]].append(convoy)
    beads: dict[str, list[Bead]] = defaultdict(list)
    filed = Bead.objects.filter(filed_by__any=list(of_run), convoy=None, type=BeadType.ISSUE)
    for bead in filed.order_by("created_at"):
        beads[of_run[bead.filed_by]].append(bead)
    return [_row(board, r, said[r.pk], runs[r.pk], convoys[r.pk], beads[r.pk]) for r in requests]


def _row(
    board: boards.Board,
    request: Bead,
    said: list[dict[str, Any]],
    runs: Sequence[Run],
    convoys: Iterable[Convoy],
    beads: Iterable[Bead],
) -> dict[str, Any]:
    question = ""
    last = next((one for one in reversed(said) if one["kind"] in (ASKED, ANSWERED)), None)
    if last is not None and last["kind"] == ASKED and request.status not in FINAL:
        question = last["text"]
    reply = next((one["text"] for one in reversed(said) if one["kind"] == REPLIED), "")
    rule, reason = "", request.reason
    if decision := board.decided.get(f"bead {request.pk}"):
        rule, reason = decision.rule, decision.why
    return {
        "id": request.pk,
        "text": request.body or request.title,
        "title": request.title,
        "rig": request.rig.slug if request.rig else "",
        "by": request.created_by,
        "at": request.created_at.isoformat(),
        "status": request.status,
        "resolution": request.resolution,
        "phase": phase(request, runs, rule),
        "reason": reason,
        "question": question,
        "answer": reply,
        "said": said,
        "convoys": [_planned(board, convoy) for convoy in convoys],
        "beads": [{"id": b.pk, "title": b.title, "staged": b.unreleased, "status": b.status} for b in beads],
        "runs": [_run(board, run) for run in runs],
    }


def phase(request: Bead, runs: Sequence[Run], rule: str) -> str:
    """The people's word for where a request stands: waiting, working, asks; when ended planned, answered, cancelled or
    failed."""
    if request.status == BeadStatus.FAILED:
        return "failed"
    if request.status == BeadStatus.CLOSED:
        if request.resolution == "cancelled":
            return "cancelled"
        if request.reason.startswith("planned"):
            return "planned"
        return "answered"
    if any(run.outcome == "" for run in runs):
        return "working"
    if rule == WAITS_FOR_ANSWER:
        return "asks"
    return "waiting"


def _run(board: boards.Board, run: Run) -> dict[str, Any]:
    told = {"id": run.pk, "state": run.state, "outcome": run.outcome, "attempt": run.attempt}
    return told | {"reason": board.run(run), "at": run.created_at.isoformat(), "status": run.status_message}


def _planned(board: boards.Board, convoy: Convoy) -> dict[str, Any]:
    stands, why = board.convoy(convoy)
    return {
        "id": convoy.pk,
        "title": convoy.bead.title,
        "staged": convoy.started_at is None and not convoy.bead.closed_at,
        "phase": stands,
        "reason": why,
    }


def plan_of(convoy: Convoy) -> dict[str, Any]:
    """What a convoy's plan says of its beads beside their order: files, estimates, and which would conflict."""
    beads = list(convoy.beads.defer("body").prefetch_related("blocked_by").order_by("created_at", "id"))
    after = {b.pk: tuple(d.on_id for d in b.blocked_by.all()) for b in beads}
    touched = {b.pk: Touches(b.rig_id, tuple(b.context.get("files") or ()), after[b.pk]) for b in beads}
    titles = {b.pk: b.title for b in beads}
    rows = [
        {"id": b.pk, "title": b.title, "priority": b.priority, "status": b.status, "model": b.model}
        | {"files": b.context.get("files") or [], "estimate": b.context.get("estimate") or ""}
        for b in beads
    ]
    pairs = [{"beads": [titles[a], titles[b]], "files": files} for a, b, files in clashes(touched)]
    return {"beads": rows, "conflicts": pairs, "told": any(r["files"] or r["estimate"] for r in rows)}
