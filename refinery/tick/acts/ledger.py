"""Actions on beads, convoys, their branches, and what people are told."""

from __future__ import annotations

import datetime as dt

from beads import ledger
from beads.lifecycle import is_final
from beads.models import Bead, ConvoyBranch, Town
from refinery import links
from refinery.core import effects
from refinery.core.actions import (
    AskHost,
    BranchLanded,
    ConvoyLanded,
    CreateBranch,
    Escalate,
    MoveBead,
    ObserveBranch,
    OfLedger,
    Settle,
)
from refinery.store import notices
from refinery.tick import planning
from refinery.tick.endings import ACTOR, convoy_landed, enqueue


def apply(town: Town, action: OfLedger, now: dt.datetime) -> None:
    """Carry out one of them."""
    match action:
        case MoveBead(bead, expect, to, reason, resolution, sha):
            change = ledger.Transition(to, reason=reason, resolution=resolution, merge_sha=sha)
            ledger.move(Bead(pk=bead), expect, change, actor=ACTOR, now=now)
        case CreateBranch(branch_id):
            _ask(town, branch_id, effects.CreateBranch, now)
        case ObserveBranch(branch_id):
            _ask(town, branch_id, effects.ObserveBranch, now)
        case BranchLanded(branch_id, sha):
            ledger.branch_landed(ConvoyBranch(pk=branch_id), sha)
        case ConvoyLanded(convoy, sha):
            convoy_landed(town, convoy, sha, now)
        case Escalate():
            _escalate(town, action, now)
        case AskHost(rig, work):
            enqueue(town, work, now, rig)
        case Settle(key, reason):
            ledger.settle_key(town, key, ACTOR, now, reason)


def _ask(
    town: Town, branch_id: int, kind: type[effects.CreateBranch | effects.ObserveBranch], now: dt.datetime
) -> None:
    branch = ConvoyBranch.objects.get(pk=branch_id)
    ledger.ask_branch(branch, now)
    enqueue(town, kind(branch_id, now), now, branch.rig_id)


def _escalate(town: Town, action: Escalate, now: dt.datetime) -> None:
    """Escalate, once for its key; who asked to hear such things is told."""
    subject = Bead.objects.get(pk=action.about) if action.about else None
    title, body = action.title, links.with_addresses(action.body)
    problem = ledger.Problem(action.key, title, body=body, severity=action.severity, about=subject)
    made = ledger.escalate(town, problem, actor=ACTOR)
    if made is not None:
        kind = "failed" if subject is not None and is_final(subject.status) else "needs_you"
        notices.tell(town, notices.Notice(kind, subject, title, body, made.pk), now)
        planning.heard(subject, "CONVOY_NEEDS_ATTENTION", title, body)
