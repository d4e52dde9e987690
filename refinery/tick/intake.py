"""One fact → observed columns, by calling the right single writer. No decision is taken here.

The exceptions are a person's own decisions (retry, start), which the fact itself states: they are carried out
through the ledger, under the tick's lock. An unknown kind or a bad payload (see `refinery.tick.facts`) raises before
anything is written, and ends in quarantine.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from agents import mail, runs
from agents.lifecycle import RunKind, RunOutcome, RunResult, RunState
from agents.models import Run
from beads import ledger
from beads.errors import Conflict, Invalid, LostRace, NotFound
from beads.lifecycle import BeadStatus, Resolution, is_final
from beads.models import Bead, Convoy, ConvoyBranch, Escalation, Fact, Rig
from beads.prepared import Prepared
from refinery.core.states import Judgement
from refinery.models import Candidate, Forecast, Landing, ReviewEntry
from refinery.store import emergencies, entries, forecasts, gates, landings, notices
from refinery.tick import facts, hearsay

_BEAD = Prepared(lambda pk, town: Bead.objects.filter(pk=pk, town=town))
_ENTRY = Prepared(
    lambda pk, town: ReviewEntry.objects.select_related("bead", "source", "rig").filter(pk=pk, bead__town=town)
)
_RUN = Prepared(lambda pk, town: Run.objects.select_related("bead", "agent", "town").filter(pk=pk, town=town))
_CANDIDATE = Prepared(
    lambda entry, sha: (
        Candidate.objects.select_related("entry__bead").filter(entry_id=entry, sha=sha).order_by("-id")[:1]
    )
)


def take(fact: Fact, now: dt.datetime) -> None:
    """Apply one fact. Raises on anything that it cannot make sense of."""
    data = facts.check(fact.kind, fact.payload)
    match fact.kind:
        case "run.exited":
            _run_exited(fact)
        case (
            "run.start_failed"
            | "config.set"
            | "secret.set"
            | "secret.remove"
            | "rig.host_key"
            | "rig.default_branch"
            | "fact.release"
            | "effect.again"
        ):
            pass  # done at the door; the fact is the wake-up and the history
        case "town.pause" | "town.resume" | "rig.park" | "rig.unpark" | "lane.freeze" | "lane.thaw":
            pass  # likewise
        case "run.done" | "run.request_changes":
            _run_result(fact, data)
        case "run.published":
            runs.set_published(_run(fact).pk)
        case "run.stop":
            run = _run(fact)
            runs.request_stop(run.pk, data["reason"] or "stopped by a person", now)
            ledger.note(run.bead, "run_stop_requested", fact.actor, data["reason"], run=run.pk)
        case "run.fence":
            _fence_run(_run(fact), now, fact.actor, data["reason"])
        case "escalation.raised":
            _escalated(fact, data)
        case "limit.reached":
            _limit_reached(fact, data)
        case "escalation.ack":
            ledger.acknowledge(_escalation(fact), fact.actor, now, data["reason"])
            hearsay.answer(_escalation(fact), fact.actor, data["reason"])
        case "escalation.close":
            ledger.close_escalation(_escalation(fact), fact.actor, now, data["reason"])
            hearsay.answer(_escalation(fact), fact.actor, data["reason"])
        case "candidate.built":
            _built(fact, data)
        case "lane.foreseen":
            forecasts.answered(_forecast(fact), data)
        case "landing.concluded":
            _landing(fact, data, now)
        case "branch.seen":
            ledger.branch_seen(_branch(fact).pk, data["sha"], data["asked_at"])
        case "entry.verdict":
            _verdict(fact, data, now)
        case "entry.head_seen":
            entries.head_seen(_entry(fact).pk, data["head"])
        case "entry.reject":
            entries.request_reject(_entry(fact), data["reason"])
            hearsay.say(_entry(fact).bead, fact.actor, "rejected", data["reason"])
        case "entry.retry":
            entries.reopen(_entry(fact), now, fact.actor)
            ledger.settle_escalations([fact.subject], fact.actor, now, "retried")
            ledger.note(_entry(fact).bead, "retried", fact.actor, data["reason"])
            hearsay.say(_entry(fact).bead, fact.actor, "retried", data["reason"])
        case "entry.note":
            ledger.note(_entry(fact).bead, "noted", fact.actor, data["reason"])
            hearsay.say(_entry(fact).bead, fact.actor, "noted", data["reason"])
        case "entry.requeue":
            entries.requeue(_entry(fact), now)
            ledger.note(_entry(fact).bead, "requeued", fact.actor, data["reason"])
        case "entry.promote":
            entries.promote(_entry(fact), data["priority"])
            told = {"priority": data["priority"]}
            ledger.note(_entry(fact).bead, "promoted", fact.actor, data["reason"], **told)
        case "entry.land_now":
            if not data["carried_out"]:  # recorded before it was carried out at the door
                told = {"head": data["head"], "skip_gates": data["skip_gates"]}
                emergencies.carry_out(_entry(fact), fact.actor, data["reason"], now, **told)
        case "gates.again":
            entries.gates_again(_entry(fact), now)
        case "bead.cancel":
            ledger.request_cancel(_bead(fact), now)
            ledger.note(_bead(fact), "cancel_requested", fact.actor, data["reason"])
        case "bead.retry":
            _retry_bead(_bead(fact), now, fact.actor, data["reason"])
        case "bead.confirm":
            _confirm_bead(_bead(fact), now, fact.actor, data["reason"])
        case "bead.filed":
            _filed(fact, data, now)
        case "bead.release":
            ledger.release(_bead(fact), now, actor=fact.actor, reason=data["reason"])
            hearsay.say(_bead(fact), fact.actor, "released", data["reason"])
        case "bead.block" | "bead.unblock":
            _depend(fact, data)
        case "convoy.start":
            _start_convoy(fact, now)
        case "convoy.close":
            ledger.request_close_convoy(_convoy(fact), now)
            ledger.note(_convoy(fact).bead, "close_requested", fact.actor, data["reason"])
        case "convoy.retry":
            _retry_convoy(_convoy(fact), now, fact.actor, data["reason"])
        case "effect.failed":
            _effect_failed(fact, data, now)
        case "effect.struggling":
            ledger.escalate(
                fact.town,
                ledger.Problem(
                    f"effect:{data['key']}",
                    f"Outside work keeps failing: {data['kind']}",
                    body=data["error"],
                    severity="high",
                    about=Bead.objects.filter(pk=str(data["payload"].get("entry", "")), town=fact.town).first(),
                ),
                actor="gastown",
            )
        case "effect.recovered":
            ledger.settle_key(fact.town, f"effect:{data['key']}", "gastown", now, "it has succeeded")
        case _:
            raise AssertionError(f"{fact.kind} is a known kind that nobody takes")


def _built(fact: Fact, data: dict[str, Any]) -> None:
    entry = _entry(fact)
    entries.record_candidate(entry.pk, data["build_no"], data)
    if data["base"] and data["on"] is None:
        _target_seen(entry.rig, entry.target, data["base"])


def _target_seen(rig: Rig, target: str, sha: str) -> None:
    """Where a lane's target is."""
    forecasts.seen(rig, target, sha)
    entries.target_seen(rig, target, sha)


