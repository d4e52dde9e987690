"""Rules for pull requests on a rig's host: when it is asked, what is offered, taken in, said and closed there. Pure.

What counts is what the host has answered; a hook, a look at what has changed and our own acts only make us read. While
the host cannot be asked nothing is begun but the next look, and nothing that it would have to confirm lands.
"""

from __future__ import annotations

from collections.abc import Iterator

from beads.config import MergeStrategy
from beads.lifecycle import EffectState
from beads.values import moment
from refinery.core import effects
from refinery.core.actions import Action, AskHost, CloseEntry, Decision, Escalate, NewHead
from refinery.core.entryviews import EntryView
from refinery.core.order import is_feature_lane
from refinery.core.pullviews import HostView, Opinion, Pull, PullState, PullView, Review
from refinery.core.reasons import Exit
from refinery.core.rules import needs
from refinery.core.rules.pullreports import Ask, is_behind, source_of, to_report, to_tell
from refinery.core.states import EntryKind, LandingState
from refinery.core.world import RigView, World

HOST = "pr-host:"  # the key of the need that a rig's host cannot be asked
PATIENCE = 3  # so many tries in a row before people are told of what may go by itself


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
    asks = [*_to_hear(row, pull, entry), *to_report(world, rig, row, pull, entry), *to_tell(world, row, entry)]
    if not asks and entry is None:
        asks = [*_to_end(row, pull)]
    for ask in asks:  # what the host has refused for good keeps nothing else from being done
        if not _was_refused(world, ask):
            return _asks(world, subject, rig, ask)
    if asks:
        return _asks(world, subject, rig, asks[0])
    return Decision(subject, "pull-known", f"{pull.state} at {pull.head[:12]}; everything is said")


def _moved(world: World, subject: str, rig: RigView, row: PullView, pull: Pull, entry: EntryView) -> Decision | None:
    """Its head and the entry's differ: one of the two is newer, as what they last had in common tells."""
    busy = entry.landing is not None and entry.landing.under_way
    if pull.head == entry.head or pull.state != PullState.OPEN or busy:
        return None
    if is_behind(world, rig, row, pull, entry):
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


def _to_end(row: PullView, pull: Pull) -> Iterator[Ask]:
    """It is over: its change has landed, was withdrawn, or it was closed there. Of others' pull requests we close only
    what has landed."""
    over = pull.state != PullState.OPEN
    ours = row.offered and row.outcome in (Exit.REJECTED, Exit.CANCELLED)
    if over or row.merge_sha or ours:
        yield "end", "it is over", effects.EndPull(row.id)
