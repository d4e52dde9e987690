"""The only writer of review entries.

Decisions compare and swap on the state they were decided on (`LostRace` otherwise); observations only ever add.
Doors: `submit` makes a new entry in its first state; everything later is the tick's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from beads import ledger, prune
from beads.errors import Conflict, LostRace
from beads.lifecycle import BeadStatus, BeadType, Purpose, Resolution
from beads.models import Bead, Convoy, Rig
from refinery.core.reasons import Exit, Held
from refinery.core.states import EntryKind, EntryState
from refinery.models import ReviewEntry, Verdict
from refinery.store import landings, lanes

OFF: dict[str, Any] = {"admitted_at": None, "slot": None, "batch": None}  # what leaving the train sets
_UNANSWERED: dict[str, Any] = {"answered_head": "", "answered_to": None, "answer": ""}


_ENDS = {
    "superseded": Resolution.SUPERSEDED,
    "cancelled": Resolution.CANCELLED,
    "nothing_changed": Resolution.NOTHING_CHANGED,
}


@dataclass(frozen=True)
class NewEntry:
    """What is offered for review: `head` of `branch` for `target`. `source`: the bead that it is the work of;
    `on_remote`: False when the branch is in the rig's mirror only."""

    branch: str
    head: str
    target: str
    title: str
    author: str
    priority: int = 2
    source: Bead | None = None
    convoy: Convoy | None = None
    kind: str = "change"
    on_remote: bool = True

    @property
    def depth(self) -> int:
        """How far from a person's bead it is: as far as what it is made for."""
        return max(
            self.source.depth if self.source else 0,
            self.convoy.bead.depth if self.convoy else 0,
        )


def submit(rig: Rig, new: NewEntry) -> tuple[ReviewEntry, bool]:
    """Enqueue `new`; returns the entry and whether it was made now.

    The same head again gives the same entry; a new head supersedes the older entry of the branch or source. Takes
    the town's lock, so two processes at once make one entry. Raises Conflict when the older one is being pushed.
    """
    with transaction.atomic():
        ledger.lock_town(rig.town)
        active = ReviewEntry.objects.active().filter(rig=rig)
        older = list(active.filter(target=new.target, branch=new.branch))
        if new.source is not None:
            older += [e for e in active.filter(source=new.source) if e not in older]
        for entry in older:
            if (entry.head_sha, entry.branch, entry.target) == (new.head, new.branch, new.target):
                if entry.observed_head and entry.observed_head != new.head:
                    ReviewEntry.objects.filter(pk=entry.pk).update(observed_head="")
                return entry, False
        for entry in older:
            if entry.landings.pushing().exists():
                raise Conflict(
                    f"{entry.pk} is being pushed right now: submit again in a moment",
                    details={"entry": entry.pk},
                )
        bead = ledger.create_bead(
            rig.town,
            rig,
            ledger.Draft(new.title, type=BeadType.MERGE_REQUEST, priority=new.priority, depth=new.depth),
            actor=new.author,
        )
        for entry in older:
            landings.abandon_intents(entry, bead.created_at)
            close(entry, "failed", "superseded", f"superseded by {bead.pk} at {new.head[:12]}", now=bead.created_at)
        made = ReviewEntry.objects.create(
            bead=bead,
            rig=rig,
            convoy=new.convoy,
            kind=new.kind,
            source=new.source,
            author=new.author[:100],
            branch=new.branch,
            on_remote=new.on_remote,
            head_sha=new.head,
            target=new.target,
        )
        for entry in older:
            ReviewEntry.objects.filter(pk=entry.pk).update(superseded_by=made)
        if new.source is not None:
            ledger.note(new.source, "review_submitted", new.author, entry=bead.pk, head=new.head, branch=new.branch)
    return made, True


