"""Rules for issue beads: dispatch, retry, hand-over to review, cancel. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from beads.config import MergeStrategy, Publish
from beads.lifecycle import BeadStatus, EffectState, Purpose
from refinery.core.actions import (
    Action,
    Answered,
    Decision,
    Escalate,
    Hold,
    MoveBead,
    NewHead,
    OpenEntry,
    PublishRun,
    Ruling,
    StartRun,
)
from refinery.core.approvals import objection
from refinery.core.beadviews import BeadView, RunView
from refinery.core.entryviews import EntryView
from refinery.core.gating import red
from refinery.core.keys import publish_key
from refinery.core.questions import ASKS, waits_for_answer
from refinery.core.readiness import (
    DISPATCH,
    HELD,
    NO_SLOT,
    UNRELEASED,
    bead_wait,
    breaker,
    same_set_up_error,
    unmanned,
)
from refinery.core.rules.attempts import another, hopeless, runs_again, voided
from refinery.core.rules.needs import raised, settled
from refinery.core.rules.rework import nothing_committed
from refinery.core.standing import phase_of
from refinery.core.telling import led_by
from refinery.core.world import World

REFUSALS = 2  # so often is a branch offered that its remote refuses


def decide(world: World, reviews: Mapping[str, str]) -> Iterator[Decision]:
    """One decision for each live issue bead, in dispatch order: priority, convoy age, age. `reviews`: what is said of
    each active entry, by subject; a bead in review says the same."""
    slots: Counter[int | str] = Counter(run.rig for run in world.runs if run.kind == "polecat")
    yield from _breaker(world)
    yield from _unmanned(world)
    for bead in sorted(world.beads, key=lambda b: _order(world, b)):
        rule, why, actions = _one(world, bead, slots, reviews)
        yield Decision(f"bead {bead.id}", rule, why, actions)


def _breaker(world: World) -> Iterator[Decision]:
    """Too many runs failed in a row: dispatch pauses, but for one run at a time that shows whether it is better."""
    subject = f"town {world.town}"
    if world.breaker_open:
        why = f"{world.failures_in_a_row} runs in a row failed within 30 minutes: dispatch pauses"
        text = f"{why}. Look at their logs. One run is tried every 5 minutes; the first that succeeds ends the pause."
        alarm = Escalate("breaker", "Dispatch paused: too many runs fail", text, "high")
        yield Decision(subject, "breaker", why, raised(world, alarm))
        return
    why = "runs succeed again, or the failures are long past"
    if over := settled(world, "breaker", why):
        yield Decision(subject, "breaker-closed", why, over)


def _unmanned(world: World) -> Iterator[Decision]:
    """A rig with work and no command for its polecats is one open need, until there is one or nothing waits for it."""
    empty = {rig.id: unmanned(rig.slug) for rig in world.rigs.values() if rig.config.agents.polecat is None}
    open_ones = (b for b in world.beads if b.rig in empty and b.status == BeadStatus.OPEN)
    waiting = Counter(
        b.rig for b in open_ones if b.id not in world.entry_of_source and bead_wait(world, b) == empty[b.rig]
    )
    for rig in world.rigs.values():
        key, why = f"unmanned:{rig.id}", unmanned(rig.slug)
        if waiting[rig.id]:
            text = f"{why}. Beads that wait for it: {waiting[rig.id]}"
            alarm = Escalate(key, f"Nobody works in rig {rig.slug}", text, "medium")
            yield Decision(f"rig {rig.slug}", "unmanned", why, raised(world, alarm))
            continue
        ended = "agents.polecat.command is set"
        if rig.id in empty:
            ended = "no bead waits for it any more"
        if over := settled(world, key, ended):
            yield Decision(f"rig {rig.slug}", "manned", ended, over)


def _order(world: World, bead: BeadView) -> tuple[object, ...]:
    convoy = world.convoy.get(bead.convoy or "")
    age = convoy.started_at if convoy and convoy.started_at else bead.created_at
    return (bead.priority, age, bead.created_at, bead.id)


def _one(world: World, bead: BeadView, slots: Counter[int | str], reviews: Mapping[str, str]) -> Ruling:
    entry = world.entry_of_source.get(bead.id)
    if bead.cancel_requested:
        return _cancel(world, bead)
    if bead.purpose != Purpose.WORK and bead.parent not in world.entry:
        why = "the review entry it was for has ended"
        return "unneeded", why, (MoveBead(bead.id, bead.status, BeadStatus.CLOSED, why, "superseded"),)
    if bead.live_run is not None:
        return "in-work", f"run {bead.live_run.id} is {bead.live_run.state}", runs_again(world, bead)
    if entry is not None:
        if bead.status == BeadStatus.IN_REVIEW:
            phase = phase_of(world, entry).replace("_", " ")
            return "in-review", f"{phase}: {reviews[f'entry {entry.id}']}", ()
        why = f"review entry {entry.id} is open"
        return "has-entry", why, (MoveBead(bead.id, bead.status, BeadStatus.IN_REVIEW, why),)
    if bead.hold and bead.status == BeadStatus.IN_PROGRESS:
        return "stopped", bead.hold, (another(bead, bead.hold),)
    match bead.status:
        case BeadStatus.IN_PROGRESS:
            return _after_run(world, bead)
        case BeadStatus.IN_REVIEW:
            why = "its review entry is gone: back to work"
            return "review-gone", why, (another(bead, why),)
        case _:
            return _dispatch(world, bead, slots)


def _cancel(world: World, bead: BeadView) -> Ruling:
    entry = world.entry_of_source.get(bead.id)
    if entry is not None and entry.landing is not None and entry.landing.begun:
        return "cancel-too-late", "its change is being pushed: git decides", ()
    return (
        "cancel",
        "cancelled",
        (MoveBead(bead.id, bead.status, BeadStatus.CLOSED, "cancelled", "cancelled"),),
    )


def _after_run(world: World, bead: BeadView) -> Ruling:
    """The bead's run has ended: what came of it?"""
    run = bead.last_run
    if run is None:
        why = "has no run: back to the queue"
        return "no-run", why, (another(bead, why),)
    match run.outcome:
        case "done":
            if bead.purpose == Purpose.WORK and run.work == "nothing":
                return _nothing_changed(bead, run)
            entry = world.entry.get(bead.parent or "")
            if entry is not None and bead.purpose != Purpose.WORK and _nothing_new(entry, run):
                return _hand_over(world, bead, run)
            if not run.published or (_shown(world, bead) and not run.on_remote):
                return _publish(world, bead, run)
            return _hand_over(world, bead, run)
        case "failed":
            if why := hopeless(world, bead, run):
                return _give_up(bead, run, why)
            why = f"attempt {bead.attempts_used} failed: {run.reason}"
            again = another(bead, why)
            hidden = run.work == "new" and not run.on_remote and not run.publish_requested
            if hidden and _always(world, bead):
                return "attempt-failed", why, (PublishRun(run.id), again)
            return "attempt-failed", why, (again,)
        case _:
            return voided(world, bead, run)


