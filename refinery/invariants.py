"""What must always hold and no constraint can say: each with a number, a sentence, a query, and what to do about it.

Checked at the end of each tick on what it touched, over everything by `doctor` and the hourly housekeeping. This
module is the only writer of Violation: a broken promise is a row, a log line and a metric until it is seen to hold
again. Waiting is no violation: people's holds, pull requests and paused towns are legal for ever.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from agents.models import LIVE_RUN, Run, RunState
from beads.lifecycle import FINAL, LIVE, BeadStatus, BeadType, Purpose, Resolution
from beads.models import Bead, Convoy, Effect, Fact, Town
from refinery.models import Landing, ReviewEntry, Violation

log = structlog.get_logger(__name__)
GRACE = dt.timedelta(minutes=5)
_FINAL, _LIVE = sorted(FINAL), sorted(LIVE)


@dataclass(frozen=True)
class Scope:
    """Where to look: a town, at a moment; `ids`: only these beads and runs (None: everything)."""

    town: Town
    now: dt.datetime
    ids: frozenset[str] | None = None

    @property
    def old(self) -> dt.datetime:
        """Before this, what should be under way is overdue."""
        return self.now - GRACE

    def beads(self) -> QuerySet[Bead]:
        """The town's beads within the scope."""
        found = Bead.objects.filter(town=self.town)
        return found if self.ids is None else found.filter(pk__in=self.ids)

    def entries(self) -> QuerySet[ReviewEntry]:
        """The town's review entries within the scope."""
        found = ReviewEntry.objects.filter(rig__town=self.town)
        return found if self.ids is None else found.filter(Q(pk__in=self.ids) | Q(source__in=self.ids))

    def runs(self) -> QuerySet[Run]:
        """The town's live runs within the scope."""
        found = Run.objects.filter(LIVE_RUN, town=self.town)
        return found if self.ids is None else found.filter(Q(pk__in=self.ids) | Q(bead__in=self.ids))


@dataclass(frozen=True)
class Invariant:
    """One promise. `broken` gives the ids of what breaks it."""

    number: int
    sentence: str
    remedy: str
    broken: Callable[[Scope], Iterable[str]]


@dataclass(frozen=True)
class Broken:
    """A promise that does not hold for a subject."""

    invariant: Invariant
    subject: str


def _ids(rows: QuerySet[Bead] | QuerySet[ReviewEntry] | QuerySet[Run]) -> list[str]:
    return [str(key) for key in rows.values_list("pk", flat=True)[:200]]


def _merged_without_landing(scope: Scope) -> Iterable[str]:
    landed = Landing.objects.filter(entry=OuterRef("pk"), state="landed", candidate__sha=OuterRef("merge_sha"))
    return _ids(scope.entries().filter(~Exists(landed), state="merged", reason="merged"))


def _landed_without_gates(scope: Scope) -> Iterable[str]:
    """The evidence that was written with the intent to push must be passes on exactly the landed tree."""
    landings = Landing.objects.filter(state="landed", rig__town=scope.town).select_related("candidate")
    if scope.ids is not None:
        landings = landings.filter(entry__in=scope.ids)
    return [
        landing.entry_id
        for landing in landings.only("entry", "evidence", "candidate__tree_sha")[:5000]
        if any(e["outcome"] != "pass" or e["tree"] != landing.candidate.tree_sha for e in landing.evidence)
    ]


def _merged_bead_without_entry(scope: Scope) -> Iterable[str]:
    merged = ReviewEntry.objects.filter(source=OuterRef("pk"), state="merged")
    beads = scope.beads().filter(type=BeadType.ISSUE, purpose=Purpose.WORK, resolution=Resolution.MERGED)
    return _ids(beads.filter(~Exists(merged)))


def _entry_against_bead(scope: Scope) -> Iterable[str]:
    ended, active = Q(state="active", bead__status__in=_FINAL), ~Q(state="active") & Q(bead__status__in=_LIVE)
    return _ids(scope.entries().filter(ended | active))


def _merged_with_open_source(scope: Scope) -> Iterable[str]:
    return _ids(scope.entries().filter(state="merged", source__isnull=False).exclude(source__status="closed"))


