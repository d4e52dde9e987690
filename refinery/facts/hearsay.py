"""What people say beside a decision reaches who works on its subject: as mail that belongs to that work.

Must run inside the tick's transaction, under the town's lock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from agents import mail, roster, runs
from agents.models import Run
from agents.prompts import HINT
from beads.lifecycle import FINAL, BeadType, Purpose
from beads.models import Bead, Escalation
from refinery.models import ReviewEntry, Verdict
from refinery.store import verdicts

KINDS = {
    "rejected": "REJECTED",
    "retried": "RETRIED",
    "released": "RELEASED",
    "answered": "ANSWER",
    "noted": "NOTED",
    "hinted": HINT,
}
_OURS = "gastown"


def say(bead: Bead, actor: str, what: str, text: str) -> None:
    """Keep a person's words about what they did (`what`: see `KINDS`) for the next run of this work. None: no-op."""
    if text.strip() and actor != _OURS:
        subject = f"{what.capitalize()}: {bead.title}"[:300]
        worker = roster.MAYOR if bead.type == BeadType.MESSAGE else mail.WORKER
        mail.send(bead.town, actor, worker, mail.Letter(subject, text, kind=KINDS[what], about=bead), bead=bead)


def answer(escalation: Escalation, actor: str, text: str) -> None:
    """A person's words on an escalation go to the work that it is about."""
    if escalation.about is not None:
        say(escalation.about, actor, "answered", text)


def answer_question(question: Escalation, actor: str, text: str, now: dt.datetime) -> None:
    """A person's answer goes to whoever does the work now, with a nudge, or does it next."""
    work = question.about
    if work is None:
        return
    subject = f"Answered: {question.bead.title}"[:300]
    letter = mail.Letter(subject, text, kind=KINDS["answered"], about=question.bead)
    mail.send(question.town, actor, mail.WORKER, letter, bead=work)
    for run in Run.objects.select_related("agent").live().filter(bead=work, agent__isnull=False):
        mail.nudge(run, actor, f"your question {question.pk} is answered: gt_mail_check, or gt_ask again", now)


def tell_at_work(
    entry: ReviewEntry, actor: str, feedback: str, items: Sequence[Mapping[str, Any]], now: dt.datetime
) -> None:
    """A person asks for changes while an agent is changing it: its run has the words in its mail, and a nudge. Only
    where its prompt is still to be written are they given to it by that; else another round follows."""
    tasks = Bead.objects.filter(parent=entry.pk).exclude(purpose=Purpose.WORK).exclude(status__in=sorted(FINAL))
    for run in Run.objects.select_related("agent", "bead", "town").live().filter(bead__in=tasks, agent__isnull=False):
        lines = [feedback, *(f"- {i.get('file')}:{i.get('line')}: {i.get('problem')}" for i in items)]
        subject = f"Changes asked for: {entry.bead.title}"[:300]
        text = "\n".join(lines)
        mail.send(
            run.town, actor, mail.WORKER, mail.Letter(subject, text, kind=mail.ASKED, about=entry.bead), bead=run.bead
        )
        if runs.holds_prompt(run.pk):
            latest = Verdict.objects.filter(entry=entry, by=actor[:150], run=None).order_by("id").last()
            verdicts.pass_on([latest.pk] if latest else [], run.bead)
        else:
            mail.nudge(run, actor, "a person asks for changes to what you are working on: gt_mail_check", now)
