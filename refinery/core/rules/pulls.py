"""Rules for pull requests on a rig's host: when it is asked, what is offered, taken in, said and closed there. Pure.

What counts is what the host has answered; a hook, a look at what has changed and our own acts only make us read. While
the host cannot be asked nothing is begun but the next look, and nothing that it would have to confirm lands.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping

from beads.config import MergeStrategy
from beads.lifecycle import EffectState
from beads.values import moment
from refinery.core import effects
from refinery.core.actions import Action, AskHost, CloseEntry, Decision, Escalate, NewHead
from refinery.core.entryviews import EntryView
from refinery.core.gating import results_on
from refinery.core.order import in_queue_order, is_feature_lane
from refinery.core.pullviews import HostView, Opinion, Pull, PullState, PullView, Review
from refinery.core.reasons import Exit
from refinery.core.rules import needs
from refinery.core.stages import Stage
from refinery.core.standing import phase_of, stands
from refinery.core.states import EntryKind, GateOutcome, LandingState
from refinery.core.world import RigView, World

HOST = "pr-host:"  # the key of the need that a rig's host cannot be asked
PATIENCE = 3  # so many tries in a row before people are told of what may go by itself
OVERALL, CONTEXT = "gastown", 100  # the status of the change itself; characters of the name of one
TELL_EVERY = dt.timedelta(seconds=30)  # our comment is changed at most so often, but for an end or an answer
_STATES = {GateOutcome.PASS: "success", GateOutcome.FAIL: "failure", GateOutcome.ERROR: "error"}
_BAD = frozenset({Stage.GATE_FAILED, Stage.CONFLICT, Stage.UNFIT, Stage.CHANGES_REQUESTED, Stage.NOTHING})
_GREEN = frozenset({Stage.NEEDS_APPROVAL, Stage.MERGE_DELAY, Stage.GREEN, Stage.LANDING, Stage.LANDED})
Ask = tuple[str, str, effects.OfHost]


def decide(world: World) -> Iterator[Decision]:
    """For each rig with a host: one decision about it, one for each entry to be offered, one for each pull request."""
    for rig in world.rigs.values():
        if rig.host is None:
            yield from _without(world, rig)
            continue
        yield _host(world, rig, rig.host)
        if rig.host.trouble or rig.problems:
            continue
        rows = [row for row in world.pulls if row.rig == rig.id]
        shown = {row.entry for row in rows}
        for entry in world.entries:
            if entry.rig == rig.id and entry.id not in shown and _is_offered(entry, rig):
                why = "people are to see it as a pull request"
                yield _asks(world, f"offer {entry.id}", rig, ("offer", why, effects.OfferPull(entry.id)))
        for row in rows:
            yield _one(world, rig, row)


def _asks(world: World, subject: str, rig: RigView, ask: Ask) -> Decision:
    """The host is asked, unless it is being asked; what it has refused for good is not asked again by itself."""
    rule, why, work = ask
    known = world.effects.get(work.key)
    if known is None and world.behind:
        return Decision(subject, rule, why)  # its answer may be among the facts that wait
    if known is None:
        return Decision(subject, rule, why, (AskHost(rig.id, work),))
    if known.state == EffectState.PENDING:
        return Decision(subject, rule, known.trouble(why, world.now) or why)
    return Decision(subject, f"{rule}-refused", f"{why}, which failed: {known.error}")


def _was_refused(world: World, ask: Ask) -> bool:
    known = world.effects.get(ask[2].key)
    return known is not None and known.state == EffectState.FAILED


# -- the host --


def _host(world: World, rig: RigView, host: HostView) -> Decision:
    subject, key = f"host {rig.slug}", HOST + rig.slug
    if host.trouble and host.next_try_at is not None and world.now < host.next_try_at:
        why = f"{host.trouble}; asked again at {moment(host.next_try_at, world.now)}"
        return Decision(subject, "host-unknown", why, _told(world, rig, host, why))
    over: tuple[Action, ...] = ()
    if not host.trouble and not host.failures:  # a look that works says not yet that all else does
        over = needs.settled(world, key, "it answers again")
    every = rig.config.pr.poll_interval
    if not host.trouble and host.polled_at is not None and world.now < host.polled_at + every:
        return Decision(subject, "host-known", f"looked at {moment(host.polled_at, world.now)}", over)
    asked = _asks(world, subject, rig, ("look", "it is looked at what has changed", effects.PollHost(rig.id)))
    return Decision(subject, asked.rule, asked.why, (*over, *asked.actions))


def _told(world: World, rig: RigView, host: HostView, why: str) -> tuple[Action, ...]:
    """One need for what a person has to mend at once, or for what lasts."""
    if host.kind not in ("denied", "forbidden", "gone") and host.failures < PATIENCE:
        return ()
    title = f"Rig {rig.slug}: its pull requests cannot be read: {host.trouble}"[:300]
    text = f"{why}.\n\nNothing is approved, merged or closed meanwhile; what was begun goes on when it answers again."
    if host.kind in ("denied", "forbidden"):
        name = rig.config.pr.credential or "NAME"
        text += f"\n\nWhat to do: gastown secret set {name} (a token that may write contents, pull requests, statuses)."
    return needs.raised(world, Escalate(HOST + rig.slug, title, text, "high"))


def _without(world: World, rig: RigView) -> Iterator[Decision]:
    """A rig whose reviews are on no host any more has no trouble with one."""
    why = "its changes are not reviewed there any more"
    if over := needs.settled(world, HOST + rig.slug, why):
        yield Decision(f"host {rig.slug}", "host-left", why, over)


# -- pull requests --


def _is_offered(entry: EntryView, rig: RigView) -> bool:
    """True for what people are to review on the host."""
    by_people = rig.config.refinery.merge_strategy == MergeStrategy.PR
    begun = entry.landing is not None and entry.landing.under_way
    if entry.kind == EntryKind.CHECK or is_feature_lane(entry) or entry.branch.startswith("refs/"):  # of a fork
        return False
    return by_people and entry.on_remote and not begun


def _one(world: World, rig: RigView, row: PullView) -> Decision:
    subject = f"pull {rig.slug}#{row.number}"
    pull = row.pull
    if pull is None or not row.known:
        why = "something was heard of it: it is read"
        return _asks(world, subject, rig, ("read", why, effects.ReadPull(rig.id, row.number)))
    entry = world.entry.get(row.entry)
    if entry is not None:
        if (moved := _moved(world, subject, rig, row, pull, entry)) is not None:
            return moved
        if (outside := _merged_there(subject, row, pull, entry)) is not None:
            return outside
    asks = [*_to_hear(row, pull, entry), *_to_report(world, rig, row, pull, entry), *_to_tell(world, row, entry)]
    if not asks and entry is None:
        asks = [*_to_end(row, pull)]
    for ask in asks:  # what the host has refused for good keeps nothing else from being done
        if not _was_refused(world, ask):
            return _asks(world, subject, rig, ask)
    if asks:
        return _asks(world, subject, rig, asks[0])
    return Decision(subject, "pull-known", f"{pull.state} at {pull.head[:12]}; everything is said")


def source_of(pull: Pull, repository: str) -> str:
    """The name of where a pull request's head is in the repository: its branch, or of a fork's the host's own ref."""
    return pull.branch if pull.head_repo == repository else f"refs/pull/{pull.number}/head"