def _convoy_without_code(scope: Scope) -> Iterable[str]:
    landed = Convoy.objects.filter(bead__town=scope.town, bead__resolution=Resolution.MERGED)
    if scope.ids is not None:
        landed = landed.filter(pk__in=scope.ids)
    entry = ReviewEntry.objects.filter(convoy=OuterRef("pk"), kind="landing", state="merged")
    unfinished = Bead.objects.filter(convoy=OuterRef("pk")).exclude(status=BeadStatus.CLOSED)
    broken = landed.filter(~Exists(entry) | Exists(unfinished) | Q(landed_sha=""))
    return [str(key) for key in broken.values_list("pk", flat=True)[:200]]


def _bead_of_ended_convoy(scope: Scope) -> Iterable[str]:
    return _ids(scope.beads().filter(type=BeadType.ISSUE, status__in=_LIVE, convoy__bead__status__in=_FINAL))


def _work_without_run(scope: Scope) -> Iterable[str]:
    live = Run.objects.filter(LIVE_RUN, bead=OuterRef("pk"))
    waiting = Run.objects.filter(bead=OuterRef("pk"), published=False, publish_requested_at__isnull=False)
    beads = scope.beads().filter(type=BeadType.ISSUE, status=BeadStatus.IN_PROGRESS, updated_at__lt=scope.old)
    recent = Run.objects.filter(bead=OuterRef("pk"), ended_at__gte=scope.old)
    return _ids(beads.filter(~Exists(live), ~Exists(waiting), ~Exists(recent)))


def _review_without_entry(scope: Scope) -> Iterable[str]:
    active = ReviewEntry.objects.filter(source=OuterRef("pk"), state="active")
    beads = scope.beads().filter(type=BeadType.ISSUE, status=BeadStatus.IN_REVIEW, updated_at__lt=scope.old)
    ended = ReviewEntry.objects.filter(source=OuterRef("pk"), closed_at__gte=scope.old)
    return _ids(beads.filter(~Exists(active), ~Exists(ended)))


def _run_of_ended_bead(scope: Scope) -> Iterable[str]:
    ended = scope.runs().filter(bead__status__in=_FINAL, bead__closed_at__lt=scope.old, stop_requested_at=None)
    return _ids(ended)


def _run_without_lease(scope: Scope) -> Iterable[str]:
    overdue = Q(lease_until=None) | Q(lease_until__lt=scope.old)
    return _ids(scope.runs().filter(overdue, state=RunState.RUNNING))


def _idle_in_a_lane(scope: Scope) -> Iterable[str]:
    return _ids(scope.entries().filter(state="active", admitted_at__isnull=False).exclude(held=""))


def _task_without_entry(scope: Scope) -> Iterable[str]:
    active = ReviewEntry.objects.filter(pk=OuterRef("parent"), state="active")
    tasks = scope.beads().filter(type=BeadType.ISSUE, status__in=_LIVE, updated_at__lt=scope.old)
    return _ids(tasks.exclude(purpose=Purpose.WORK).filter(~Exists(active)))


def _ended_without_reason(scope: Scope) -> Iterable[str]:
    silent = scope.beads().filter(type=BeadType.ISSUE, status=BeadStatus.FAILED, reason="")
    held = scope.entries().filter(state="active", held_text="").exclude(held="")
    return [*_ids(silent), *_ids(held)]


def _overdue_effects(scope: Scope) -> Iterable[str]:
    if scope.ids is not None:
        return []
    due = Effect.objects.filter(town=scope.town, state="pending", next_try_at__lt=scope.old)
    return [f"effect {key}" for key in due.values_list("key", flat=True)[:200]]


def _overdue_facts(scope: Scope) -> Iterable[str]:
    if scope.ids is not None:
        return []
    due = Fact.objects.filter(town=scope.town, processed_at=None, quarantined_at=None, recorded_at__lt=scope.old)
    return [f"fact {key}" for key in due.values_list("pk", flat=True)[:200]]


