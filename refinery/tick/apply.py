"""Carry out a plan: one `match` over the action union, each action through its table's single writer.

Every decision runs in a savepoint of its own: a `LostRace` undoes just that decision, is counted, and is left to the
next tick. Must run inside the tick's transaction, under the town's lock.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import transaction

from agents import mail, roster, runs
from agents.lifecycle import RunKind, RunOutcome
from agents.models import Agent, Run
from agents.runtime.crashpoints import crashpoint
from beads import ledger
from beads.errors import GastownError
from beads.lifecycle import BeadStatus, Purpose, is_final
from beads.models import Bead, Convoy, ConvoyBranch, Rig, Town
from beads.prepared import Prepared
from refinery import links
from refinery.core import effects
from refinery.core.actions import (
    AbandonLanding,
    Action,
    Admit,
    Answered,
    BranchLanded,
    CheckAnew,
    CloseEntry,
    ConvoyLanded,
    CreateBranch,
    Decision,
    EndRun,
    Escalate,
    Foresee,
    Hold,
    Land,
    Leave,
    MoveBead,
    NewHead,
    NudgeRun,
    ObserveBranch,
    OpenCheck,
    OpenConflict,
    OpenEntry,
    OpenRework,
    Prove,
    PublishRun,
    PushAgain,
    Rebuild,
    Regroup,
    RetireAgent,
    Settle,
    SetWindow,
    StartRun,
    StopRun,
)
from refinery.core.reasons import Held
from refinery.core.states import EntryKind
from refinery.core.telling import of_rework, short
from refinery.models import Candidate, Landing, ReviewEntry
from refinery.store import comments, entries, forecasts, landings, lost, notices
from refinery.tick import briefs, planning
from refinery.tick.endings import ACTOR, close_entry, convoy_landed, enqueue, hold_entry

log = structlog.get_logger(__name__)


@dataclass
class Applied:
    """What a plan did: actions by name, decisions that lost a race, and decisions that failed."""

    actions: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    failed: int = 0


def carry_out(town: Town, decisions: Iterable[Decision], now: dt.datetime) -> Applied:
    """Apply all decisions that have actions."""
    done = Applied()
    failed: dict[str, tuple[str, str]] = {}
    for decision in decisions:
        if not decision.actions:
            continue
        try:
            with transaction.atomic():
                for action in decision.actions:
                    _apply(town, action, now)
        except GastownError as error:
            done.lost += 1
            failed[decision.subject] = (decision.rule, error.message)
            log.info("decision.lost", subject=decision.subject, rule=decision.rule, error=error.message)
        except Exception as error:
            done.failed += 1
            failed[decision.subject] = (decision.rule, f"{type(error).__name__}: {error}")
            log.exception("decision.failed", subject=decision.subject, rule=decision.rule)
        else:
            done.actions.update(type(a).__name__ for a in decision.actions)
    _tell_of_lost(town, failed, now)
    crashpoint("tick.applied")
    transaction.on_commit(lambda: crashpoint("tick.committed"))
    return done


def _tell_of_lost(town: Town, failed: dict[str, tuple[str, str]], now: dt.datetime) -> None:
    """A decision that is lost again and again is not tried for ever in silence."""
    stuck, over = lost.note(town, failed, now)
    for row in stuck:
        why = f"the decision {row.rule!r} could not be carried out {row.times} times: {row.error}"
        what, _, name = row.subject.partition(" ")
        try:
            with transaction.atomic():
                if what == "entry":
                    hold_entry(town, name, Held.STUCK, why, now)
                else:
                    about = Bead.objects.filter(pk=name, town=town).first() if what in ("bead", "convoy") else None
                    title, key = f"Does not go on: {row.subject}"[:300], f"lost:{row.subject}"
                    text = f"{why}\n\nWhat to do: gastown tick --town {town.slug} --explain shows it; see the log, too."
                    ledger.escalate(town, key, title, body=text, severity="high", about=about, actor=ACTOR)
        except GastownError as error:
            log.info("lost.untold", subject=row.subject, error=error.message)
    for row in over:
        ledger.settle_key(town, f"lost:{row.subject}", ACTOR, now, "it goes on")


def _apply(town: Town, action: Action, now: dt.datetime) -> None:
    """Carry out one action."""
    match action:
        case StartRun():
            _start_run(action, now)
        case EndRun(run, expect, outcome, reason):
            runs.end(run, expect, RunOutcome(outcome), reason, now)
            ledger.settle_keys(town, f"idle:{run}:", ACTOR, now, f"the run has ended: {reason}")
        case StopRun(run, reason, counts):
            runs.request_stop(run, reason, now, counts=counts)
        case NudgeRun(run, message):
            _nudge(run, message, now)
        case PublishRun(run):
            runs.request_publish(run, now)
            enqueue(town, effects.Publish(run), now, Run.objects.only("rig").get(pk=run).rig_id)
        case MoveBead(bead, expect, to, reason, resolution, sha):
            ledger.move(
                Bead(pk=bead),
                expect,
                to,
                actor=ACTOR,
                reason=reason,
                resolution=resolution,
                merge_sha=sha,
                now=now,
            )
        case OpenEntry():
            _open_entry(action)
        case Admit():
            _admit(town, action, now)
        case Leave(entry, innocent):
            entries.leave(entry, innocent=innocent)
        case Prove(entry, build_no):
            _build(town, entry, entries.prove(entry, build_no), None, now)
        case OpenCheck(rig, target):
            entries.open_check(Rig.objects.select_related("town").get(pk=rig), target, ACTOR)
        case CheckAnew(entry, build_no):
            _build(town, entry, entries.check_anew(entry, build_no), None, now)
        case Regroup(expect, places, why):
            entries.regroup(expect, [(p.entry, p.batch, p.slot) for p in places])
            for place in places:
                ledger.note(Bead(pk=place.entry), "batch_cut", ACTOR, why)
        case Rebuild(entry, build_no, counts, on, seal):
            _build(town, entry, entries.rebuild(entry, build_no, counts=counts), on, now, seal)
        case NewHead(entry, expect, head, branch, why, on_remote):
            entries.new_head(entry, expect, head, branch, on_remote=on_remote)
            ledger.note(Bead(pk=entry), "new_head", ACTOR, why, head=head, old=expect)
        case Answered(entry, head, answer):
            entries.answered(entry, head, answer)
            ledger.note(Bead(pk=entry), "answered", ACTOR, answer or "nothing was committed", head=head)
        case OpenRework(entry, cause, number):
            _open_rework(town, entry, cause, number)
        case OpenConflict(entry, candidate, files):
            _open_conflict(town, entry, candidate, files)
        case Hold(entry, code, text):
            hold_entry(town, entry, code, text, now)
        case Land(cars):
            found = Candidate.objects.select_related("entry__rig").in_bulk([c.candidate for c in cars])
            waivers = {c.candidate: c.waiver for c in cars if c.waiver}
            landing = landings.intend([(found[c.candidate], c.evidence) for c in cars], waivers)
            enqueue(town, effects.Land(landing.pk), now, landing.rig_id)
        case PushAgain(landing_id):
            pushed = Landing.objects.only("rig").get(pk=landing_id)
            enqueue(town, effects.Land(landing_id), now, pushed.rig_id)
        case SetWindow(rig, target, size):
            entries.set_window(rig, target, size)
        case AbandonLanding(landing_id):
            landings.abandon(landing_id, now)
        case CloseEntry():
            close_entry(town, action, now)
        case CreateBranch(branch_id) | ObserveBranch(branch_id):
            _ask_branch(town, branch_id, isinstance(action, CreateBranch), now)
        case Foresee(rig, target, expect, heads, tip):
            asked = forecasts.ask(rig, target, expect, heads, tip, now)
            enqueue(town, effects.Foresee(asked.pk, asked.number), now, rig)
        case BranchLanded(branch_id, sha):
            ledger.branch_landed(ConvoyBranch(pk=branch_id), sha)
        case ConvoyLanded(convoy, sha):
            convoy_landed(town, convoy, sha, now)
        case Escalate(key, title, body, severity, about):
            subject = Bead.objects.get(pk=about) if about else None
            body = links.with_addresses(body)
            made = ledger.escalate(town, key, title, body=body, severity=severity, about=subject, actor=ACTOR)
            if made is not None:
                kind = "failed" if subject is not None and is_final(subject.status) else "needs_you"
                notices.tell(town, kind, subject, title, body, made.pk, now)
                planning.heard(subject, "CONVOY_NEEDS_ATTENTION", title, body)
        case Settle(key, reason):
            ledger.settle_key(town, key, ACTOR, now, reason)
        case RetireAgent(agent):
            roster.retire(Agent(pk=agent), now)


def _nudge(run_id: str, message: str, now: dt.datetime) -> None:
    runs.note_nudged(run_id, now)
    run = Run.objects.select_related("agent").get(pk=run_id)
    if run.agent is not None:
        mail.nudge(run, "patrol", message, now)


def _build(town: Town, entry_id: str, build_no: int, on: int | None, now: dt.datetime, seal: int | None = None) -> None:
    """The build is pinned to the head of this moment; its date makes the commit reproducible."""
    (entry,) = _ENTRY(entry_id)
    work = effects.Build(entry_id, build_no, entry.head_sha, int(now.timestamp()), on, seal)
    enqueue(town, work, now, entry.rig_id)


def _admit(town: Town, action: Admit, now: dt.datetime) -> None:
    build_no = entries.admit(action.entry, action.build_no, action.slot, now, action.batch)
    if action.why:
        ledger.note(Bead(pk=action.entry), "batched", ACTOR, action.why)
    if action.build:
        _build(town, action.entry, build_no, action.on, now)
    (entry,) = _ENTRY(action.entry)
    roster.refinery_for(entry.rig, briefs.lane_convoy(entry))


_BEAD = Prepared(lambda pk: Bead.objects.select_related("town", "rig", "convoy", "parent").filter(pk=pk))
_ENTRY = Prepared(lambda pk: ReviewEntry.objects.select_related("rig", "convoy").filter(pk=pk))


def _start_run(action: StartRun, now: dt.datetime) -> None:
    (bead,) = _BEAD(action.bead)
    if action.expect_status is not None:
        ledger.move(
            bead,
            action.expect_status,
            BeadStatus.IN_PROGRESS,
            actor=ACTOR,
            reason=f"{action.brief} dispatched",
        )
    order = briefs.order(bead, action.brief, action.start_sha)
    agent: Agent | None
    match RunKind(action.kind):
        case RunKind.POLECAT:
            agent = roster.polecat_for(order.rig, action.prefer_agent, order.author)
        case RunKind.REFINERY:
            agent = roster.refinery_for(order.rig, order.lane_convoy)
        case RunKind.MAYOR:
            agent = roster.mayor_for(bead.town)
        case _:
            agent = None
    runs.queue_run(
        bead,
        RunKind(action.kind),
        action.brief,
        agent=agent,
        target=order.target,
        steps=order.steps,
        brief=order.brief,
        start_sha=action.start_sha,
        lease=order.lease,
        prefix=order.prefix,
        at_most=action.at_most,
    )
    mail.briefed(order.brief.get("beads") or (), now)
    entries.pass_on(order.words.verdicts, bead)
    comments.pass_on(order.words.comments, bead)


def _open_entry(action: OpenEntry) -> None:
    rig = Rig.objects.select_related("town").get(pk=action.rig)
    if action.convoy is not None:
        convoy = Convoy.objects.select_related("bead").get(pk=action.convoy)
        entries.submit(
            rig,
            branch=action.branch,
            head=action.head,
            target=action.target,
            title=f"Land convoy: {convoy.bead.title}"[:300],
            author=ACTOR,
            priority=convoy.bead.priority,
            convoy=convoy,
            kind=EntryKind.LANDING,
        )
        return
    source = Bead.objects.select_related("convoy").get(pk=action.source)
    run = Run.objects.select_related("agent").get(pk=action.run)
    entries.submit(
        rig,
        branch=action.branch,
        head=action.head,
        target=action.target,
        title=source.title,
        author=run.agent.name if run.agent else ACTOR,
        priority=source.priority,
        source=source,
        convoy=source.convoy,
        on_remote=action.on_remote,
    )


def _task(town: Town, entry: ReviewEntry, purpose: Purpose, title: str, body: str, context: Any) -> Bead:
    """A bead that blocks an entry: one step higher in priority than what it unblocks."""
    task = ledger.create_bead(
        town,
        entry.rig,
        title[:300],
        body=body,
        purpose=purpose,
        priority=max(entry.bead.priority - 1, 0),
        parent=entry.bead,
        context=context,
        actor=ACTOR,
    )
    ledger.block(entry.bead, [task], ACTOR)
    entries.count_rework(entry.pk, purpose)
    return task


def _open_rework(town: Town, entry_id: str, cause: str, number: int) -> None:
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=entry_id)
    text, context = briefs.rework(entry, cause, number)
    told = of_rework(cause, context)
    text = links.with_addresses(text if told in text else f"{told}\n{text}")
    about = entry.source or entry.bead
    recipient = entry.author if Agent.objects.filter(town=town, name=entry.author).exists() else "overseer"
    mail.send(
        town,
        ACTOR,
        recipient,
        short(f"Rework: {short(entry.bead.title, 120)}{': ' + told if told else ''}", 300),
        text,
        kind="REWORK_REQUEST",
        about=about,
        bead=about,
    )
    ledger.note(about, "rework_requested", ACTOR, text[:2000], round=number, cause=cause)
    if number:
        _task(town, entry, Purpose.REWORK, f"Rework: {entry.bead.title}", text, context)


def _open_conflict(town: Town, entry_id: str, candidate_id: int, files: tuple[str, ...]) -> None:
    entry = ReviewEntry.objects.select_related("bead", "rig", "source").get(pk=entry_id)
    base = Candidate.objects.get(pk=candidate_id).base_sha
    text = (
        f"The change of branch {entry.branch} conflicts with {entry.target} at {base}.\n"
        f"Conflicting files:\n" + "\n".join(f"- {name}" for name in files)
    )
    context = {
        "conflict": {"base_sha": base, "target": entry.target, "files": list(files)},
        "branch": entry.branch,
    }
    task = _task(town, entry, Purpose.CONFLICT, f"Resolve merge conflicts: {entry.bead.title}", text, context)
    ledger.note(entry.source or entry.bead, "conflict", ACTOR, text[:2000], task=task.pk, files=list(files), base=base)


def _ask_branch(town: Town, branch_id: int, create: bool, now: dt.datetime) -> None:
    branch = ConvoyBranch.objects.get(pk=branch_id)
    ledger.ask_branch(branch, now)
    kind = effects.CreateBranch if create else effects.ObserveBranch
    enqueue(town, kind(branch_id, now), now, branch.rig_id)
