"""What was said about a piece of work, and what came of it: people's requests and remarks, reviewers', red gates', the
author's answers. Rows → what an agent is told. Reads only.

A person's word is *given* to a bead (`Verdict.task`, `ReviewComment.task`) when a run that works on it is queued with
it. What nobody was given yet is in the next run's prompt, whatever state and head it was said in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from agents.lifecycle import RunOutcome
from agents.mail import WORKER
from agents.models import Mail, Run
from beads import questions as of_agents
from beads.lifecycle import Purpose
from beads.models import Bead, Effect, Escalation
from refinery.core.entryviews import person
from refinery.core.keys import publish_key
from refinery.core.states import EntryKind, Judgement
from refinery.facts.hearsay import KINDS
from refinery.git import ranges
from refinery.models import ReviewComment, ReviewEntry, Verdict
from refinery.store import comments

EARLIER = 10  # rounds, and attempts, that are told of
LONG = 4000  # characters of one answer or request of an earlier round


@dataclass(frozen=True)
class Family:
    """A piece of work: its planned bead (or none), its review entries, the beads of rework and conflicts."""

    entries: tuple[ReviewEntry, ...]
    tasks: tuple[Bead, ...]
    ids: tuple[str, ...]


def family(bead: Bead, entry: ReviewEntry | None) -> Family:
    """All rows of the work that a bead is, or is a part of."""
    source: str | None = bead.pk
    convoy = None
    if entry is not None:
        source = entry.source_id
    if entry is not None and entry.kind == EntryKind.LANDING:
        convoy = entry.convoy_id
    if entry is None or source is not None:
        entries = list(ReviewEntry.objects.filter(source=source).order_by("created_at"))
    else:
        entries = [*reversed(ranges.lineage(entry)), entry]
    keys = [e.pk for e in entries]
    tasks = Bead.objects.filter(parent__in=keys).exclude(purpose=Purpose.WORK).order_by("created_at")
    ids = dict.fromkeys(key for key in (bead.pk, source, *keys, *(t.pk for t in tasks), convoy) if key)
    return Family(tuple(entries), tuple(tasks), tuple(ids))


@dataclass(frozen=True)
class Words:
    """What people said, as an agent is told it, and the rows that it is in."""

    said: tuple[dict[str, Any], ...] = ()
    verdicts: tuple[int, ...] = ()
    comments: tuple[int, ...] = ()


def of_people(entries: Iterable[ReviewEntry], task: str, current: ReviewEntry | None = None) -> Words:
    """What people asked for that nobody was given yet, or this very task, or that is said of the `current` entry's
    head; and their open remarks likewise. Who approved afterwards asks for nothing any more."""
    keys = [e.pk for e in entries]
    verdicts = list(Verdict.objects.filter(entry__in=keys, run=None).order_by("id"))
    asks = [v for v in verdicts if v.decision == Judgement.REQUEST_CHANGES]
    over = {(v.entry_id, person(v.by)): v.pk for v in verdicts if v not in asks}
    asked = [v for v in asks if over.get((v.entry_id, person(v.by)), 0) < v.pk]
    wanted = [v for v in asked if v.task_id in (None, task)]
    if current is not None and not wanted:  # tried again: what was said of this head has led to no other one
        wanted = [v for v in asked if (v.entry_id, v.head_sha) == (current.pk, current.head_sha)]
    said: list[dict[str, Any]] = []
    for v in wanted:
        one = {"by": v.by, "person": True, "head": v.head_sha, "feedback": v.feedback, "items": v.items}
        if one not in said:
            said.append(one)
    remarks, rows = _remarks(keys, task, said)
    return Words((*said, *remarks), tuple(v.pk for v in wanted), tuple(rows))


def _remarks(keys: list[str], task: str, said: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """People's open remarks on lines that are in no request: one word for each person and head."""
    known = {(i.get("file"), i.get("line"), i.get("problem")) for one in said for i in one["items"]}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = []
    fresh = ReviewComment.objects.filter(Q(task=None) | Q(task=task), entry__in=keys, resolved_at=None)
    for row in fresh[: comments.MAX_COMMENTS]:
        rows.append(row.pk)
        item = comments.item(row)
        if (item["file"], item["line"], item["problem"]) not in known:
            found.setdefault((row.by, row.head_sha), []).append(item)
    told = [
        {"by": by, "person": True, "head": head, "feedback": "", "items": items} for (by, head), items in found.items()
    ]
    return told, rows