def _forecast(fact: Fact) -> Forecast:
    found = Forecast.objects.filter(pk=_number(fact), rig__town=fact.town).first()
    if found is None:
        raise NotFound(f"no forecast {fact.subject}")
    return found


def _bead(fact: Fact) -> Bead:
    found = _BEAD(fact.subject, fact.town_id)
    if not found:
        raise NotFound(f"no bead {fact.subject}")
    return found[0]


def _entry(fact: Fact) -> ReviewEntry:
    found = _ENTRY(fact.subject, fact.town_id)
    if not found:
        raise NotFound(f"no review entry {fact.subject}")
    return found[0]


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


def _branch(fact: Fact) -> ConvoyBranch:
    found = ConvoyBranch.objects.filter(pk=_number(fact), rig__town=fact.town).first()
    if found is None:
        raise NotFound(f"no convoy branch {fact.subject}")
    return found


def _number(fact: Fact) -> int:
    if not (fact.subject.isascii() and fact.subject.isdigit() and len(fact.subject) < 19):
        raise Invalid(f"{fact.kind}: subject {fact.subject[:60]!r} is no number", field="subject")
    return int(fact.subject)


def _run(fact: Fact) -> Run:
    found = _RUN(fact.subject, fact.town_id)
    if not found:
        raise NotFound(f"no run {fact.subject}")
    return found[0]