def open_check(rig: Rig, target: str, actor: str) -> tuple[ReviewEntry, bool]:
    """Put a lane's target before its gates; returns the check and whether it is new: a lane has one at a time.

    Takes the town's lock. What the target's head is, its build tells.
    """
    with transaction.atomic():
        ledger.lock_town(rig.town)
        active = ReviewEntry.objects.active().filter(rig=rig, target=target, kind=EntryKind.CHECK).first()
        if active is not None:
            return active, False
        title = f"Gates of {rig.slug} on {target}"
        bead = ledger.create_bead(rig.town, rig, ledger.Draft(title[:300], type=BeadType.MERGE_REQUEST), actor=actor)
        made = ReviewEntry.objects.create(
            bead=bead, rig=rig, kind=EntryKind.CHECK, author=actor[:100], branch=target, head_sha="", target=target
        )
    return made, True


def check_anew(entry_id: str, build_no: int) -> int:
    """Fetch a check's target again; returns the number of the build to make. Its hold is lifted."""
    _swap(
        entry_id,
        {"kind": "check", "build_no": build_no},
        build_no=build_no + 1,
        observed_head="",
        held="",
        held_text="",
    )
    return build_no + 1


def target_seen(rig: Rig, target: str, sha: str) -> None:
    """Observation: where a lane's target is. Its check is of the head that it has been given."""
    checks = ReviewEntry.objects.active().filter(rig=rig, target=target, kind=EntryKind.CHECK).exclude(head_sha="")
    checks.exclude(head_sha=sha).exclude(observed_head=sha).update(observed_head=sha)
    checks.filter(head_sha=sha).exclude(observed_head="").update(observed_head="")


def _swap(entry_id: str, expect: Mapping[str, Any], **change: Any) -> None:
    """Compare and swap on an active entry."""
    if ReviewEntry.objects.active().filter(pk=entry_id, **expect).update(**change) != 1:
        raise LostRace(f"review entry {entry_id} is no longer as it was decided on")


def admit(entry_id: str, build_no: int, slot: float, now: dt.datetime, batch: int | None = None) -> int:
    """Make an entry a car of its lane's train; returns the number of the build to make."""
    _swap(
        entry_id,
        {"admitted_at": None, "build_no": build_no},
        admitted_at=now,
        slot=slot,
        batch=batch,
        build_no=build_no + 1,
        attempts=F("attempts") + 1,
        land_retries=0,
    )
    return build_no + 1


def prove(entry_id: str, build_no: int) -> int:
    """Build an entry that is no car; returns the number of the build to make."""
    _swap(entry_id, {"admitted_at": None, "build_no": build_no}, build_no=build_no + 1)
    return build_no + 1


def regroup(expect: int, places: Sequence[tuple[str, int, float | None]]) -> None:
    """Cut a batch again: each entry's new batch number and, unless it stays, slot. LostRace when one has left it."""
    for entry_id, batch, slot in places:
        _swap(entry_id, {"batch": expect}, batch=batch, **({} if slot is None else {"slot": slot}))


def leave(entry_id: str, *, innocent: bool = False) -> None:
    """Leave the train. `innocent`: having been in it does not count as an attempt."""
    back = {}
    if innocent:
        back = {"attempts": F("attempts") - 1}
    _swap(entry_id, {"admitted_at__isnull": False}, **OFF, **back)


def retarget(rig: Rig, old: str, new: str, who: str) -> int:
    """What is queued for branch `old` of a rig, and is not being pushed, is for `new` from now on; returns how many.
    What is offered for `new` from the same branch stays where it is. Under the town's lock."""
    active = ReviewEntry.objects.active().filter(rig=rig)
    taken = set(active.filter(target=new).values_list("branch", flat=True))
    moved = 0
    for entry in active.filter(target=old).exclude(branch__in=taken | {new}):
        if entry.landings.pushing().exists():
            continue
        landings.abandon_intents(entry, timezone.now())
        _swap(entry.pk, {"target": old}, target=new, build_no=F("build_no") + 1, **OFF)
        ledger.note(entry.bead, "retargeted", who, f"its target {old} is {new} from now on")
        moved += 1
    lanes.rename(rig, old, new)
    return moved