def _is_behind(world: World, rig: RigView, row: PullView, pull: Pull, entry: EntryView) -> bool:
    """True when a round of rework is ahead of a pull request whose branch we do not push to: one of a fork, and one
    that others land on, where it would be there without any gate."""
    if pull.head == entry.head or pull.head != row.head or pull.state != PullState.OPEN:
        return False
    landed_on = {rig.default_branch, *(other.target for other in world.entries if other.rig == rig.id)}
    landed_on |= {branch.name for convoy in world.convoys for branch in convoy.branches if branch.rig == rig.id}
    return pull.head_repo != rig.repository or pull.branch in landed_on


def _moved(world: World, subject: str, rig: RigView, row: PullView, pull: Pull, entry: EntryView) -> Decision | None:
    """Its head and the entry's differ: one of the two is newer, as what they last had in common tells."""
    busy = entry.landing is not None and entry.landing.under_way
    if pull.head == entry.head or pull.state != PullState.OPEN or busy:
        return None
    if _is_behind(world, rig, row, pull, entry):
        return None  # what is said there is heard all the same, and answered
    if pull.head == row.head:
        why = "what a round of rework has made is pushed to it"
        return _asks(world, subject, rig, ("push", why, effects.PushPull(row.id, pull.head, entry.head)))
    if entry.waiting_for:
        return Decision(subject, "head-moved", "it has a newer head, taken in once the rework is done")
    why = "somebody has pushed to it"
    branch = source_of(pull, rig.repository)
    return Decision(subject, "head-moved", why, (NewHead(entry.id, entry.head, pull.head, branch, why),))