def _always(world: World, bead: BeadView) -> bool:
    """True when all that agents commit goes to the remote."""
    return world.rigs[bead.rig].config.git.publish == Publish.ALWAYS


def _shown(world: World, bead: BeadView) -> bool:
    """True when people are to see the bead's branch on the remote."""
    return _always(world, bead) or world.rigs[bead.rig].config.refinery.merge_strategy == MergeStrategy.PR


def _nothing_changed(bead: BeadView, run: RunView) -> Ruling:
    """It is said to be done, and there is no commit: never closed for that word alone, and never tried again for it."""
    why = "its agent says that it is done, and changed nothing"
    if run.summary:
        why += f': "{run.summary}"'
    text = (
        f"{why}. Run {run.id} made no commit. If nothing was needed: bead confirm {bead.id}. "
        f"To let it be tried again: bead retry {bead.id}"
    )
    return (
        "nothing-changed",
        why,
        (
            MoveBead(bead.id, bead.status, BeadStatus.FAILED, why, "nothing_changed"),
            Escalate(f"nothing:{bead.id}", f"Nothing was changed: {bead.title}"[:300], text, "medium", bead.id),
        ),
    )


def _publish(world: World, bead: BeadView, run: RunView) -> Ruling:
    key = publish_key(run.id)
    asked = world.effects.get(key)
    if asked is not None and asked.state == EffectState.FAILED:
        return _not_published(world, bead, asked.error)
    why = "its commits are being published"
    if run.publish_requested and not world.unanswered(key):
        return "publish", why, ()
    return "publish", why, (PublishRun(run.id),)


def _not_published(world: World, bead: BeadView, error: str) -> Ruling:
    """The remote refused the branch: perhaps for what is in it, which its agent is told once; then a person looks."""
    keys = [publish_key(run.id) for run in bead.runs]
    refused = sum(1 for key in keys if key in world.effects and world.effects[key].state == EffectState.FAILED)
    why = f"the remote refused its branch: {error}"
    if refused < REFUSALS:
        return "publish-refused", why, (another(bead, why),)
    rig = world.rigs[bead.rig].slug
    text = (
        f"Rig {rig}, bead {bead.id}: {why}, {refused} times.\n\nWhat to do: let the remote take it, or give agents' "
        f"branches other names (git.branch_prefix); then: gastown bead retry {bead.id}"
    )
    told = Escalate(f"failed:{bead.id}", f"Refused by the remote of {rig}: {bead.title}"[:300], text, "high", bead.id)
    return "publish-failed", why, (MoveBead(bead.id, bead.status, BeadStatus.FAILED, why, "gave_up"), told)


