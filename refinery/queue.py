"""The only writer of review entries, candidates, verdicts, waivers and landings.

Decisions compare and swap on the state they were decided on (`LostRace` otherwise); observations only ever add.
Doors: `submit` makes a new entry in its first state; everything later is the tick's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from django.db import transaction
from django.db.models import F

from beads import ledger
from beads.errors import Conflict, LostRace
from beads.lifecycle import BeadStatus, BeadType, Resolution
from beads.models import Bead, Convoy, Rig
from refinery.models import Candidate, GateResult, Landing, Lane, ReviewEntry, Verdict, Waiver
from refinery.reasons import Exit, Held
from refinery.world import NotNeeded

OPEN_LANDING = ("intent", "pushing")
OFF: dict[str, Any] = {"admitted_at": None, "slot": None, "batch": None}  # what leaving the train sets


_ENDS = {
    "superseded": Resolution.SUPERSEDED,
    "cancelled": Resolution.CANCELLED,
    "nothing_changed": Resolution.NOTHING_CHANGED,
}


def submit(
    rig: Rig,
    *,
    branch: str,
    head: str,
    target: str,
    title: str,
    author: str,
    priority: int = 2,
    source: Bead | None = None,
    convoy: Convoy | None = None,
    kind: str = "change",
    on_remote: bool = True,
) -> tuple[ReviewEntry, bool]:
    """Enqueue `head` of `branch` for `target`; returns the entry and whether it is new.

    The same head again gives the same entry; a new head supersedes the older entry of the branch or source. Takes
    the town's lock, so two processes at once make one entry. Raises Conflict when the older one is being pushed.
    """
    with transaction.atomic():
        ledger.lock_town(rig.town)
        active = ReviewEntry.objects.filter(rig=rig, state="active")
        older = list(active.filter(target=target, branch=branch))
        if source is not None:
            older += [e for e in active.filter(source=source) if e not in older]
        for entry in older:
            if (entry.head_sha, entry.branch, entry.target) == (head, branch, target):
                if entry.observed_head and entry.observed_head != head:
                    ReviewEntry.objects.filter(pk=entry.pk).update(observed_head="")
                return entry, False
        for entry in older:
            if entry.landings.filter(state="pushing").exists():
                raise Conflict(
                    f"{entry.pk} is being pushed right now: submit again in a moment",
                    details={"entry": entry.pk},
                )
        bead = ledger.create_bead(
            rig.town,
            rig,
            title,
            type=BeadType.MERGE_REQUEST,
            priority=priority,
            actor=author,
            depth=max(source.depth if source else 0, convoy.bead.depth if convoy else 0),
        )
        for entry in older:
            _abandon_intents(entry, bead.created_at)
            close(entry, "failed", "superseded", f"superseded by {bead.pk} at {head[:12]}", now=bead.created_at)
        made = ReviewEntry.objects.create(
            bead=bead,
            rig=rig,
            convoy=convoy,
            kind=kind,
            source=source,
            author=author[:100],
            branch=branch,
            on_remote=on_remote,
            head_sha=head,
            target=target,
        )
        for entry in older:
            ReviewEntry.objects.filter(pk=entry.pk).update(superseded_by=made)
        if source is not None:
            ledger.note(source, "review_submitted", author, entry=bead.pk, head=head, branch=branch)
    return made, True


def _swap(entry_id: str, expect: Mapping[str, Any], **change: Any) -> None:
    """Compare and swap on an active entry."""
    if ReviewEntry.objects.filter(pk=entry_id, state="active", **expect).update(**change) != 1:
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
    """Cut a batch anew: each entry's new batch number and, unless it stays, slot. LostRace when one has left it."""
    for entry_id, batch, slot in places:
        _swap(entry_id, {"batch": expect}, batch=batch, **({} if slot is None else {"slot": slot}))


def leave(entry_id: str, *, innocent: bool = False) -> None:
    """Leave the train. `innocent`: having been in it does not count as an attempt."""
    back = {"attempts": F("attempts") - 1} if innocent else {}
    _swap(entry_id, {"admitted_at__isnull": False}, **OFF, **back)


def set_window(rig_id: int, target: str, size: int) -> None:
    """How many cars a lane's train may have from now on."""
    Lane.objects.update_or_create(rig_id=rig_id, target=target, defaults={"window": size})


