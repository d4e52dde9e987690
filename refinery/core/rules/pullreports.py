"""What is said on a host of a change: the statuses of its gates, and our one comment. Pure."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping

from refinery.core import effects
from refinery.core.entryviews import EntryView
from refinery.core.gating import results_on
from refinery.core.order import in_queue_order
from refinery.core.pullviews import Pull, PullState, PullView
from refinery.core.stages import Stage
from refinery.core.standing import phase_of, stands
from refinery.core.states import GateOutcome
from refinery.core.world import RigView, World

OVERALL, CONTEXT = "gastown", 100  # the status of the change itself; characters of the name of one
TELL_EVERY = dt.timedelta(seconds=30)  # our comment is changed at most so often, but for an end or an answer
_STATES = {GateOutcome.PASS: "success", GateOutcome.FAIL: "failure", GateOutcome.ERROR: "error"}
_BAD = frozenset({Stage.GATE_FAILED, Stage.CONFLICT, Stage.UNFIT, Stage.CHANGES_REQUESTED, Stage.NOTHING})
_GREEN = frozenset({Stage.NEEDS_APPROVAL, Stage.MERGE_DELAY, Stage.GREEN, Stage.LANDING, Stage.LANDED})
Ask = tuple[str, str, effects.OfHost]


def source_of(pull: Pull, repository: str) -> str:
    """The name of where a pull request's head is in the repository: its branch, or of a fork's the host's own ref."""
    return pull.branch if pull.head_repo == repository else f"refs/pull/{pull.number}/head"


def is_behind(world: World, rig: RigView, row: PullView, pull: Pull, entry: EntryView) -> bool:
    """True when a round of rework is ahead of a pull request whose branch we do not push to: one of a fork, and one
    that others land on, where it would be there without any gate."""
    if pull.head == entry.head or pull.head != row.head or pull.state != PullState.OPEN:
        return False
    landed_on = {rig.default_branch, *(other.target for other in world.entries if other.rig == rig.id)}
    landed_on |= {branch.name for convoy in world.convoys for branch in convoy.branches if branch.rig == rig.id}
    return pull.head_repo != rig.repository or pull.branch in landed_on


def digest(*parts: object) -> str:
    """What stands for a thing that is said."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def to_report(world: World, rig: RigView, row: PullView, pull: Pull, entry: EntryView | None) -> Iterator[Ask]:
    """How the gates are, as statuses of its head: those that say something else now, for each is a request, and a host
    grants so many an hour. A gate that runs again keeps what it came to before at this head: `gastown` says how the
    change is now. A draft of ours is ready for people when it is green, once for each head: they may make it a draft
    again."""
    if entry is None or pull.state != PullState.OPEN or pull.head != entry.head:
        return
    stage = stands(world, entry).stage
    statuses = [(OVERALL, _overall(stage), phase_of(world, entry).replace("_", " "))]
    current = entry.candidate
    if current is not None and current.head == entry.head:
        found = results_on(current, entry.gates)
        for gate in rig.config.refinery.gates:
            result = found.get((gate.name, gate.command))
            state, text = "pending", ""
            if result is not None:
                state, text = _STATES[GateOutcome(result.outcome)], result.telling
            statuses.append((_context(gate.name), state, text))
    fresh = tuple(one for one in statuses if _is_news(row, pull.head, one))
    ready = row.offered and pull.draft and stage in _GREEN and READY not in said_at(row.said, pull.head)
    if fresh or ready:
        named = digest(pull.head, fresh, ready)
        yield "report", "its checks are told", effects.ReportPull(row.id, pull.head, fresh, named, ready)


def _context(gate: str) -> str:
    """The name of a gate's status: no two have the same, however long the gates' names are."""
    name = f"{OVERALL}/{gate}"
    if len(name) <= CONTEXT:
        return name
    return f"{name[: CONTEXT - 13]} {digest(gate)[:12]}"


READY = "ready"  # beside the statuses that were said: it is no draft any more


def mark(head: str, *said: str) -> str:
    """What is kept of something that was said at a head."""
    return f"{head[:12]} {digest(*said)[:12]}"


def said_at(said: Mapping[str, str], head: str) -> dict[str, str]:
    """What was said at this head: by context, its mark."""
    return {context: kept for context, kept in said.items() if kept.startswith(f"{head[:12]} ")}


def _is_news(row: PullView, head: str, status: tuple[str, str, str]) -> bool:
    context, state, text = status
    known = said_at(row.said, head).get(context)
    if known is not None and state == "pending" and context != OVERALL:
        return False
    return known != mark(head, state, text)


def _overall(stage: Stage) -> str:
    if stage in _GREEN:
        return "success"
    if stage in _BAD:
        return "failure"
    if stage in (Stage.HELD, Stage.GATE_ERROR, Stage.BUILD_ERROR):
        return "error"
    return "pending"


def to_tell(world: World, row: PullView, entry: EntryView | None) -> Iterator[Ask]:
    """What our one comment there says, when it says something else now. Its place in the queue is as it was then: who
    lands does not make us write to everybody who waits."""
    said = _said(world, row, entry)
    named = digest(said)
    if not said or named == row.told:
        return
    fresh = row.told_at is None or not row.told or row.outcome or world.now >= row.told_at + TELL_EVERY
    if fresh:
        lines = (*said, *_place(world, entry))
        yield "tell", "people are told how it stands", effects.TellPull(row.id, lines, named)


def _place(world: World, entry: EntryView | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    lane = in_queue_order(e for e in world.entries if (e.rig, e.target) == (entry.rig, entry.target))
    return (f"Place {lane.index(entry) + 1} of {len(lane)} for {entry.target}.",)


def _said(world: World, row: PullView, entry: EntryView | None) -> tuple[str, ...]:
    said = tuple(filter(None, (row.answer,)))
    if entry is not None:
        stage = phase_of(world, entry).replace("_", " ")
        behind: tuple[str, ...] = ()
        if row.pull is not None and not row.pull.authors_known:
            behind = ("Its host does not know who wrote all of its commits: approve it on Gastown's page.",)
        if row.pull is not None and is_behind(world, world.rigs[row.rig], row, row.pull, entry):
            behind += ("A round of rework is ahead of this branch, which Gastown does not push to: review it there.",)
        return (f"{stage}: {stands(world, entry).why}", *behind, *said)
    if not row.outcome:
        return said
    if row.merge_sha:
        return (f"landed as {row.merge_sha}: {row.outcome_text}", *said)
    return (f"has left the queue ({row.outcome.replace('_', ' ')}): {row.outcome_text}", *said)