def _candidate(run: Run) -> Candidate | None:
    """What a run of an entry was to gate or review."""
    return next(iter(_CANDIDATE(run.bead_id, run.start_sha)), None)


def _run_exited(fact: Fact) -> None:
    run = _run(fact)
    if run.kind != RunKind.GATES:
        return
    if candidate := _candidate(run):
        gates.record(run, candidate)


def _run_result(fact: Fact, data: dict[str, Any]) -> None:
    """What an agent reported through its run's token: it can only ever reach that run's bead."""
    run = _run(fact)
    result = "done" if fact.kind == "run.done" else "request_changes"
    summary = data["summary"] or data["feedback"]
    if not runs.set_result(run.pk, result, summary[:10000], fact.recorded_at):
        return
    mail.took_in(run, fact.recorded_at)
    if run.kind != RunKind.REFINERY or run.purpose != "review":
        return
    entry = ReviewEntry.objects.select_related("bead").get(pk=run.bead_id)
    candidate = _candidate(run)
    if candidate is None:
        raise NotFound(f"no candidate {run.start_sha} of {entry.pk}")
    entries.record_verdict(
        entry,
        head=candidate.head_sha,
        decision=Judgement.APPROVE if result == RunResult.DONE else "request_changes",
        by=run.agent.name if run.agent else run.pk,
        run_id=run.pk,
        feedback=summary,
        items=data["items"],
    )


def _escalated(fact: Fact, data: dict[str, Any]) -> None:
    mark = hashlib.sha256(data["title"].encode()).hexdigest()[:12]
    run = next(iter(_RUN(fact.subject, fact.town_id)), None)
    ledger.escalate(
        fact.town,
        ledger.Problem(
            f"agent:{run.bead_id if run else fact.subject}:{mark}",
            data["title"],
            body=data["body"],
            severity=data["severity"],
            about=run.bead if run else None,
        ),
        actor=fact.actor,
    )


