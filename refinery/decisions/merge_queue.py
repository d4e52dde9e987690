"""What people decide about the merge queue: what enters it, goes first, leaves it, and which lanes stand still."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

from django.db import transaction
from django.utils import timezone

from agents.models import Run
from agents.runtime.names import check_branch, check_source
from beads import config as configs
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.lifecycle import BeadStatus, BeadType, is_final
from beads.models import Bead, Rig, TownRole
from refinery.core.states import EntryKind, EntryState
from refinery.decisions.guards import must_be_active, must_be_head, must_not_have_moved, reading_remote
from refinery.decisions.verbs import Heard, Hint, Offer, Outcome, Page, Shell, verb
from refinery.git.mirror import repo_of
from refinery.models import Lane, ReviewEntry
from refinery.store import emergencies, entries, lanes


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be enqueued: a branch that is on the rig's remote (or a pull request's own ref there). Without a
    `target` it is for the rig's default branch; without a `title` it has that of its bead or of its commits. `author`:
    who made the change, where that is not whoever enqueues it; `head`: it must be there."""

    branch: str
    target: str | None = None
    title: str | None = None
    bead: Bead | None = None
    priority: int = 2
    author: str = ""
    head: str = ""


def submit(rig: Rig, wanted: Submission, *, by: Actor) -> tuple[ReviewEntry, bool]:
    """Enqueue an existing remote branch; returns the entry and whether it is new."""
    bead, priority = wanted.bead, wanted.priority
    branch = check_source(wanted.branch, "branch")
    target = check_branch(wanted.target or rig.default_branch, "target")
    if branch == target:
        raise Invalid("branch and target are the same", field="branch")
    if not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    found = configs.usable(rig.town.config, rig.config)[1]
    if found:
        raise Invalid(found[0], field="config")
    if bead is not None:
        if bead.type != BeadType.ISSUE or bead.rig_id != rig.pk:
            raise Invalid(f"{bead.pk} is not an issue of rig {rig.slug}", field="bead")
        if is_final(bead.status):
            raise Conflict(f"{bead.pk} is {bead.status} already")
        if Run.objects.live().filter(bead=bead).exists():
            raise Conflict(f"{bead.pk} is being worked on by an agent")
    with reading_remote(rig):
        repo = repo_of(rig)
        head = repo.ls_remote(rig.remote_url, branch)
        if head is None:
            raise Invalid(f"rig {rig.slug} has no branch {branch} on its remote", field="branch")
        if wanted.head and head != wanted.head:
            raise Conflict(f"the head moved: it is {head[:12]}, not {wanted.head[:12]}", details={"head": head})
        onto = repo.ls_remote(rig.remote_url, target)
        if onto is None:
            raise Invalid(f"rig {rig.slug} has no branch {target} on its remote", field="target")
        repo.fetch_sha(rig.remote_url, head, branch)
        title = wanted.title or (bead.title if bead else "")
        if not title:
            repo.fetch_sha(rig.remote_url, onto, target)
            title = repo.title(onto, head) or f"Merge {branch}"
    with transaction.atomic():
        made = entries.submit(
            rig,
            entries.NewEntry(
                branch=branch,
                head=head,
                target=target,
                title=title[:300].strip() or branch,
                author=wanted.author or str(by),
                priority=priority,
                source=bead,
            ),
        )
        inbox.wake(rig.town)
    return made


Priority = Annotated[int, Hint("0 (urgent: the train starts again behind) to 4")]
Until = Annotated[dt.datetime | None, Hint("ISO 8601, with a time zone", metavar="TIME")]


def _is_waiting(entry: ReviewEntry) -> bool:
    """True for a change (a check is none) that has not ended."""
    return entry.kind != EntryKind.CHECK and entry.state == EntryState.ACTIVE


