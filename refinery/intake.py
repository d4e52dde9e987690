"""One fact → observed columns, by calling the right single writer. No decision is taken here.

The exceptions are a person's own decisions (retry, start), which the fact itself states: they are carried out
through the ledger, under the tick's lock. An unknown kind or a bad payload raises and ends in quarantine.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from agents import dispatch
from agents.models import Run, RunKind
from beads import ledger
from beads.errors import Conflict, Invalid, LostRace, NotFound
from beads.lifecycle import BeadStatus
from beads.models import Bead, Convoy, Escalation, Fact
from refinery import gates, queue
from refinery.models import Candidate, Landing, ReviewEntry


def take(fact: Fact, now: dt.datetime) -> None:
    """Apply one fact. Raises on anything that it cannot make sense of."""
    data: dict[str, Any] = fact.payload
    match fact.kind:
        case "run.exited":
            _run_exited(fact)
        case "run.start_failed":
            pass  # the error was noted at the door; the fact is the wake-up and the history
        case "run.done" | "run.request_changes":
            _run_result(fact, data)
        case "run.published":
            dispatch.set_published(fact.subject)
        case "run.stop":
            dispatch.request_stop(fact.subject, data.get("reason", "stopped by a person"), now)
        case "escalation.raised":
            _escalated(fact, data)
        case "escalation.ack":
            ledger.acknowledge(_escalation(fact), fact.actor, now)
        case "escalation.close":
            ledger.close_escalation(_escalation(fact), fact.actor, now, data.get("reason", ""))
        case "candidate.built":
            queue.record_candidate(fact.subject, int(data["build_no"]), data)
        case "landing.concluded":
            _landing(fact, data, now)
        case "branch.seen":
            asked = dt.datetime.fromisoformat(data["asked_at"])
            ledger.branch_seen(int(fact.subject), data["sha"], asked)
        case "entry.verdict":
            _verdict(fact, data)
        case "entry.head_seen":
            queue.head_seen(_entry(fact).pk, data["head"])
        case "entry.reject":
            queue.request_reject(_entry(fact), data.get("reason", ""))
        case "entry.retry":
            queue.reopen(_entry(fact), now, fact.actor)
            ledger.settle_escalations([fact.subject], fact.actor, now, "retried")
        case "entry.promote":
            queue.promote(_entry(fact), int(data["priority"]))
        case "gates.again":
            queue.gates_again(_entry(fact), now)
        case "bead.cancel":
            ledger.request_cancel(_bead(fact), now)
            ledger.note(_bead(fact), "cancel_requested", fact.actor, data.get("reason", ""))
        case "bead.retry":
            _retry_bead(_bead(fact), now, fact.actor)
        case "convoy.start":
            _start_convoy(fact, now)
        case "convoy.close":
            ledger.request_close_convoy(_convoy(fact), now)
        case "convoy.retry":
            _retry_convoy(_convoy(fact), now, fact.actor)
        case "effect.failed":
            _effect_failed(fact, data, now)
        case "effect.struggling":
            ledger.escalate(
                fact.town,
                f"effect:{data['key']}",
                f"Outside work keeps failing: {data['kind']}",
                body=data["error"],
                severity="high",
                actor="gastown",
            )
        case _:
            raise Invalid(f"unknown kind of fact {fact.kind!r}", field="kind")


def _bead(fact: Fact) -> Bead:
    found = Bead.objects.filter(pk=fact.subject, town=fact.town).first()
    if found is None:
        raise NotFound(f"no bead {fact.subject}")
    return found


def _entry(fact: Fact) -> ReviewEntry:
    found = (
        ReviewEntry.objects.select_related("bead", "source", "rig")
        .filter(pk=fact.subject, bead__town=fact.town)
        .first()
    )
    if found is None:
        raise NotFound(f"no review entry {fact.subject}")
    return found


def _convoy(fact: Fact) -> Convoy:
    found = Convoy.objects.select_related("bead", "rig").filter(pk=fact.subject, bead__town=fact.town).first()
    if found is None:
        raise NotFound(f"no convoy {fact.subject}")
    return found


def _escalation(fact: Fact) -> Escalation:
    found = Escalation.objects.select_related("bead").filter(pk=fact.subject, town=fact.town).first()
    if found is None:
        raise NotFound(f"no escalation {fact.subject}")
    return found


def _run(fact: Fact) -> Run:
    found = Run.objects.select_related("bead", "agent", "town").filter(pk=fact.subject, town=fact.town).first()
    if found is None:
        raise NotFound(f"no run {fact.subject}")
    return found


def _run_exited(fact: Fact) -> None:
    run = _run(fact)
    if run.kind != RunKind.GATES:
        return
    candidate = Candidate.objects.filter(entry_id=run.bead_id, sha=run.start_sha).order_by("-id").first()
    if candidate is not None:
        gates.record(run, candidate)


def _run_result(fact: Fact, data: dict[str, Any]) -> None:
    """What an agent reported through its run's token: it can only ever reach that run's bead."""
    run = _run(fact)
    result = "done" if fact.kind == "run.done" else "request_changes"
    summary = str(data.get("summary") or data.get("feedback") or "")
    if not dispatch.set_result(run.pk, result, summary[:10000], fact.recorded_at):
        return
    if run.kind != RunKind.REFINERY or run.purpose != "review":
        return
    entry = ReviewEntry.objects.select_related("bead").get(pk=run.bead_id)
    candidate = Candidate.objects.filter(entry=entry, sha=run.start_sha).order_by("-id").first()
    if candidate is None:
        raise NotFound(f"no candidate {run.start_sha} of {entry.pk}")
    queue.record_verdict(
        entry,
        head=candidate.head_sha,
        decision="approve" if result == "done" else "request_changes",
        by=run.agent.name if run.agent else run.pk,
        run_id=run.pk,
        feedback=summary,
        items=data.get("items") or [],
    )


def _escalated(fact: Fact, data: dict[str, Any]) -> None:
    title = str(data["title"])
    mark = hashlib.sha256(title.encode()).hexdigest()[:12]
    run = Run.objects.select_related("bead").filter(pk=fact.subject, town=fact.town).first()
    ledger.escalate(
        fact.town,
        f"agent:{run.bead_id if run else fact.subject}:{mark}",
        title,
        body=str(data.get("body", "")),
        severity=str(data.get("severity", "medium")),
        about=run.bead if run else None,
        actor=fact.actor,
    )


def _verdict(fact: Fact, data: dict[str, Any]) -> None:
    """A person's verdict counts for the head they saw, whatever the head is now."""
    queue.record_verdict(
        _entry(fact),
        head=data["head"],
        decision=data["decision"],
        by=fact.actor,
        merge_now=bool(data.get("merge_now")),
        feedback=str(data.get("feedback", "")),
        items=data.get("items") or [],
    )