def freeze(rig: Rig, target: str, reason: str, who: str, now: dt.datetime, until: dt.datetime | None = None) -> None:
    """Nothing is admitted to a lane and nothing lands in it, until it is thawed or `until` has come."""
    told = {"frozen_at": now, "frozen_until": until, "frozen_reason": reason[:300], "frozen_by": who[:150]}
    Lane.objects.update_or_create(rig=rig, target=target, defaults=told)


def thaw(rig: Rig, target: str) -> None:
    """Undo `freeze`."""
    told = {"frozen_at": None, "frozen_until": None, "frozen_reason": "", "frozen_by": ""}
    Lane.objects.filter(rig=rig, target=target).update(**told)


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
        build_no=F("build_no") + 1,
    )


def count_rework(entry_id: str, purpose: str) -> None:
    """Count a round of rework or a conflict task; the entry leaves its slot."""
    field = "conflict_count" if purpose == "conflict" else "rework_count"
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
    if state == "merged":
        resolution = Resolution.ALREADY_MERGED if reason == "already_merged" else Resolution.MERGED
        to = BeadStatus.CLOSED
    else:
        to = BeadStatus.FAILED
        resolution = _ENDS.get(reason, Resolution.GAVE_UP)
    ledger.move(
        bead,
        bead.status,
        to,
        actor="refinery",
        reason=text,
        resolution=resolution,
        merge_sha=merge_sha,
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
    }
    if entry.state == "active":
        _swap(entry.pk, {"admitted_at": entry.admitted_at}, **fresh)
        return
    if entry.state == "merged":
        raise Conflict(f"{entry.pk} is merged")
    if entry.source and entry.source.status == BeadStatus.CLOSED:
        raise Conflict(f"its bead {entry.source_id} is closed ({entry.source.resolution})")
    same = ReviewEntry.objects.filter(state="active", rig=entry.rig, target=entry.target, branch=entry.branch)
    if same.exists() or (entry.source and ReviewEntry.objects.filter(state="active", source=entry.source).exists()):
        raise Conflict(f"another entry for {entry.branch} is active")
    changed = ReviewEntry.objects.filter(pk=entry.pk, state="failed").update(
        state="active", reason="", reason_text="", closed_at=None, superseded_by=None, **fresh
    )
    if changed != 1:
        raise LostRace(f"{entry.pk} is no longer failed")
    for task in entry.bead.blocked_by.select_related("on").filter(on__status=BeadStatus.FAILED):
        ledger.unblock(entry.bead, task.on, actor, "retried without it")
    ledger.move(entry.bead, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)
    if entry.source and entry.source.status == BeadStatus.FAILED:
        ledger.move(entry.source, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)


def request_reject(entry: ReviewEntry, reason: str) -> None:
    """Set a person's wish to reject; the tick decides."""
    ReviewEntry.objects.filter(pk=entry.pk, state="active").update(reject_requested=reason or "rejected")


def requeue(entry: ReviewEntry, now: dt.datetime) -> None:
    """A person's wish: get off the train, and be built and gated anew when the turn comes again.

    Raises LostRace when the push has begun, or the entry is no car of a train.
    """
    _abandon_intents(entry, now)
    if entry.landings.filter(state="pushing").exists():
        raise LostRace(f"{entry.pk} is being pushed")
    _swap(entry.pk, {"admitted_at__isnull": False}, **OFF, gates_again_at=now)


def promote(entry: ReviewEntry, priority: int) -> None:
    """Move an entry in the queue's order."""
    ledger.retitle_priority(entry.bead, priority)


def land_now(entry: ReviewEntry, now: dt.datetime) -> None:
    """A person's wish: to the front of the train. A car that is not the first one, and is not being pushed, gets off
    and on again; a hold is lifted."""
    ReviewEntry.objects.filter(pk=entry.pk, state="active").update(land_now_at=now, held="", held_text="")
    train = ReviewEntry.objects.filter(rig=entry.rig, target=entry.target, slot__isnull=False)
    behind = entry.slot is not None and train.filter(slot__lt=entry.slot).exists()
    if behind and not entry.landings.filter(state__in=OPEN_LANDING).exists():
        leave(entry.pk, innocent=True)


def waive_gates(entry: ReviewEntry, head: str, who: str, reason: str) -> None:
    """A person's decision that exactly this head lands without its gates."""
    Waiver.objects.get_or_create(entry=entry, head_sha=head, defaults={"by": who[:150], "reason": reason})