def rebuild(entry_id: str, build_no: int, *, counts: bool) -> int:
    """Build the admitted entry again; returns the number of the build to make. `counts`: its landing is retried."""
    _swap(
        entry_id,
        {"admitted_at__isnull": False, "build_no": build_no},
        build_no=build_no + 1,
        land_retries=F("land_retries") + (1 if counts else 0),
    )
    return build_no + 1


def new_head(entry_id: str, expect: str, head: str, branch: str, *, on_remote: bool = True) -> None:
    """Pin a new head: what was built of the old one no longer counts."""
    _swap(
        entry_id,
        {"head_sha": expect},
        head_sha=head,
        branch=branch,
        on_remote=on_remote,
        observed_head="",
        held="",
        held_text="",
        **_UNANSWERED,
        build_no=F("build_no") + 1,
    )


def on_branch(entry_id: str, head: str, branch: str) -> None:
    """Observation: the same head is on another branch, whose moves count from now on."""
    ReviewEntry.objects.active().filter(pk=entry_id, head_sha=head).update(branch=branch)


def answered(entry_id: str, head: str, answer: str) -> None:
    """Its author has given this head back as it was, with an answer to all that was said of it until now."""
    latest = Verdict.objects.filter(entry=entry_id).last()
    _swap(entry_id, {"head_sha": head}, answered_head=head, answered_to=latest, answer=answer)


def count_rework(entry_id: str, purpose: str) -> None:
    """Count a round of rework or a conflict task; the entry leaves its slot."""
    field = "rework_count"
    if purpose == Purpose.CONFLICT:
        field = "conflict_count"
    _swap(entry_id, {"held": ""}, **OFF, **{field: F(field) + 1})


def hold(entry_id: str, code: str, text: str) -> None:
    """Let an entry wait for a person, with a `reasons.Held`; it leaves its slot."""
    _swap(entry_id, {"held": ""}, held=Held(code), held_text=text, **OFF)


def close(entry: ReviewEntry, state: str, reason: str, text: str, *, now: dt.datetime, merge_sha: str = "") -> None:
    """End an entry, with a `reasons.Exit`, and its merge-request bead together."""
    _swap(
        entry.pk,
        {},
        state=state,
        reason=Exit(reason),
        reason_text=text,
        merge_sha=merge_sha,
        **OFF,
        held="",
        held_text="",
        closed_at=now,
    )
    bead = Bead.objects.get(pk=entry.pk)
    if state == EntryState.CHECKED:
        to, resolution = BeadStatus.CLOSED, Resolution.DONE
    elif state == EntryState.MERGED:
        resolution = Resolution.ALREADY_MERGED if reason == "already_merged" else Resolution.MERGED
        to = BeadStatus.CLOSED
    else:
        to = BeadStatus.FAILED
        resolution = _ENDS.get(reason, Resolution.GAVE_UP)
    ledger.move(
        bead,
        bead.status,
        ledger.Transition(to, reason=text, resolution=resolution, merge_sha=merge_sha),
        actor="refinery",
        now=now,
    )


def reopen(entry: ReviewEntry, now: dt.datetime, actor: str) -> None:
    """A person's retry: clear the hold of an active entry, or bring a failed one back. Raises Conflict.

    Gate results and attempts before `now` no longer count. History keeps the failed end as it was.
    """
    fresh: dict[str, Any] = {
        "held": "",
        "held_text": "",
        "gates_again_at": now,
        "rework_count": 0,
        "conflict_count": 0,
        "reject_requested": "",
        **_UNANSWERED,
    }
    if entry.kind == EntryKind.CHECK:
        _swap(entry.pk, {}, **fresh, observed_head="", build_no=F("build_no") + 1)
        return
    if entry.state == EntryState.ACTIVE:
        _swap(entry.pk, {"admitted_at": entry.admitted_at}, **fresh)
        return
    if entry.state == EntryState.MERGED:
        raise Conflict(f"{entry.pk} is merged")
    if entry.source and entry.source.status == BeadStatus.CLOSED:
        raise Conflict(f"its bead {entry.source_id} is closed ({entry.source.resolution})")
    same = ReviewEntry.objects.active().filter(rig=entry.rig, target=entry.target, branch=entry.branch)
    if same.exists() or (entry.source and ReviewEntry.objects.active().filter(source=entry.source).exists()):
        raise Conflict(f"another entry for {entry.branch} is active")
    changed = (
        ReviewEntry.objects.failed()
        .filter(pk=entry.pk)
        .update(state=EntryState.ACTIVE, reason="", reason_text="", closed_at=None, superseded_by=None, **fresh)
    )
    if changed != 1:
        raise LostRace(f"{entry.pk} is no longer failed")
    for task in entry.bead.blocked_by.select_related("on").filter(on__status=BeadStatus.FAILED):
        ledger.unblock(entry.bead, task.on, actor, "retried without it")
    ledger.move(
        entry.bead, BeadStatus.FAILED, ledger.Transition(BeadStatus.OPEN, reason="retried"), actor=actor, now=now
    )
    if entry.source and entry.source.status == BeadStatus.FAILED:
        ledger.move(
            entry.source, BeadStatus.FAILED, ledger.Transition(BeadStatus.OPEN, reason="retried"), actor=actor, now=now
        )


