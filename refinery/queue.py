"""The only writer of review entries, candidates, verdicts and landings.

Decisions compare and swap on the state they were decided on (`LostRace` otherwise); observations only ever add.
Doors: `submit` makes a new entry in its first state; everything later is the tick's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import F

from beads import ledger
from beads.errors import Conflict, LostRace
from beads.lifecycle import BeadStatus, BeadType, Resolution
from beads.models import Bead, Convoy, Rig
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, Verdict

OPEN_LANDING = ("intent", "pushing")


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
            convoy=None,
            actor=author,
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


def admit(entry_id: str, build_no: int, now: dt.datetime) -> int:
    """Give an entry its lane's slot; returns the number of the build to make."""
    _swap(
        entry_id,
        {"admitted_at": None, "build_no": build_no},
        admitted_at=now,
        build_no=build_no + 1,
        attempts=F("attempts") + 1,
        land_retries=0,
    )
    return build_no + 1


def leave(entry_id: str) -> None:
    """Release the lane's slot."""
    _swap(entry_id, {"admitted_at__isnull": False}, admitted_at=None)


def rebuild(entry_id: str, build_no: int, *, counts: bool) -> int:
    """Build the admitted entry again; returns the number of the build to make. `counts`: its landing is retried."""
    _swap(
        entry_id,
        {"admitted_at__isnull": False, "build_no": build_no},
        build_no=build_no + 1,
        land_retries=F("land_retries") + (1 if counts else 0),
    )
    return build_no + 1


def new_head(entry_id: str, expect: str, head: str, branch: str) -> int | None:
    """Pin a new head; returns the number of the build to make when the entry is admitted."""
    _swap(
        entry_id,
        {"head_sha": expect},
        head_sha=head,
        branch=branch,
        observed_head="",
        held="",
        held_text="",
        build_no=F("build_no") + 1,
    )
    entry = ReviewEntry.objects.get(pk=entry_id)
    return entry.build_no if entry.admitted_at else None


def count_rework(entry_id: str, purpose: str) -> None:
    """Count a round of rework or a conflict task; the entry leaves its slot."""
    field = "conflict_count" if purpose == "conflict" else "rework_count"
    _swap(entry_id, {"held": ""}, admitted_at=None, **{field: F(field) + 1})


def hold(entry_id: str, code: str, text: str) -> None:
    """Let an entry wait for a person; it leaves its slot."""
    _swap(entry_id, {"held": ""}, held=code, held_text=text, admitted_at=None)


def close(entry: ReviewEntry, state: str, reason: str, text: str, *, now: dt.datetime, merge_sha: str = "") -> None:
    """End an entry and its merge-request bead together."""
    _swap(
        entry.pk,
        {},
        state=state,
        reason=reason,
        reason_text=text,
        merge_sha=merge_sha,
        admitted_at=None,
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
        resolution = {"superseded": Resolution.SUPERSEDED, "cancelled": Resolution.CANCELLED}.get(
            reason, Resolution.GAVE_UP
        )
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
    ledger.move(entry.bead, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)
    if entry.source and entry.source.status == BeadStatus.FAILED:
        ledger.move(entry.source, BeadStatus.FAILED, BeadStatus.OPEN, actor=actor, reason="retried", now=now)


def request_reject(entry: ReviewEntry, reason: str) -> None:
    """Set a person's wish to reject; the tick decides."""
    ReviewEntry.objects.filter(pk=entry.pk, state="active").update(reject_requested=reason or "rejected")


def requeue(entry: ReviewEntry, now: dt.datetime) -> None:
    """A person's wish: give the lane's slot back, and be built and gated anew when the turn comes again.

    Raises LostRace when the push has begun, or the entry has no slot to give back.
    """
    _abandon_intents(entry, now)
    if entry.landings.filter(state="pushing").exists():
        raise LostRace(f"{entry.pk} is being pushed")
    _swap(entry.pk, {"admitted_at__isnull": False}, admitted_at=None, gates_again_at=now)


def promote(entry: ReviewEntry, priority: int) -> None:
    """Move an entry in the queue's order."""
    ledger.retitle_priority(entry.bead, priority)


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
                sha=result.get("sha", ""),
                tree_sha=result.get("tree", ""),
                files=list(result.get("files", [])),
                error=result.get("error", ""),
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


def intend(candidate: Candidate, evidence: Sequence[int]) -> Landing:
    """Write the intent to push a candidate and the gate results that let it.

    LostRace when the entry moved on, a result is no pass on exactly its tree, or the target has an open landing.
    """
    entry = candidate.entry
    if not ReviewEntry.objects.filter(
        pk=entry.pk, state="active", head_sha=candidate.head_sha, build_no=candidate.build_no, held=""
    ).exists():
        raise LostRace(f"{entry.pk} is no longer at candidate {candidate.pk}")
    results = list(GateResult.objects.filter(pk__in=evidence))
    if len(results) != len(evidence) or any(
        r.outcome != "pass" or r.tree_sha != candidate.tree_sha or r.entry_id != entry.pk for r in results
    ):
        raise LostRace(f"the gates of {entry.pk} have not all passed on tree {candidate.tree_sha}")
    if Landing.objects.filter(rig=entry.rig, target=entry.target, state__in=OPEN_LANDING).exists():
        raise LostRace(f"{entry.target} has an open landing")
    return Landing.objects.create(
        entry=entry,
        candidate=candidate,
        rig=entry.rig,
        target=entry.target,
        expected_sha=candidate.base_sha,
        evidence=[{"gate": r.gate, "outcome": r.outcome, "tree": r.tree_sha, "result": r.pk} for r in results],
    )


def begin_push(landing_id: int) -> bool:
    """The executor's compare-and-swap before it pushes: False when the intent was withdrawn or concluded."""
    if Landing.objects.filter(pk=landing_id, state="intent").update(state="pushing"):
        return True
    return Landing.objects.filter(pk=landing_id, state="pushing").exists()


def conclude(landing_id: int, state: str, message: str, now: dt.datetime) -> None:
    """Observation: what git showed after the push. The first conclusion counts."""
    Landing.objects.filter(pk=landing_id, state__in=OPEN_LANDING).update(
        state=state, message=message[:2000], concluded_at=now
    )


def abandon(landing_id: int, now: dt.datetime) -> None:
    """Withdraw an intent that nobody has begun to push; LostRace when somebody has."""
    changed = Landing.objects.filter(pk=landing_id, state="intent").update(state="abandoned", concluded_at=now)
    if changed != 1:
        raise LostRace(f"landing {landing_id} is being pushed")


def _abandon_intents(entry: ReviewEntry, now: dt.datetime) -> None:
    for landing in entry.landings.filter(state="intent"):
        abandon(landing.pk, now)


def gates_again(entry: ReviewEntry, now: dt.datetime) -> None:
    """Gate results before `now` no longer count."""
    ReviewEntry.objects.filter(pk=entry.pk, state="active").update(gates_again_at=now)


def forget_landings(convoy: Convoy) -> None:
    """A retried convoy may enqueue its landing again: ended ones count as superseded."""
    ReviewEntry.objects.filter(convoy=convoy, kind="landing", state="failed").update(reason="superseded")
