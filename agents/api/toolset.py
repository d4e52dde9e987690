"""The tools that every agent has, and the mayor's. The refinery adds its own in `refinery.agent_tools`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from agents import filing, guides, mail, runs, work
from agents.api.tools import ALL, Args, Call, tool
from agents.lifecycle import Role
from agents.models import Agent, Run
from agents.runtime import gitcmd
from beads import config as configs
from beads import inbox, ledger, plans
from beads.errors import Conflict, Invalid, NotFound
from beads.lifecycle import BeadStatus, BeadType
from beads.models import Bead, Convoy, Rig

Text = Annotated[str, Field(max_length=256 * 1024)]
Short = Annotated[str, Field(min_length=1, max_length=300)]
MAYOR = frozenset({Role.MAYOR})
REFINERY = frozenset({Role.REFINERY})
MAX_CHECKPOINT = 64 * 1024

BRIEFED = (  # of its brief, what `gt_prime` tells as it is
    *("gates", "gate_results", "rework", "asked", "conflict", "candidate", "convoy", "checkpoint", "previous"),
    *("rounds", "attempts", "start", "instructions", "request"),
)
prime_extras: list[Callable[[Run], dict[str, Any]]] = []
convoy_extras: list[Callable[[Convoy], dict[str, Any]]] = []


def bead_data(bead: Bead) -> dict[str, Any]:
    """A bead as tools show it."""
    return {
        "id": bead.pk,
        "type": bead.type,
        "status": bead.status,
        "resolution": bead.resolution,
        "reason": bead.reason,
        "title": bead.title,
        "body": bead.body,
        "priority": bead.priority,
        "rig": bead.rig.slug if bead.rig else None,
        "convoy": bead.convoy_id,
        "staged": bead.unreleased,
        "filed_by": bead.filed_by,
        "depth": bead.depth,
        "merge_sha": bead.merge_sha,
        "blocked_by": list(bead.blocked_by.values_list("on_id", flat=True)),
        "created_at": bead.created_at.isoformat(),
    }


def _bead(call: Call, bead_id: str) -> Bead:
    found = Bead.objects.select_related("rig").filter(pk=bead_id, town=call.run.town).first()
    if found is None:
        raise NotFound(f"no bead {bead_id!r} in this town", details={"field": "bead"})
    return found


def _rig(call: Call, slug: str | None) -> Rig:
    if slug is None:
        return call.run.rig
    found = Rig.objects.filter(slug=slug, town=call.run.town).first()
    if found is None:
        raise NotFound(f"no rig {slug!r} in this town", details={"field": "rig"})
    return found


def _sender(call: Call) -> str:
    return call.run.agent.name if call.run.agent else call.run.pk


# -- orientation ----------------------------------------------------------------------------------------------------


@tool("gt_prime", ALL)
def prime(call: Call, args: Args) -> dict[str, Any]:
    """Who you are and what you are to do: agent, run, bead, branch, target, gates, mail, rework or conflict."""
    run = call.run
    letters = mail.for_run(run)
    mail.note_told(letters, run)
    data: dict[str, Any] = {
        "agent": {"name": _sender(call), "role": run.kind},
        "run": run.pk,
        "attempt": run.brief.get("attempt", run.attempt),
        "bead": bead_data(run.bead),
        "branch": run.branch,
        "target": run.target,
        "purpose": run.purpose,
        "mail": [mail.data(m) for m in letters],
        "mail_left": mail.count_for(run) - len(letters),
    }
    for key in BRIEFED:
        data[key] = run.brief.get(key)
    data["guides"] = guides.seen(run)
    data["task"] = {"title": run.brief.get("title"), "body": run.brief.get("body")}
    for extra in prime_extras:
        data |= extra(run)
    return data


class StatusArgs(Args):
    """gt_status"""

    message: Annotated[str, Field(max_length=280)]


@tool("gt_status", ALL, StatusArgs)
def status(call: Call, args: StatusArgs) -> dict[str, Any]:
    """Show one line about what you are doing on the pages (at most 280 characters)."""
    runs.set_status(call.run, args.message)
    return {}


class CheckpointArgs(Args):
    """gt_checkpoint"""

    data: Any


@tool("gt_checkpoint", ALL, CheckpointArgs)
def checkpoint(call: Call, args: CheckpointArgs) -> dict[str, Any]:
    """Keep notes (JSON, at most 64 KiB) that the next attempt is given."""
    size = len(json.dumps(args.data).encode())
    if size > MAX_CHECKPOINT:
        raise Invalid(f"data: {size} bytes, at most {MAX_CHECKPOINT}", field="data")
    runs.set_checkpoint(call.run, args.data)
    return {"bytes": size}


# -- results --------------------------------------------------------------------------------------------------------


class DoneArgs(Args):
    """gt_done"""

    summary: Text = ""
    branch: Annotated[str, Field(max_length=250)] = ""
    pr_url: Annotated[str, Field(max_length=1000)] = ""


def _result(call: Call, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Record the run's result, once. It can only ever reach the bead that this run was started for."""
    run = call.run
    key = f"result:{run.pk}"
    if not inbox.record(run.town, kind, run.pk, payload, actor=_sender(call), dedupe_key=key):
        if inbox.kind_of(key) != kind:
            raise Conflict("this run has reported another result before")
        return {"repeat": True}
    runs.poke(run.pk)
    return {"repeat": False}