def _filed(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    """People who asked to hear what needs them hear once of what a run files."""
    bead = _bead(fact)
    body = f"{fact.actor} filed it in run {data['run']}. No agent works on what it files until you say so."
    notices.tell(fact.town, "needs_you", bead, f"Filed by an agent: {bead.title}", body, f"filed:{data['run']}", now)


def _limit_reached(fact: Fact, data: dict[str, Any]) -> None:
    """An agent wanted more than it may: said once for each run and limit."""
    run = _run(fact)
    who = run.agent.name if run.agent else run.kind
    body = f"{who} in run {run.pk}: {data['message']}.\n\nLook at what it does; to allow more, set {data['limit']}."
    title = f"A run reached {data['limit']}: {run.bead.title}"
    key = f"limit:{run.pk}:{data['limit']}"
    ledger.escalate(fact.town, ledger.Problem(key, title, body=body, severity="low", about=run.bead), actor="gastown")


def _verdict(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    """A person's verdict counts for the head they saw, whatever the head is now; who is changing it hears of it."""
    entry = _entry(fact)
    entries.record_verdict(
        entry,
        head=data["head"],
        decision=data["decision"],
        by=fact.actor,
        merge_now=data["merge_now"],
        feedback=data["feedback"],
        items=data["items"],
    )
    if data["decision"] == "request_changes":
        hearsay.tell_at_work(entry, fact.actor, data["feedback"], data["items"], now)


def _landing(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    landing = Landing.objects.filter(pk=_number(fact), rig__town=fact.town).first()
    if landing is None:
        raise NotFound(f"no landing {fact.subject}")
    for car in landings.cars_of(landing):
        told = data["cars"].get(str(car.pk), data)
        landings.conclude(car.pk, told["state"], told["message"], now)
        if told["state"] == "head_moved":
            entries.head_seen(car.entry_id, told["head"])
        elif told["state"] == "landed":
            _target_seen(car.rig, car.target, car.candidate.sha)


def _fence_run(run: Run, now: dt.datetime, actor: str, reason: str) -> None:
    """A person's decision: the run's token dies now. No-op when it has ended by itself meanwhile."""
    if run.state == RunState.ENDED:
        return
    runs.end(run.pk, run.state, RunOutcome.LOST, f"fenced by {actor}: {reason}", now)
    runs.poke(run.pk)
    ledger.note(run.bead, "run_fenced", actor, reason, run=run.pk)


def _retried(reason: str) -> str:
    return f"retried: {reason}" if reason else "retried"


def _retry_bead(bead: Bead, now: dt.datetime, actor: str, reason: str = "") -> None:
    if bead.status != BeadStatus.FAILED:
        raise Conflict(f"{bead.pk} is {bead.status}: only a failed bead can be retried")
    if bead.convoy is not None and bead.convoy.bead.status == BeadStatus.CLOSED:
        raise Conflict(f"its convoy {bead.convoy_id} is closed")
    ledger.move(
        bead, BeadStatus.FAILED, ledger.Transition(BeadStatus.OPEN, reason=_retried(reason)), actor=actor, now=now
    )
    ledger.settle_escalations([bead.pk], actor, now, "retried")
    hearsay.say(bead, actor, "retried", reason)


def _confirm_bead(bead: Bead, now: dt.datetime, actor: str, reason: str) -> None:
    """A person says that nothing was needed. Conflict when the bead has gone on meanwhile."""
    if bead.resolution != Resolution.NOTHING_CHANGED or bead.status != BeadStatus.FAILED:
        raise Conflict(f"{bead.pk} is {bead.status} {bead.resolution}")
    why = f"nothing was needed: {reason}" if reason else "nothing was needed"
    end = Resolution.NOTHING_CHANGED
    ledger.move(
        bead, BeadStatus.FAILED, ledger.Transition(BeadStatus.CLOSED, reason=why, resolution=end), actor=actor, now=now
    )
    ledger.settle_escalations([bead.pk], actor, now, "confirmed")


def _depend(fact: Fact, data: dict[str, Any]) -> None:
    bead, on = _bead(fact), Bead.objects.filter(pk=data["on"], town=fact.town).first()
    if on is None:
        raise NotFound(f"no bead {data['on']}")
    if fact.kind == "bead.unblock":
        ledger.unblock(bead, on, fact.actor, data["reason"])
    elif is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    else:
        try:
            ledger.block(bead, [on], fact.actor)
        except Invalid as error:  # two wishes at once that make a circle: the later one is refused
            raise Conflict(error.message) from error


def _start_convoy(fact: Fact, now: dt.datetime) -> None:
    convoy = _convoy(fact)
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    try:
        ledger.start_convoy(convoy, now, actor=fact.actor)
    except LostRace:
        return
    if fact.payload.get("reason"):
        ledger.note(convoy.bead, "started", fact.actor, fact.payload["reason"])


def _retry_convoy(convoy: Convoy, now: dt.datetime, actor: str, reason: str) -> None:
    """Retry a convoy's failed beads and, when it failed itself, its landing."""
    for bead in convoy.beads.filter(status=BeadStatus.FAILED):
        _retry_bead(bead, now, actor, reason)
    if convoy.bead.status == BeadStatus.FAILED:
        ledger.move(
            convoy.bead,
            BeadStatus.FAILED,
            ledger.Transition(BeadStatus.OPEN, reason=_retried(reason)),
            actor=actor,
            now=now,
        )
        ledger.clear_close_request(convoy)
        ledger.settle_escalations([convoy.pk], actor, now, "retried")
        for branch in convoy.branches.all():
            ledger.forget_branch(branch)
        entries.forget_landings(convoy)


def _effect_failed(fact: Fact, data: dict[str, Any], now: dt.datetime) -> None:
    """An effect gave up: the subject it was for learns that, and why."""
    payload = data["payload"]
    match data["kind"]:
        case "build":
            failed = {"result": "error", "head": payload["head"], "error": data["error"]}
            entries.record_candidate(payload["entry"], int(payload["build_no"]), failed)
        case "land":
            landings.conclude(int(payload["landing"]), "refused", data["error"], now)
        case "publish":
            runs.note_refused(payload["run"], f"the remote refused its branch: {data['error']}")
        case _:
            ledger.escalate(
                fact.town,
                ledger.Problem(
                    f"effect:{data['kind']}:{fact.town.slug}",
                    f"Outside work failed: {data['kind']}",
                    body=data["error"],
                    severity="high",
                ),
                actor="gastown",
            )