@verb(
    ReviewEntry,
    "retry",
    role=TownRole.REVIEWER,
    offer=Offer(
        "Retry: clear the hold, or bring it back",
        when=lambda entry: (entry.kind != EntryKind.CHECK and entry.state == EntryState.FAILED) or bool(entry.held),
    ),
    shell=Shell("clear a hold, or bring a failed entry back", "{id} is being retried"),
    page=Page(),
)
def retry_entry(entry: ReviewEntry, *, by: Actor, reason: Heard = "") -> bool:
    """Clear an entry's hold, or bring a failed one back. False while that was said and is not carried out yet."""
    if entry.state == EntryState.MERGED or (entry.kind == EntryKind.CHECK and entry.state != EntryState.ACTIVE):
        raise Conflict(f"{entry.pk} {entry.ended}")
    working = entry.bead.blocked_by.filter(on__parent=entry.pk).exclude(on__status=BeadStatus.CLOSED)
    if entry.state == EntryState.ACTIVE and not entry.held and not working.exists():
        raise Conflict(f"{entry.pk} is not held: there is nothing to retry")
    with transaction.atomic():
        ledger.lock_town(entry.rig.town)
        return inbox.record_once(entry.rig.town, "entry.retry", entry.pk, {"reason": reason}, actor=by)


@verb(
    ReviewEntry,
    "requeue",
    offer=Offer(
        "Requeue: begin anew",
        "It gets off its lane's train and on again behind the others, built and gated anew.",
        lambda entry: entry.state == EntryState.ACTIVE and entry.admitted_at is not None,
    ),
)
def requeue(entry: ReviewEntry, *, by: Actor, reason: str = "") -> None:
    """Take a car out of its lane's train; it is built and gated anew when its turn comes again, behind the others."""
    must_be_active(entry)
    if entry.admitted_at is None:
        raise Conflict(f"{entry.pk} is in no train: it waits in the queue already")
    if entry.landings.pushing().exists():
        raise Conflict(f"{entry.pk} is being pushed right now")
    inbox.record(entry.rig.town, "entry.requeue", entry.pk, {"reason": reason}, actor=by)


@verb(
    ReviewEntry,
    "promote",
    offer=Offer(
        "Promote to the front",
        "Its priority becomes 0. It goes ahead of all that is not being pushed.",
        lambda entry: _is_waiting(entry) and entry.bead.priority != 0,
    ),
    shell=Shell(
        "let it go before others",
        "{id} has priority {priority} from the next tick on",
        lambda outcome: {"priority": outcome.values["priority"]},
    ),
)
def promote(entry: ReviewEntry, *, by: Actor, reason: str = "", priority: Priority = 0) -> None:
    """Let an entry go before others: 0 is first."""
    must_be_active(entry)
    if not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    if entry.bead.priority == priority:
        raise Conflict(f"{entry.pk} has priority {priority} already")
    told = {"priority": priority, "reason": reason}
    inbox.record(entry.rig.town, "entry.promote", entry.pk, told, actor=by)


@verb(
    ReviewEntry,
    "reject",
    role=TownRole.REVIEWER,
    offer=Offer("Reject for good", when=_is_waiting),
    shell=Shell("take it out for good", "{id} is rejected"),
    page=Page(),
)
def reject(entry: ReviewEntry, *, by: Actor, reason: str) -> None:
    """Take an entry out of the queue for good. Said twice, it is said once."""
    if entry.state == EntryState.FAILED and entry.reason == "rejected":
        return
    must_be_active(entry)
    reason = ledger.check_text("reason", reason, 2000, required=True)
    if not entry.reject_requested:
        inbox.record(entry.rig.town, "entry.reject", entry.pk, {"reason": reason}, actor=by)


def _said(outcome: Outcome) -> str:
    entry = outcome.row
    if not outcome.answer:
        return f"{entry.pk} goes first already"
    told = ""
    if outcome.values["skip_gates"]:
        told = f" without its gates, at exactly {entry.head_sha[:12]}"
    return f"{entry.pk} goes to the front of the train{told}"