@tool("gt_done", ALL, DoneArgs)
def done(call: Call, args: DoneArgs) -> dict[str, Any]:
    """Your work is finished (polecat), you approve this candidate (refinery), your plan is staged (mayor). Then exit.
    Repeats are no-ops.

    `branch`: where your commits are, when it is not the branch that you were given. `{"result": "nothing_changed"}`
    says that there is no commit of yours yet: what you have changed must be committed before you exit.
    """
    if args.pr_url:
        raise Invalid(
            "pr_url: no pull request can be verified here (pr.provider is builtin): leave it out", field="pr_url"
        )
    told: dict[str, Any] = {}
    if call.run.kind == Role.POLECAT:
        told = _seen(call.run, args.branch)
    return _result(call, "run.done", args.model_dump()) | told


def _seen(run: Run, named: str) -> dict[str, Any]:
    """What the workspace shows of the work, for the agent: what counts is what arrives when the run has ended."""
    seen = work.look(run)
    if named:
        gitcmd.check_branch(named)
        if seen is not None and named not in seen.branches:
            raise Invalid(f"branch: there is no branch {named} in your workspace", field="branch")
    if seen is None:
        return {}
    head = seen.branches[named] if named else seen.head
    others = [name for name, sha in seen.branches.items() if sha not in (run.start_sha, head)]
    if head in ("", run.start_sha) and not (others and not named):
        return {"result": "nothing_changed", "hint": "no commit of yours is there: commit what you changed, then exit"}
    return {"result": "done"}


class Item(Args):
    """One thing to change."""

    file: Annotated[str, Field(max_length=1000)]
    line: Annotated[int, Field(ge=1)] | None = None
    problem: Annotated[str, Field(max_length=4000)]
    suggestion: Annotated[str, Field(max_length=4000)] | None = None


class ChangesArgs(Args):
    """gt_request_changes"""

    feedback: Annotated[str, Field(min_length=1, max_length=64 * 1024)]
    items: Annotated[list[Item], Field(max_length=200)] = []


@tool("gt_request_changes", REFINERY, ChangesArgs)
def request_changes(call: Call, args: ChangesArgs) -> dict[str, Any]:
    """Send the change back to its author: what is wrong, with file, line and what to do."""
    return _result(call, "run.request_changes", args.model_dump())


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
    inbox.record(call.run.town, "escalation.raised", call.run.pk, args.model_dump(), actor=_sender(call))
    return {}


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
    sent = mail.send(
        call.run.town,
        _sender(call),
        args.to,
        mail.Letter(args.subject, args.body, kind=args.kind, about=call.run.bead),
        kin=kin,
    )
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
        mail.nudge(run, _sender(call), args.message, call.now)
    if not live:
        raise Conflict(f"{args.to} is not at work: send mail", details={"field": "to"})
    return {}


# -- beads ----------------------------------------------------------------------------------------------------------


class BeadArgs(Args):
    """gt_bead_show"""

    bead: Annotated[str, Field(max_length=40)]


@tool("gt_bead_show", ALL, BeadArgs)
def bead_show(call: Call, args: BeadArgs) -> dict[str, Any]:
    """One bead of your town."""
    return {"bead": bead_data(_bead(call, args.bead))}


class BeadListArgs(Args):
    """gt_bead_list"""

    status: Literal["open", "in_progress", "in_review", "closed", "failed"] | None = None
    type: Literal["issue", "merge_request", "convoy", "message", "escalation"] | None = None
    rig: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    skip: Annotated[int, Field(ge=0, le=1_000_000)] = 0


@tool("gt_bead_list", ALL, BeadListArgs)
def bead_list(call: Call, args: BeadListArgs) -> dict[str, Any]:
    """Beads of your town, newest first. `total` says how many there are; `skip` so many to see the rest."""
    found = Bead.objects.select_related("rig").filter(town=call.run.town).order_by("-created_at")
    if args.status:
        found = found.filter(status=args.status)
    if args.type:
        found = found.filter(type=args.type)
    if args.rig:
        found = found.filter(rig=_rig(call, args.rig))
    page = found.prefetch_related("blocked_by")[args.skip : args.skip + args.limit]
    return {"beads": [bead_data(b) for b in page], "total": found.count()}


class BeadCreateArgs(Args):
    """gt_bead_create and gt_sling"""

    title: Short
    body: Text = ""
    rig: Annotated[str, Field(max_length=50)] | None = None
    priority: Annotated[int, Field(ge=0, le=4)] = 2
    after: Annotated[list[str], Field(max_length=50)] = []