def _cut_loose(scope: Scope) -> Iterable[str]:
    """An entry whose pinned head is not the one that its newest counting verdict and landing speak of."""
    wrong = Landing.objects.filter(state="landed", rig__town=scope.town).exclude(
        candidate__head_sha=F("entry__head_sha")
    )
    if scope.ids is not None:
        wrong = wrong.filter(entry__in=scope.ids)
    return [str(key) for key in wrong.values_list("entry_id", flat=True)[:200]]


INVARIANTS = (
    Invariant(
        1,
        "A merged entry has a landing that git confirmed, of exactly its candidate",
        "compare the target with the entry's page; revert by hand what should not be there",
        _merged_without_landing,
    ),
    Invariant(
        2,
        "What landed is a tree on which every gate had passed",
        "look at the gate results of the landed tree; revert by hand what should not be there",
        _landed_without_gates,
    ),
    Invariant(
        3,
        "A bead is closed as merged only by a merged entry",
        "look at the bead's history; sling the work again if it is missing",
        _merged_bead_without_entry,
    ),
    Invariant(
        4,
        "An active entry's own bead is live, an ended entry's has ended",
        "run a tick; if it stays: mq reject, then submit the branch again",
        _entry_against_bead,
    ),
    Invariant(5, "A merged entry's source is closed", "run a tick; then bead cancel", _merged_with_open_source),
    Invariant(
        6,
        "A convoy landed with all its beads closed and a merged landing entry",
        "convoy show, and compare the target with its feature branch",
        _convoy_without_code,
    ),
    Invariant(7, "No bead works for a convoy that has ended", "bead cancel", _bead_of_ended_convoy),
    Invariant(8, "Work in progress has a run", "run a tick; then bead cancel and sling again", _work_without_run),
    Invariant(9, "Work in review has an entry", "run a tick; then bead cancel and sling again", _review_without_entry),
    Invariant(10, "A live run works for a live bead", "runs stop", _run_of_ended_bead),
    Invariant(
        11, "A running run has a lease, or is fenced", "is the reconciler running? runs stop", _run_without_lease
    ),
    Invariant(12, "What has a place in a lane waits for nobody", "mq retry", _idle_in_a_lane),
    Invariant(13, "A rework or conflict task belongs to an active entry", "bead cancel", _task_without_entry),
    Invariant(14, "What failed or is held says why", "look at its history", _ended_without_reason),
    Invariant(15, "Outside work that is due is tried", "is the cluster running? see doctor", _overdue_effects),
    Invariant(16, "Facts are drained", "is the reconciler running? see doctor", _overdue_facts),
    Invariant(17, "What landed is the head that the entry names", "compare the target with the entry", _cut_loose),
)


def look(town: Town, now: dt.datetime, ids: Iterable[str] | None = None) -> list[Broken]:
    """Everything in scope that breaks a promise. Reads only."""
    scope = Scope(town, now, None if ids is None else frozenset(ids))
    return [Broken(invariant, subject) for invariant in INVARIANTS for subject in invariant.broken(scope)]


def check(town: Town, now: dt.datetime, ids: Iterable[str] | None = None) -> list[Broken]:
    """`look`, and keep the table of open violations in step with it; returns what is broken."""
    if ids is not None:
        ids = frozenset(ids) | set(
            Violation.objects.filter(town=town, cleared_at=None).values_list("subject", flat=True)
        )
        if not ids:
            return []
    found = look(town, now, ids)
    seen = {(b.invariant.number, b.subject) for b in found}
    known = {(v.number, v.subject): v for v in Violation.objects.filter(town=town, cleared_at=None)}
    for broken in found:
        number, subject = broken.invariant.number, broken.subject
        if (number, subject) not in known:
            Violation.objects.create(
                town=town,
                number=number,
                subject=subject[:200],
                sentence=broken.invariant.sentence,
                remedy=broken.invariant.remedy,
                first_seen=now,
            )
            log.error("invariant.violated", number=number, subject=subject, sentence=broken.invariant.sentence)
    gone = [v.pk for key, v in known.items() if key not in seen and (ids is None or v.subject in ids)]
    if gone:
        Violation.objects.filter(pk__in=gone).update(cleared_at=now)
    return found
