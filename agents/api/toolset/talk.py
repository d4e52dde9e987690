"""How a run talks to people and to other agents: escalations, questions, mail, nudges."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from agents import filing, mail
from agents.api.tools import ALL, Args, Call, tool
from agents.api.toolset import planner
from agents.api.toolset.shared import Short, sender
from agents.models import Agent, Mail, Run
from beads import inbox, ledger, questions
from beads.errors import Conflict, Invalid, NotFound


class EscalateArgs(Args):
    """gt_escalate"""

    title: Short
    body: Annotated[str, Field(max_length=filing.MAX_ESCALATION)] = ""
    severity: Literal["low", "medium", "high", "critical"] = "medium"


@tool("gt_escalate", ALL, EscalateArgs)
def escalate(call: Call, args: EscalateArgs) -> dict[str, Any]:
    """Call a person: say in at most 16 KiB what you need. A run may do so a few times ([limits]
    escalations_per_run)."""
    filing.escalate(call)
    inbox.record(call.run.town, "escalation.raised", call.run.pk, args.model_dump(), actor=sender(call))
    return {}


class AskArgs(Args):
    """gt_ask"""

    text: Annotated[str, Field(min_length=1, max_length=filing.MAX_ESCALATION)]


@tool("gt_ask", ALL, AskArgs)
def ask(call: Call, args: AskArgs) -> dict[str, Any]:
    """Ask a person. It answers at once, with `state` "open"; a person's `answer` comes later: into your mail, and as
    the answer to this same call, so ask again in the same words to hear whether it is there (`state` "answered").

    Go on meanwhile with what does not depend on it; where you cannot go on, commit and exit: you are started again with
    the answer, and no attempt is used up. "closed" means that nobody will answer. Questions count as escalations
    ([limits] escalations_per_run). The mayor asks once in a run, and exits.
    """
    run = call.run
    if planner.is_asked(run):
        return planner.ask(call, args.text)
    key = questions.key_of(run.bead, args.text)
    asked = questions.about(run.bead).filter(key=key).order_by("bead__created_at").last()
    if asked is None:
        if not args.text.strip():
            raise Invalid("text: there is no question in it", field="text")
        filing.ask(call)
        title = questions.title_of(args.text)
        problem = ledger.Problem(key, title, body=args.text, about=run.bead)
        made = ledger.escalate(run.town, problem, actor=sender(call))
        assert made is not None  # no other run asks about this bead meanwhile
        inbox.record(run.town, "question.asked", made.pk, {"run": run.pk}, actor=sender(call))
        return {"id": made.pk, "state": "open", "answer": "", "by": ""}
    told = questions.standing(asked)
    mail.note_told(Mail.objects.filter(about=told.id), run)
    return dataclasses.asdict(told)


# -- mail -----------------------------------------------------------------------------------------------------------


class MailArgs(Args):
    """gt_mail_send"""

    to: Annotated[str, Field(min_length=1, max_length=100)]
    subject: Short
    body: Annotated[str, Field(max_length=filing.MAX_MAIL)] = ""
    kind: Annotated[str, Field(min_length=1, max_length=40)] = "NOTE"


@tool("gt_mail_send", ALL, MailArgs)
def mail_send(call: Call, args: MailArgs) -> dict[str, Any]:
    """Send mail (at most 64 KiB) to an agent by name, to `mayor`, or to `overseer` (the people).

    It belongs to work: yours, where the agent has a part in it, else what that agent is at; it is told once.
    Mails and nudges of a run are counted together ([limits] mail_per_run).
    """
    filing.write(call)
    kin = call.run.brief.get("beads") or ()
    letter = mail.Letter(args.subject, args.body, kind=args.kind, about=call.run.bead)
    sent = mail.send(call.run.town, sender(call), args.to, letter, kin=kin)
    return {"id": sent.pk}


class MailCheckArgs(Args):
    """gt_mail_check"""

    limit: Annotated[int, Field(ge=1, le=100)] = 20


@tool("gt_mail_check", ALL, MailCheckArgs)
def mail_check(call: Call, args: MailCheckArgs) -> dict[str, Any]:
    """Your unread mail, oldest first; it counts as read afterwards. `left` is unread still: call again to see it."""
    letters = mail.for_run(call.run, args.limit)
    data = {"mail": [mail.data(m) for m in letters]}
    mail.mark_read(letters, call.now)
    return {**data, "left": mail.count_for(call.run)}


class NudgeArgs(Args):
    """gt_nudge"""

    to: Annotated[str, Field(min_length=1, max_length=100)]
    message: Annotated[str, Field(min_length=1, max_length=1000)]


@tool("gt_nudge", ALL, NudgeArgs)
def nudge(call: Call, args: NudgeArgs) -> dict[str, Any]:
    """Leave a short-lived hint for an agent, shown at its next heartbeat or tool call. Counts as a mail."""
    filing.write(call)
    if not Agent.objects.filter(town=call.run.town, name=args.to, retired_at=None).exists():
        raise NotFound(f"no agent {args.to!r} in this town", details={"field": "to"})
    live = Run.objects.select_related("agent").live().filter(town=call.run.town, agent__name=args.to)
    for run in live:
        mail.nudge(run, sender(call), args.message, call.now)
    if not live:
        raise Conflict(f"{args.to} is not at work: send mail", details={"field": "to"})
    return {}