@verb(
    ReviewEntry,
    "land-now",
    offer=Offer(
        "Land now: an emergency",
        "It goes to the front of the train, gated and reviewed as ever; the train starts again behind it.",
        lambda entry: _is_waiting(entry) and entry.land_now_at is None,
    ),
    shell=Shell(
        "an emergency: to the front of the train",
        _said,
        lambda outcome: {"skip_gates": outcome.values["skip_gates"], "new": outcome.answer},
    ),
    page=Page("Recorded: it goes to the front of the train.", "It goes first already."),
)
def land_now(
    entry: ReviewEntry,
    *,
    by: Actor,
    reason: str,
    skip_gates: Annotated[bool, Hint("land this head without its gates, in your name")] = False,
    head: Annotated[str | None, Hint(shell=False)] = None,
) -> bool:
    """The emergency lane: to the front of the train, gated and reviewed as ever. False when that was said before.

    `skip_gates`: exactly this head lands without its gates, in the name of `by`, which its landing says for ever.
    Whoever opens this door for a person has asked whether they may. It is carried out here, under the town's lock, so
    that what is answered is what happens; the fact is its history and the wake-up. Raises Conflict when the entry has
    left the queue, its head has moved, or it waits for something that no waiver lifts.
    """
    must_be_active(entry)
    must_be_head(entry, head)
    reason = ledger.check_text("reason", reason, 2000, required=True)
    if skip_gates:
        must_not_have_moved(entry)
    with transaction.atomic():
        ledger.lock_town(entry.rig.town)
        seen = entry.head_sha
        entry = ReviewEntry.objects.select_related("bead", "source", "rig__town").get(pk=entry.pk)
        must_be_active(entry)
        must_be_head(entry, seen)
        if entry.landings.pushing().exists():
            raise Conflict(f"{entry.pk} is being pushed right now")
        waived = entry.waivers.filter(head_sha=entry.head_sha).exists()
        if entry.land_now_at is not None and not entry.held and (waived or not skip_gates):
            return False
        if skip_gates:
            emergencies.check_head(entry)
        emergencies.carry_out(entry, str(by), reason, timezone.now(), head=entry.head_sha, skip_gates=skip_gates)
        told = {"reason": reason, "skip_gates": skip_gates, "head": entry.head_sha, "carried_out": True}
        return inbox.record(entry.rig.town, "entry.land_now", entry.pk, told, actor=by)


@verb(
    ReviewEntry,
    "skip-gates",
    offer=Offer(
        "Land now WITHOUT its gates",
        "This head lands although its gates have not passed. Your name and reason stay with its landing.",
        lambda entry: _is_waiting(entry) and not entry.waivers.filter(head_sha=entry.head_sha).exists(),
    ),
)
def land_without_gates(entry: ReviewEntry, *, by: Actor, reason: str) -> bool:
    """`land_now`, with its gates skipped."""
    return land_now(entry, by=by, reason=reason, skip_gates=True)


@verb(
    Rig,
    "freeze",
    offer=Offer(
        "Freeze its default lane",
        "Nothing is admitted to it and nothing lands in it until it is thawed.",
        lambda rig: not rig.lanes.filter(target=rig.default_branch, frozen_at__isnull=False).exists(),
        name="freeze_lane",
    ),
    shell=Shell(
        "let nothing into a lane, and nothing land in it",
        "lane {rig} {target} is frozen",
        lambda outcome: {"target": outcome.answer, "frozen": True},
        command="mq",
    ),
)
def freeze(rig: Rig, *, by: Actor, reason: str, target: str | None = None, until: Until = None) -> str:
    """Let nothing be admitted to or land in a lane, until it is thawed or `until` has come; returns its target."""
    target = check_branch(target or rig.default_branch, "target")
    reason = ledger.check_text("reason", reason, 300, required=True)
    if until is not None and until <= timezone.now():
        raise Invalid("until is in the past", field="until")
    with transaction.atomic():
        ledger.lock_town(rig.town)
        lanes.freeze(rig, target, reason, str(by), timezone.now(), until)
        inbox.record(rig.town, "lane.freeze", rig.slug, {"reason": f"{target}: {reason}"}, actor=by)
    return target


@verb(
    Rig,
    "thaw",
    shell=Shell(
        "undo freeze",
        "lane {rig} {target} goes on",
        lambda outcome: {"target": outcome.answer, "frozen": False},
        command="mq",
    ),
)
def thaw(rig: Rig, *, by: Actor, reason: str = "", target: str | None = None) -> str:
    """Undo `freeze`; returns the lane's target."""
    target = check_branch(target or rig.default_branch, "target")
    with transaction.atomic():
        ledger.lock_town(rig.town)
        lanes.thaw(rig, target)
        told = target
        if reason:
            told += f": {reason}"
        inbox.record(rig.town, "lane.thaw", rig.slug, {"reason": told}, actor=by)
    return target


@verb(Lane, "thaw", offer=Offer("Thaw", when=lambda lane: lane.frozen_at is not None))
def thaw_lane(lane: Lane, *, by: Actor, reason: str = "") -> str:
    """`thaw`, of this lane."""
    return thaw(lane.rig, by=by, reason=reason, target=lane.target)