@tool("gt_bead_create", ALL, BeadCreateArgs)
def bead_create(call: Call, args: BeadCreateArgs) -> dict[str, Any]:
    """File a new issue bead. It waits until a person releases it, unless the config says otherwise: see `staged`.

    How many a run and a town's day may file, and how deep (a bead filed in work on a filed bead …), is limited
    ([limits]); above that the answer is `limit_reached`, and nothing is made.
    """
    rig = _rig(call, args.rig)
    after = [_bead(call, key) for key in args.after]
    filed = filing.file(call, [rig], 1)
    made = ledger.create_bead(
        call.run.town,
        rig,
        ledger.Draft(args.title, body=args.body, priority=args.priority),
        actor=_sender(call),
        after=after,
        filed=filed,
    )
    _tell_filed(call, made, filed)
    return {"id": made.pk, "staged": filed.waits, "why": filing.WAITS if filed.waits else filing.GOES}


def _tell_filed(call: Call, made: Bead, filed: ledger.Filed) -> None:
    """Wake the town; what waits for a person is a fact, so that people hear of it."""
    if filed.waits:
        inbox.record(call.run.town, "bead.filed", made.pk, {"run": filed.run}, actor=_sender(call))
    else:
        inbox.wake(call.run.town)


@tool("gt_sling", MAYOR, BeadCreateArgs)
def sling(call: Call, args: BeadCreateArgs) -> dict[str, Any]:
    """Sling one issue bead to a rig; as `gt_bead_create`."""
    return bead_create(call, args)


# -- convoys --------------------------------------------------------------------------------------------------------


class ConvoyCreateArgs(Args):
    """gt_convoy_create"""

    rig: Annotated[str, Field(max_length=50)] | None = None
    title: Short
    beads: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=200)]
    merge_mode: Literal["review-then-land", "review-and-merge"] | None = None
    staged: bool | None = None


class ConvoyArgs(Args):
    """gt_convoy_start and gt_convoy_status"""

    convoy: Annotated[str, Field(max_length=40)]


def _convoy(call: Call, key: str) -> Convoy:
    found = Convoy.objects.select_related("bead", "rig").filter(pk=key, bead__town=call.run.town).first()
    if found is None:
        raise NotFound(f"no convoy {key!r} in this town", details={"field": "convoy"})
    return found


@tool("gt_convoy_create", MAYOR, ConvoyCreateArgs)
def convoy_create(call: Call, args: ConvoyCreateArgs) -> dict[str, Any]:
    """Make a convoy from a plan: beads with key, title, body, priority, after, files, estimate.

    Its beads count as filed by your run ([limits]). It is staged until a person starts it, whatever `staged` says,
    unless the config lets agents' beads go ([limits] filed_beads = "dispatch"). `conflicts` names pairs of beads
    without an order between them that change the same files.
    """
    rig = _rig(call, args.rig)
    config = configs.effective(rig.town.config, rig.config).convoy
    plan = plans.parse(args.beads, "beads", rig, lambda slug: _rig(call, slug))
    filed = filing.file(call, [rig, *(item["rig"] for item in plan)], len(plan))
    mode = args.merge_mode or config.merge_mode
    made = ledger.create_convoy(rig, args.title, mode, plan, actor=_sender(call), filed=filed)
    _tell_filed(call, made.bead, filed)
    staged = filed.waits or (config.staged if args.staged is None else args.staged)
    if not staged:
        convoy_start(call, ConvoyArgs(convoy=made.pk))
    why = filing.WAITS if filed.waits else "nothing is dispatched until it is started" if staged else filing.GOES
    touched = {i["key"]: plans.Touches(i["rig"].pk, tuple(i["files"]), tuple(i["after"])) for i in plan}
    conflicts = [{"beads": [a, b], "files": files} for a, b, files in plans.clashes(touched)]
    return {"id": made.pk, "staged": staged, "why": why, "conflicts": conflicts}


@tool("gt_convoy_start", MAYOR, ConvoyArgs)
def convoy_start(call: Call, args: ConvoyArgs) -> dict[str, Any]:
    """Start a staged convoy. One that an agent has made is a person's to start, unless the config says otherwise."""
    convoy = _convoy(call, args.convoy)
    asked = convoy.bead.unreleased or filing.asked_first(call.run.town, [call.run.rig, convoy.rig])
    if convoy.bead.filed_by and convoy.started_at is None and asked:
        raise Conflict(f"convoy {convoy.pk} was made by an agent: a person starts it ([limits] filed_beads)")
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    inbox.record(call.run.town, "convoy.start", convoy.pk, {}, actor=_sender(call))
    return {"id": convoy.pk}


@tool("gt_convoy_status", MAYOR, ConvoyArgs)
def convoy_status(call: Call, args: ConvoyArgs) -> dict[str, Any]:
    """A convoy and its beads."""
    convoy = _convoy(call, args.convoy)
    beads = convoy.beads.select_related("rig").prefetch_related("blocked_by")
    closed = sum(1 for b in beads if b.status == BeadStatus.CLOSED)
    told: dict[str, Any] = {}
    for extra in convoy_extras:
        told |= extra(convoy)
    return told | {
        "id": convoy.pk,
        "title": convoy.bead.title,
        "status": convoy.bead.status,
        "staged": convoy.started_at is None,
        "closed": closed,
        "total": len(beads),
        "landed_sha": convoy.landed_sha,
        "beads": [bead_data(b) for b in beads if b.type == BeadType.ISSUE],
    }
