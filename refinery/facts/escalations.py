"""Escalations: raised by agents, answered and closed by people."""

from __future__ import annotations

import hashlib

from beads import ledger
from refinery.facts import hearsay, subjects
from refinery.facts.payloads import Escalated, LimitTold, ModelRefused, Reason
from refinery.facts.registry import Taken, fact


@fact("escalation.raised", says=Escalated, replayable=True)
def raised(it: Taken[Escalated]) -> None:
    """An agent needs a person; the same title of the same work is one escalation."""
    mark = hashlib.sha256(it.said.title.encode()).hexdigest()[:12]
    run = subjects.run_or_none(it)
    ledger.escalate(
        it.town,
        ledger.Problem(
            f"agent:{run.bead_id if run else it.subject}:{mark}",
            it.said.title,
            body=it.said.body,
            severity=it.said.severity,
            about=run.bead if run else None,
        ),
        actor=it.actor,
    )


@fact("limit.reached", says=LimitTold)
def limit_reached(it: Taken[LimitTold]) -> None:
    """An agent wanted more than it may: said once for each run and limit."""
    run = subjects.run(it)
    who = run.agent.name if run.agent else run.kind
    body = f"{who} in run {run.pk}: {it.said.message}.\n\nLook at what it does; to allow more, set {it.said.limit}."
    title = f"A run reached {it.said.limit}: {run.bead.title}"
    key = f"limit:{run.pk}:{it.said.limit}"
    ledger.escalate(it.town, ledger.Problem(key, title, body=body, severity="low", about=run.bead), actor="gastown")


@fact("model.refused", says=ModelRefused)
def model_refused(it: Taken[ModelRefused]) -> None:
    """A run's calls to a model cannot go well until a person mends something: one need for each rig and fault."""
    run, said = subjects.run(it), it.said
    what = {"key": "key", "model": f"model {said.model}", "credit": "credit", "place": "address"}.get(
        said.fault, "calls"
    )
    title = f"Rig {run.rig.slug}: the {what} for {said.api} does not work"[:300]
    body = f"{said.message}\n\nRun {run.pk} was told so. When it is mended: gastown bead retry {run.bead_id}"
    key = f"model:{run.rig_id}:{said.api}:{said.fault}:{said.model if said.fault == 'model' else ''}"[:200]
    problem = ledger.Problem(key, title, body=body, severity="high", about=run.bead)
    ledger.escalate(it.town, problem, actor="gastown")
    ledger.note(run.bead, "model_refused", "gastown", said.message, run=run.pk)


@fact("escalation.ack", says=Reason)
def acknowledged(it: Taken[Reason]) -> None:
    """A person has seen it; their words go to the work that it is about."""
    escalation = subjects.escalation(it)
    ledger.acknowledge(escalation, it.actor, it.now, it.said.reason)
    hearsay.answer(escalation, it.actor, it.said.reason)


@fact("escalation.close", says=Reason)
def closed(it: Taken[Reason]) -> None:
    """A person has dealt with it; their words go to the work that it is about."""
    escalation = subjects.escalation(it)
    ledger.close_escalation(escalation, it.actor, it.now, it.said.reason)
    hearsay.answer(escalation, it.actor, it.said.reason)