def _hand_over(world: World, bead: BeadView, run: RunView) -> Ruling:
    if bead.purpose == Purpose.WORK:
        opened = OpenEntry(
            rig=bead.rig,
            branch=run.branch,
            head=run.head_sha,
            target=world.target_of(bead),
            run=run.id,
            source=bead.id,
            on_remote=run.on_remote,
        )
        why = run.summary or "work finished"
        return "submit", why, (opened, MoveBead(bead.id, bead.status, BeadStatus.IN_REVIEW, why))
    entry = world.entry[bead.parent or ""]
    actions: tuple[Action, ...] = (MoveBead(bead.id, bead.status, BeadStatus.CLOSED, run.summary or "done", "done"),)
    if _nothing_new(entry, run):
        return f"{bead.purpose}-unchanged", *_unchanged(world, entry, run, actions)
    if run.head_sha != entry.head:
        why = f"{bead.purpose} {bead.id} is done"
        actions = (NewHead(entry.id, entry.head, run.head_sha, run.branch, why, run.on_remote), *actions)
    return f"{bead.purpose}-done", run.summary or "done", actions


def _nothing_new(entry: EntryView, run: RunView) -> bool:
    """True when a run that was to change an entry's head has given it back as it was."""
    return run.head_sha == entry.head or (run.work == "nothing" and not run.head_sha)


def _unchanged(
    world: World, entry: EntryView, run: RunView, actions: tuple[Action, ...]
) -> tuple[str, tuple[Action, ...]]:
    """Nothing was committed: the author's answer goes to who asked. Gates read no answers: they would fail again, and a
    person is told at once."""
    why = f"nothing was committed{led_by(': ', run.summary)}"
    actions = (*actions, Answered(entry.id, entry.head, run.summary))
    if (failed := red(entry, world.rigs[entry.rig])) and objection(entry) is None and not entry.held:
        text = f"{nothing_committed(failed, run.summary)}. The gates would fail again"
        actions = (*actions, Hold(entry.id, "nothing_committed", text))
    return why, actions


_SET_UP = (
    "\nBoth attempts ended within seconds, without a commit or a tool call: look at the agent's command and what it "
    "needs (agents.polecat: command, env, secrets, network)."
)


def _give_up(bead: BeadView, run: RunView, why: str) -> Ruling:
    text = why
    if same_set_up_error(bead.runs):
        text += _SET_UP
    text += f"\nLast run: {run.id}; its output: gastown runs log {run.id}."
    text += f" When it is mended: gastown bead retry {bead.id}"
    return (
        "give-up",
        why,
        (
            MoveBead(bead.id, bead.status, BeadStatus.FAILED, why, "gave_up"),
            Escalate(f"failed:{bead.id}", f"Failed: {bead.title}", text, "high", bead.id),
        ),
    )


def _dispatch(world: World, bead: BeadView, slots: Counter[int | str]) -> Ruling:
    if bead.hold:
        return HELD, f"{bead.hold}; it waits until a person lets it go on", ()
    if asked := waits_for_answer(world.asked.get(bead.id), bead.runs):
        return ASKS, f"its agent asks: {asked}", ()
    wait = bead_wait(world, bead)
    if wait is not None and wait == bead.unreleased:
        return UNRELEASED, wait, ()
    if wait is not None:
        return "wait", wait, ()
    if world.breaker_open:
        if slots["probe"]:
            return "wait", breaker(world), ()
        slots["probe"] += 1
    limit = world.rigs[bead.rig].config.dispatch.max_polecats
    if slots[bead.rig] >= limit:
        return NO_SLOT, f"all {limit} polecats of the rig are busy", ()
    slots[bead.rig] += 1
    start_sha, prefer = "", None
    if bead.last_run is not None:
        prefer = bead.last_run.agent
    if bead.published_head is not None:
        start_sha = bead.published_head.head_sha
    elif bead.purpose != Purpose.WORK:
        start_sha = world.entry[bead.parent or ""].head
    start = StartRun(
        bead=bead.id,
        kind="polecat",
        brief=str(bead.purpose),
        start_sha=start_sha,
        prefer_agent=prefer,
        expect_status=bead.status,
    )
    return DISPATCH, f"ready: attempt {bead.attempts_used + 1} starts", (start,)