# -- candidates and verdicts ---------------------------------------------------------------------


def record_candidate(entry_id: str, build_no: int, result: Mapping[str, Any]) -> bool:
    """Observation: what build `build_no` gave. The first answer counts; False when there is one."""
    made = Candidate.objects.bulk_create(
        [
            Candidate(
                entry_id=entry_id,
                build_no=build_no,
                result=result["result"],
                head_sha=result["head"],
                base_sha=result.get("base", ""),
                on_id=result.get("on"),
                sha=result.get("sha", ""),
                tree_sha=result.get("tree", ""),
                seal_sha=result.get("seal", ""),
                files=list(result.get("files", [])),
                error=result.get("error", ""),
                untouched=list(result.get("untouched", [])),
            )
        ],
        ignore_conflicts=True,
    )
    return bool(made and made[0].pk)


def record_verdict(
    entry: ReviewEntry,
    *,
    head: str,
    decision: str,
    by: str,
    run_id: str | None = None,
    merge_now: bool = False,
    feedback: str = "",
    items: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Observation: a review of `head`. One per run. A person's approval also lifts a hold."""
    verdict = Verdict(
        entry=entry,
        head_sha=head,
        decision=decision,
        by=by[:150],
        run_id=run_id,
        merge_now=merge_now,
        feedback=feedback,
        items=[dict(i) for i in items],
    )
    if run_id is None:
        verdict.save()
        ReviewEntry.objects.filter(pk=entry.pk, state="active", head_sha=head).exclude(held="").update(
            held="", held_text=""
        )
    elif not Verdict.objects.filter(run_id=run_id).exists():
        verdict.save()
    else:
        return False
    ledger.note(entry.bead, f"verdict_{decision}", by, feedback[:2000], head=head)
    return True


def head_seen(entry_id: str, head: str) -> None:
    """Observation: the branch has another head than the pinned one."""
    ReviewEntry.objects.filter(pk=entry_id, state="active").exclude(head_sha=head).update(observed_head=head)


# -- landings ---------------------------------------------------------------------


def intend(
    cars: Sequence[tuple[Candidate, Sequence[int | NotNeeded]]], waivers: Mapping[int, int] | None = None
) -> Landing:
    """Write the intent to push candidates, each on the one before, with the gate results that let each land.

    `waivers`: candidate → the waiver of its gates that let it land without them.

    Returns the landing of the last one, whose push carries them all. LostRace when an entry moved on, a result is no
    pass on exactly its tree or that of its batch, a gate is needed after all, they do not stand on one another, or the
    target has an open landing.
    """
    last, entry = cars[-1][0], cars[-1][0].entry
    for (below, _), (above, _) in pairwise(cars):
        if above.base_sha != below.sha:
            raise LostRace(f"candidate {above.pk} does not stand on {below.pk}")
    if Landing.objects.filter(rig=entry.rig, target=entry.target, state__in=OPEN_LANDING).exists():
        raise LostRace(f"{entry.target} has an open landing")
    expected = cars[0][0].base_sha
    waived = waivers or {}
    sealed_by = _seals([candidate for candidate, _ in cars])
    push = _intend(last, cars[-1][1], expected, None, None, waived.get(last.pk))
    for candidate, evidence in cars[:-1]:
        _intend(candidate, evidence, expected, push, sealed_by.get(candidate.pk), waived.get(candidate.pk))
    return push


def _seals(cars: Sequence[Candidate]) -> dict[int, Candidate]:
    """The candidates that are members of a batch among these, and the one that seals it."""
    found: dict[int, Candidate] = {}
    for end, seal in enumerate(cars):
        first = next((n for n, c in enumerate(cars[:end]) if seal.seal_sha and c.base_sha == seal.seal_sha), end)
        found |= {member.pk: seal for member in cars[first:end]}
    return found


def _intend(
    candidate: Candidate,
    evidence: Sequence[int | NotNeeded],
    expected: str,
    push: Landing | None,
    seal: Candidate | None,
    waiver: int | None,
) -> Landing:
    entry = candidate.entry
    if not ReviewEntry.objects.filter(
        pk=entry.pk, state="active", head_sha=candidate.head_sha, build_no=candidate.build_no, held=""
    ).exists():
        raise LostRace(f"{entry.pk} is no longer at candidate {candidate.pk}")
    passed = [e for e in evidence if isinstance(e, int)]
    others = [e for e in evidence if not isinstance(e, int)]
    results = list(GateResult.objects.select_related("candidate__entry").filter(pk__in=passed))
    trees = {r.tree_sha for r in results} or {candidate.tree_sha}
    sealed = seal is not None and trees == {seal.tree_sha} != {candidate.tree_sha}
    if (
        len(results) != len(passed)
        or not (sealed or trees == {candidate.tree_sha})
        or any(r.outcome != "pass" or r.candidate.entry.rig_id != entry.rig_id for r in results)
    ):
        raise LostRace(f"the gates of {entry.pk} have not all passed on tree {candidate.tree_sha} or its batch's")
    gated = seal if sealed and seal is not None else candidate
    if any(list(e.paths) not in gated.untouched for e in others):
        raise LostRace(f"it is not known that {entry.pk} needs none of the gates that it has not passed")
    batch = {"batch": gated.pk} if gated is not candidate else {}
    told: list[dict[str, Any]] = [
        {"gate": r.gate, "outcome": r.outcome, "tree": r.tree_sha, "result": r.pk, **batch}
        | ({"flaky": True} if r.flaky else {})
        for r in results
    ]
    told += [
        {"gate": e.gate, "outcome": "not_needed", "tree": gated.tree_sha, "paths": list(e.paths), **batch}
        for e in others
    ]
    if waiver:
        given = Waiver.objects.filter(pk=waiver, entry=entry, head_sha=candidate.head_sha).first()
        if given is None:
            raise LostRace(f"nobody has waived the gates of {candidate.head_sha[:12]}")
        because = {"waiver": given.pk, "by": given.by, "because": given.reason}
        told.append({"gate": "*", "outcome": "skipped", "tree": candidate.tree_sha, **because})
    return Landing.objects.create(
        entry=entry,
        candidate=candidate,
        push=push,
        rig=entry.rig,
        target=entry.target,
        expected_sha=expected,
        evidence=told,
    )


def begin_push(landing_id: int) -> bool:
    """The executor's compare-and-swap before it pushes: False when the intent was withdrawn or concluded."""
    with transaction.atomic():
        if Landing.objects.filter(pk=landing_id, state="intent").update(state="pushing"):
            Landing.objects.filter(push=landing_id, state="intent").update(state="pushing")
            return True
    return Landing.objects.filter(pk=landing_id, state="pushing").exists()


def cars_of(landing: Landing) -> list[Landing]:
    """The landings that one push carries, in order; the last one is the push itself."""
    carried = Landing.objects.select_related("entry", "candidate", "rig").filter(push=landing).order_by("id")
    return [*carried, landing]


def ends(landing: Landing) -> bool:
    """True when the very tree of this car was gated, so that a push may end with it; else its batch's was."""
    return not any("batch" in seen for seen in landing.evidence)


def conclude(landing_id: int, state: str, message: str, now: dt.datetime) -> None:
    """Observation: what git showed after the push. The first conclusion counts."""
    Landing.objects.filter(pk=landing_id, state__in=OPEN_LANDING).update(
        state=state, message=message[:2000], concluded_at=now
    )


def abandon(landing_id: int, now: dt.datetime) -> None:
    """Withdraw an intent that nobody has begun to push, with all that its push carries; LostRace when somebody has."""
    found = Landing.objects.get(pk=landing_id)
    push = found.push_id or found.pk
    changed = Landing.objects.filter(pk=push, state="intent").update(state="abandoned", concluded_at=now)
    if changed != 1:
        raise LostRace(f"landing {landing_id} is being pushed")
    Landing.objects.filter(push=push, state="intent").update(state="abandoned", concluded_at=now)


def _abandon_intents(entry: ReviewEntry, now: dt.datetime) -> None:
    for landing in entry.landings.filter(state="intent"):
        abandon(landing.pk, now)


def gates_again(entry: ReviewEntry, now: dt.datetime) -> None:
    """Gate results before `now` no longer count."""
    ReviewEntry.objects.filter(pk=entry.pk, state="active").update(gates_again_at=now)


def forget_landings(convoy: Convoy) -> None:
    """A retried convoy may enqueue its landing again: ended ones count as superseded."""
    ReviewEntry.objects.filter(convoy=convoy, kind="landing", state="failed").update(reason="superseded")
