"""Rules for convoys: start, needs attention, landing, end. Pure.

A convoy lands once all its beads are closed and none failed; a landing that changes nothing fails it, saying so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beads.lifecycle import ACHIEVED, BeadStatus, EffectState, is_final
from refinery.core.actions import (
    Action,
    BranchLanded,
    ConvoyLanded,
    CreateBranch,
    Decision,
    Escalate,
    MoveBead,
    ObserveBranch,
    OpenEntry,
    Ruling,
)
from refinery.core.convoyviews import BranchView, ConvoyView, LandingEntry
from refinery.core.keys import branch_key
from refinery.core.rules.needs import told_once
from refinery.core.states import EntryState
from refinery.core.telling import led_by, short
from refinery.core.world import World


def decide(world: World) -> Iterator[Decision]:
    """One decision for each live convoy."""
    for convoy in world.convoys:
        rule, why, actions = _one(world, convoy)
        yield Decision(f"convoy {convoy.id}", rule, why, actions)


def _one(world: World, convoy: ConvoyView) -> Ruling:
    if convoy.close_requested:
        return _close(world, convoy)
    if convoy.started_at is None:
        return "staged", "nothing is dispatched until it is started", ()
    if convoy.uncut:
        return _cut(world, convoy.uncut)
    if convoy.failed_beads:
        why = _failed(convoy)
        since = max((b.closed_at for b in convoy.failed_beads if b.closed_at), default=convoy.started_at)
        key = f"convoy:{convoy.id}:{since.isoformat()}"
        alarm = Escalate(key, f"Convoy needs attention: {convoy.title}", why, "high", convoy.id)
        return "needs-attention", why, told_once(world, alarm)
    if not convoy.all_closed:
        done = sum(1 for b in convoy.beads if b.status == BeadStatus.CLOSED)
        return "active", f"{done} of {len(convoy.beads)} beads closed", ()
    merged = [b for b in convoy.beads if b.resolution in ACHIEVED]
    if not merged:
        why = "no bead was merged: there is nothing to land"
        return "nothing", why, _fail(convoy, why)
    if not convoy.lands_once:
        why = "every bead is closed"
        return "done", why, (MoveBead(convoy.id, convoy.status, BeadStatus.CLOSED, why, "done"),)
    return _land(world, convoy)


def _failed(convoy: ConvoyView) -> str:
    """What is said of a convoy of which beads failed: the first three, each with its reason."""
    names = "; ".join(f"{b.id}{led_by(': ', short(b.reason, 320))}" for b in convoy.failed_beads[:3])
    if convoy.failed_beads[3:]:
        names += f", and {len(convoy.failed_beads) - 3} more"
    return f"failed: {names}. Retry it, cancel it, or close the convoy"


def _cut(world: World, uncut: Sequence[BranchView]) -> Ruling:
    """The next step of making feature branches on their remotes."""
    asked = {b.id: branch_key("create_branch", b.id, b.asked_at) for b in uncut if b.asked_at is not None}
    for branch in uncut:
        found = world.effects.get(asked.get(branch.id, ""))
        if found is not None and found.state == EffectState.FAILED:
            return "cut-failed", f"feature branch {branch.name} cannot be made: {found.error}", ()
    due = [b for b in uncut if b.id not in asked or world.unanswered(asked[b.id])]
    why = "its feature branch is being cut"
    if away := next((out for b in uncut if (out := world.rigs[b.rig].outage)), None):
        why += f"; {away.words(world.now)}"
    return "cut-branch", why, tuple(CreateBranch(b.id) for b in due)


def _close(world: World, convoy: ConvoyView) -> Ruling:
    """A person closes it midway: its beads are cancelled first, their entries and runs follow; branch kept."""
    for entry in world.entries:
        if entry.convoy == convoy.id and entry.landing and entry.landing.begun:
            return "close-waits", f"entry {entry.id} is being pushed: git decides", ()
    actions: list[Action] = [
        MoveBead(b.id, b.status, BeadStatus.CLOSED, "its convoy was closed", "cancelled")
        for b in convoy.beads
        if not is_final(b.status)
    ]
    why = "closed by a person; its branch is kept"
    actions.append(MoveBead(convoy.id, convoy.status, BeadStatus.CLOSED, why, "cancelled"))
    return "close", why, tuple(actions)


def _land(world: World, convoy: ConvoyView) -> Ruling:
    """All beads are closed: one landing entry per touched rig, bounded, each with its reason."""
    open_branches = [b for b in convoy.branches if not b.landed_sha]
    shas = {b.rig: b.landed_sha for b in convoy.branches if b.landed_sha}
    for branch in open_branches:
        last = next((e for e in reversed(convoy.landings) if e.rig == branch.rig), None)
        told = _land_branch(world, convoy, branch, last)
        if told is not None:
            return told
    sha = next((s for s in shas.values() if s != "unchanged"), "")
    if not sha:
        why = "landing changes nothing: its feature branch holds no commit that the target misses"
        return "landing-empty", why, _fail(convoy, why)
    why = f"landed as {sha[:12]}"
    return (
        "landed",
        why,
        (
            MoveBead(convoy.id, convoy.status, BeadStatus.CLOSED, why, "merged", sha),
            ConvoyLanded(convoy.id, sha),
        ),
    )


def _land_branch(world: World, convoy: ConvoyView, branch: BranchView, last: LandingEntry | None) -> Ruling | None:
    """The next step for one rig's feature branch."""
    if last is not None and last.state == EntryState.ACTIVE:
        return "landing", f"landing entry {last.id} is in the queue", ()
    if last is not None and last.state == EntryState.MERGED:
        return "branch-landed", f"landed by {last.id}", (BranchLanded(branch.id, last.merge_sha),)
    if last is not None and last.reason != "superseded":
        why = f"landing entry {last.id} failed: {last.reason_text}"
        return "landing-failed", why, _fail(convoy, why)
    closed = [b.closed_at for b in convoy.beads if b.rig == branch.rig and b.closed_at]
    newest = max(closed, default=None)
    why = "the remote is asked where the feature branch stands"
    if (away := world.rigs[branch.rig].outage) is not None:
        why += f"; {away.words(world.now)}"
    if branch.asked_at is None or (newest is not None and branch.asked_at < newest):
        return "observe-branch", why, (ObserveBranch(branch.id),)
    if branch.observed_at != branch.asked_at:
        key = branch_key("observe_branch", branch.id, branch.asked_at)
        asked = world.effects.get(key)
        if asked is not None and asked.state == EffectState.FAILED:
            return "observe-failed", f"feature branch {branch.name} cannot be looked at: {asked.error}", ()
        return "observe-branch", why, (ObserveBranch(branch.id),) if world.unanswered(key) else ()
    if not branch.head_sha:
        why = f"feature branch {branch.name} is gone from the remote"
        return "branch-gone", why, _fail(convoy, why)
    if branch.head_sha == branch.base_sha:
        return "branch-unchanged", "nothing was merged here", (BranchLanded(branch.id, "unchanged"),)
    if world.paused or world.rigs[branch.rig].parked:
        return "ready-to-land", "ready to land; the town is paused or the rig parked", ()
    opened = OpenEntry(
        rig=branch.rig,
        branch=branch.name,
        head=branch.head_sha,
        target=world.rigs[branch.rig].default_branch,
        convoy=convoy.id,
    )
    why = "all beads are closed: its landing is enqueued"
    actions: tuple[Action, ...] = (opened,)
    if convoy.status != BeadStatus.IN_REVIEW:
        actions = (opened, MoveBead(convoy.id, convoy.status, BeadStatus.IN_REVIEW, why))
    return "open-landing", why, actions


def _fail(convoy: ConvoyView, why: str) -> tuple[Action, ...]:
    """The convoy failed, and the people hear why."""
    return (
        MoveBead(convoy.id, convoy.status, BeadStatus.FAILED, why, "gave_up"),
        Escalate(f"convoy:{convoy.id}", f"Convoy did not land: {convoy.title}", why, "high", convoy.id),
    )
