"""Escalations: raised by agents, answered and closed by people."""

from __future__ import annotations

import hashlib
from typing import Any

from beads import ledger, questions
from beads.models import Escalation
from refinery.facts import hearsay, subjects
from refinery.facts.payloads import Answered, Asked, Escalated, LimitTold, ModelRefused, Reason
from refinery.facts.registry import Taken, fact
from refinery.store import notices


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
    who = run.agent_name or run.kind
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
    if questions.is_question(escalation) and it.said.reason.strip():
        _answer(it, escalation, it.said.reason)
        return
    ledger.close_escalation(escalation, it.actor, it.now, it.said.reason)
    hearsay.answer(escalation, it.actor, it.said.reason)


@fact("question.asked", says=Asked)
def asked(it: Taken[Asked]) -> None:
    """People who asked to hear what needs them hear of an agent's question."""
    question = subjects.escalation(it)
    title = f"{it.actor} asks: {question.bead.title}"
    notice = notices.Notice("needs_you", question.bead, title, question.bead.body, question.pk)
    notices.tell(it.town, notice, it.now)


@fact("question.answered", says=Answered)
def answered(it: Taken[Answered]) -> None:
    """A person has answered an agent's question."""
    _answer(it, subjects.escalation(it), it.said.text)


def _answer(it: Taken[Any], question: Escalation, text: str) -> None:
    ledger.answer_question(question, it.actor, it.now, text)
    hearsay.answer_question(question, it.actor, text, it.now)