def _landing(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    landing = Landing.objects.filter(pk=int(fact.subject), rig__town=fact.town).first()
    if landing is None:
        raise NotFound(f"no landing {fact.subject}")
    queue.conclude(landing.pk, data["state"], data.get("message", ""), now)
    if data["state"] == "head_moved":
        queue.head_seen(landing.entry_id, data["head"])


def _retry_bead(bead: Bead, now: dt.datetime, actor: str) -> None:
    if bead.status != BeadStatus.FAILED:
        raise Conflict(f"{bead.pk} is {bead.status}: only a failed bead can be retried")
    ledger.move(bead, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)
    ledger.settle_escalations([bead.pk], actor, now, "retried")


def _start_convoy(fact: Fact, now: dt.datetime) -> None:
    convoy = _convoy(fact)
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    try:
        ledger.start_convoy(convoy, now, actor=fact.actor)
    except LostRace:
        return


def _retry_convoy(convoy: Convoy, now: dt.datetime, actor: str) -> None:
    """Retry a convoy's failed beads and, when it failed itself, its landing."""
    for bead in convoy.beads.filter(status=BeadStatus.FAILED):
        _retry_bead(bead, now, actor)
    if convoy.bead.status == BeadStatus.FAILED:
        ledger.move(convoy.bead, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)
        ledger.clear_close_request(convoy)
        ledger.settle_escalations([convoy.pk], actor, now, "retried")
        for branch in convoy.branches.all():
            ledger.forget_branch(branch)
        queue.forget_landings(convoy)


def _effect_failed(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    """An effect gave up: the subject it was for learns that, and why."""
    payload = data["payload"]
    match data["kind"]:
        case "build":
            failed = {"result": "error", "head": payload["head"], "error": data["error"]}
            queue.record_candidate(payload["entry"], int(payload["build_no"]), failed)
        case "land":
            queue.conclude(int(payload["landing"]), "refused", data["error"], now)
        case _:
            ledger.escalate(
                fact.town,
                f"effect:{data['key']}",
                f"Outside work failed: {data['kind']}",
                body=data["error"],
                severity="high",
                actor="gastown",
            )