def _merged_there(subject: str, row: PullView, pull: Pull, entry: EntryView) -> Decision | None:
    """Somebody has merged it on the host, and git shows that commit on the target."""
    landing = entry.landing
    if pull.state != PullState.MERGED or not pull.on_target or pull.head != entry.head:
        return None
    if landing is not None and (landing.begun or landing.state == LandingState.INTENT):
        return None  # git decides
    why = f"merged on its host as {pull.merge_sha[:12]}"
    closed = CloseEntry(entry.id, "merged", Exit.ALREADY_MERGED, why, pull.merge_sha, delete_branch=False)
    return Decision(subject, "merged-outside", why, (closed,))


def counts(review: Review, pull: Pull) -> bool:
    """True for a review by somebody who may write there and has not made the change. What somebody may is not known
    counts for nothing."""
    return review.right.writes and not has_made(review.by, pull)


def has_made(login: str, pull: Pull) -> bool:
    """True for an author of a pull request or of one of its commits, and for everybody where these are not known."""
    return not pull.authors_known or login.lower() in {one.lower() for one in (pull.author, *pull.authors)}


def _to_hear(row: PullView, pull: Pull, entry: EntryView | None) -> Iterator[Ask]:
    """What was said there and not taken in yet, in its order."""
    last = int(row.heard.get("c") or 0)
    for said in sorted(pull.commands, key=lambda c: c.id):
        if said.id > last:
            work = effects.HearPull(row.id, "c", str(said.id))
            yield "command", f"{said.by} has written {said.body[:60]!r}", work
    for review in pull.reviews if entry is not None else ():
        before = row.heard.get(f"r{review.id}")
        gone = review.opinion == Opinion.DISMISSED and before is None
        if before != review.opinion and counts(review, pull) and not gone:
            work = effects.HearPull(row.id, f"r{review.id}", review.opinion)
            yield "review", f"{review.by} has reviewed it: {review.opinion}", work


def digest(*parts: object) -> str:
    """What stands for a thing that is said."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _to_report(world: World, rig: RigView, row: PullView, pull: Pull, entry: EntryView | None) -> Iterator[Ask]:
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


def _to_tell(world: World, row: PullView, entry: EntryView | None) -> Iterator[Ask]:
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
        if row.pull is not None and _is_behind(world, world.rigs[row.rig], row, row.pull, entry):
            behind += ("A round of rework is ahead of this branch, which Gastown does not push to: review it there.",)
        return (f"{stage}: {stands(world, entry).why}", *behind, *said)
    if not row.outcome:
        return said
    if row.merge_sha:
        return (f"landed as {row.merge_sha}: {row.outcome_text}", *said)
    return (f"has left the queue ({row.outcome.replace('_', ' ')}): {row.outcome_text}", *said)


def _to_end(row: PullView, pull: Pull) -> Iterator[Ask]:
    """It is over: its change has landed, was withdrawn, or it was closed there. Of others' pull requests we close only
    what has landed."""
    over = pull.state != PullState.OPEN
    ours = row.offered and row.outcome in (Exit.REJECTED, Exit.CANCELLED)
    if over or row.merge_sha or ours:
        yield "end", "it is over", effects.EndPull(row.id)