def request_reject(entry: ReviewEntry, reason: str) -> None:
    """Set a person's wish to reject; the tick decides."""
    ReviewEntry.objects.active().filter(pk=entry.pk).update(reject_requested=reason or "rejected")


def requeue(entry: ReviewEntry, now: dt.datetime) -> None:
    """A person's wish: leave the train, and be built and gated again at the next turn.

    Raises LostRace when the push has begun, or the entry is no car of a train.
    """
    landings.abandon_intents(entry, now)
    if entry.landings.pushing().exists():
        raise LostRace(f"{entry.pk} is being pushed")
    _swap(entry.pk, {"admitted_at__isnull": False}, **OFF, gates_again_at=now)


def promote(entry: ReviewEntry, priority: int) -> None:
    """Move an entry in the queue's order."""
    ledger.set_priority(entry.bead, priority)


def land_now(entry: ReviewEntry, now: dt.datetime) -> None:
    """A person's wish: to the front of the train. A car that is not the first one, and is not being pushed, gets off
    and on again; a hold is lifted."""
    ReviewEntry.objects.active().filter(pk=entry.pk).update(land_now_at=now, held="", held_text="")
    train = ReviewEntry.objects.filter(rig=entry.rig, target=entry.target, slot__isnull=False)
    behind = entry.slot is not None and train.filter(slot__lt=entry.slot).exists()
    if behind and not entry.landings.filter(state__in=landings.OPEN_LANDING).exists():
        leave(entry.pk, innocent=True)


def head_seen(entry_id: str, head: str) -> None:
    """Observation: the branch has another head than the pinned one."""
    ReviewEntry.objects.active().filter(pk=entry_id).exclude(head_sha=head).update(observed_head=head)


def gates_again(entry: ReviewEntry, now: dt.datetime) -> None:
    """Gate results before `now` no longer count."""
    ReviewEntry.objects.active().filter(pk=entry.pk).update(gates_again_at=now)


def forget_landings(convoy: Convoy) -> None:
    """A retried convoy may enqueue its landing again: ended ones count as superseded."""
    ReviewEntry.objects.failed().filter(convoy=convoy, kind=EntryKind.LANDING).update(reason="superseded")


def check_built(entry_id: str, build_no: int, head: str) -> None:
    """Observation: the head that a check's build has fetched. Other entries' heads are pinned before the build."""
    checks = ReviewEntry.objects.active().filter(pk=entry_id, kind=EntryKind.CHECK, build_no=build_no)
    checks.update(head_sha=head, observed_head="")


def let_go(entry_id: str, head: str | None) -> None:
    """Lift the hold of an entry that waits for a person. `head`: only while it is pinned at this one."""
    held = ReviewEntry.objects.active().filter(pk=entry_id).exclude(held="")
    if head is not None:
        held = held.filter(head_sha=head)
    held.update(held="", held_text="")


def forget(entries: Sequence[str]) -> int:
    """Remove these entries: they have been archived. What refers to them is removed before."""
    return prune.delete(ReviewEntry.objects.filter(pk__any=entries))