def for_review(found: Family, entry: ReviewEntry) -> list[dict[str, Any]]:
    """What people said about this work since its last review, beside their verdicts: for who reviews it now."""
    last = Run.objects.filter(bead=entry.bead_id, purpose="review").order_by("created_at").last()
    letters = Mail.objects.filter(bead__in=found.ids, recipient=WORKER, kind__in=KINDS.values()).order_by("id")
    if last is not None:
        letters = letters.filter(created_at__gt=last.created_at)
    return [{"by": m.sender, "person": True, "feedback": f"{m.subject}\n{m.body}", "items": []} for m in letters]


def rework(bead: Bead, late: Words) -> dict[str, Any]:
    """The request of a rework bead as its next run is told it: what it was opened with, and what people said since."""
    told = dict(bead.context.get("rework") or {})
    before = list(told.get("said") or [])
    said = [*before, *(one for one in late.said if one not in before)]
    if not said:
        return told
    return told | {"said": said} | merged(said)


def merged(said: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All that was said as one text and one list of items."""
    said = list(said)
    texts: list[str] = []
    items: list[dict[str, Any]] = []
    for one in said:
        if one["feedback"] and said[1:]:
            texts.append(f"{one['by']}: {one['feedback']}")
        elif one["feedback"]:
            texts.append(one["feedback"])
        items += [item for item in one["items"] if item not in items]
    return {"feedback": "\n\n".join(texts), "items": items}


def rounds(found: Family, now: str) -> list[dict[str, Any]]:
    """Earlier rounds of rework and conflicts (not `now`), in order: what was asked for, and what its author did and
    said."""
    tasks = [t for t in found.tasks if t.pk != now][-EARLIER:]
    last: dict[str, Run] = {}
    for run in Run.objects.ended().filter(bead__in=tasks).defer("brief", "steps").order_by("created_at"):
        last[run.bead_id] = run
    return [_round(task, last.get(task.pk)) for task in tasks]


def _round(task: Bead, run: Run | None) -> dict[str, Any]:
    told = task.context.get(str(task.purpose)) or {}
    head = told.get("head") or ""
    asked = told.get("feedback") or ""
    items = told.get("items") or []
    if task.purpose == Purpose.CONFLICT:
        asked = f"Conflicts with {told.get('target')} in {', '.join(told.get('files') or [])}"
    result = {"kind": str(task.purpose), "round": told.get("round"), "asked": asked[:LONG], "items": items[:50]}
    if run is None:
        return result | {"came": f"{task.status}: {task.reason}", "answer": ""}
    changed = run.work != "nothing" and run.head_sha not in ("", head)
    came = "committed nothing"
    if changed:
        came = f"committed up to {run.head_sha[:12]}"
    if run.outcome != RunOutcome.DONE:
        came = f"{run.outcome}: {run.reason}"
    return result | {"head": head, "by": _name(run), "came": came, "answer": run.summary[:LONG]}


def attempts(bead: Bead, purpose: str) -> list[dict[str, Any]]:
    """Earlier runs of the bead for the same purpose, in order: how each ended and why, what became of its work."""
    runs = Run.objects.select_related("agent").ended().filter(bead=bead, purpose=purpose)
    latest = list(runs.defer("brief", "steps").order_by("-created_at")[:EARLIER])
    refused = dict(
        Effect.objects.failed().filter(key__in=[publish_key(r.pk) for r in latest]).values_list("key", "error")
    )
    return [
        {
            "attempt": run.attempt,
            "run": run.pk,
            "by": _name(run),
            "outcome": run.outcome,
            "reason": run.reason,
            "work": run.work_text,
            "refused": refused.get(publish_key(run.pk), ""),
            "summary": run.summary[:LONG],
            "status": run.status_message,
        }
        for run in reversed(latest)
    ]


def questions(beads: Iterable[str]) -> list[dict[str, Any]]:
    """What was asked of people about these beads, the latest, in order, and what they said."""
    asked = of_agents.asked_about(beads).order_by("-bead__created_at")[:EARLIER]
    return [_question(one) for one in reversed(asked)]


def _question(asked: Escalation) -> dict[str, Any]:
    stands = of_agents.standing(asked)
    text = asked.bead.body or asked.bead.title
    told = {"id": stands.id, "state": stands.state, "by": stands.by, "answer": stands.answer[:LONG]}
    return told | {"question": text[:LONG]}


def _name(run: Run) -> str:
    return run.agent_name or run.pk
