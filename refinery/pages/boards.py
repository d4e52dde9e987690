"""Rows → what commands and pages show of beads, entries and convoys.

Phases come from `refinery.core`, and each sentence is the plan's: no page says another one than `tick --explain`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils import timezone

from agents.models import Run
from beads.lifecycle import FINAL, BeadStatus
from beads.models import Bead, Convoy, Dependency, Town
from beads.plans import waves
from refinery import links
from refinery.core import checks as check_rules
from refinery.core import estimates, order, pace, readiness, stages, standing
from refinery.core.actions import Settle
from refinery.core.beadviews import BeadView
from refinery.core.entryviews import EntryView
from refinery.core.rules import Decision, plan
from refinery.core.rules.troubles import OUTAGE, ROOM
from refinery.core.states import EntryState
from refinery.core.world import World
from refinery.models import Landing, ReviewEntry
from refinery.pages import pulls, ways
from refinery.store import history as history_of
from refinery.store.results import gate_results
from refinery.tick import snapshot

PAST = "past: the config has replaced it"
_TOWN_WIDE = ("town ", "rig ", OUTAGE, ROOM)


@dataclass(frozen=True)
class Shown:
    """An entry's phase, stage, why, and place in its lane."""

    phase: str
    stage: str
    reason: str
    position: int | None

    @property
    def needs_person(self) -> bool:
        """True when it is what a person is asked about."""
        return self.stage in stages.ASKS_PERSON


_OF_CHECKS = {stages.Stage.HELD: "awaiting_human", stages.Stage.GREEN: "checked"}


class Board:
    """One look at a town's world, asked many times. Each sentence is the plan's own, which is made at most once, when
    the first is asked for; each phase follows from what the plan's rules see. Ended subjects keep their stored reason.
    """

    def __init__(self, town: Town) -> None:
        self.town = town
        self.world: World = snapshot.load(town, timezone.now())
        self.beads = {b.id: b for b in self.world.beads}
        lanes = order.by_lane(self.world.entries)
        self.lanes = {key: order.in_queue_order(views) for key, views in sorted(lanes.items())}

    @cached_property
    def decided(self) -> dict[str, Decision]:
        """Subject → what the next tick decides about it, and why."""
        return {d.subject: d for d in plan(self.world)}

    def why(self, kind: str, key: str) -> str:
        """The plan's sentence about a subject; empty when nothing is decided about it."""
        decision = self.decided.get(f"{kind} {key}")
        if decision is not None:
            return decision.why
        return ""

    def lane_why(self, rig: int, target: str) -> str:
        """The plan's sentence about a lane."""
        return self.why("lane", f"{self.world.rigs[rig].slug} {target}")

    @cached_property
    def town_wide(self) -> list[Decision]:
        """What holds up more than one subject: an open breaker, a remote that does not work, a full disk, a rig in
        which nobody works. Without what is over."""
        wide = (d for d in self.decided.values() if d.subject.startswith(_TOWN_WIDE))
        return [d for d in wide if not any(isinstance(action, Settle) for action in d.actions)]

    @cached_property
    def shown(self) -> dict[str, Shown]:
        """Active entries and checks by id."""
        found = {}
        for views in self.lanes.values():
            place = 0
            for view in views:
                stage, phase = standing.stands(self.world, view).stage, standing.phase_of(self.world, view)
                position = None
                if phase not in ("blocked", "awaiting_human"):
                    position = place = place + 1
                found[view.id] = Shown(phase, str(stage), self.why("entry", view.id), position)
        for check in self.world.checks:
            stage = check_rules.check_standing(check, self.world.rigs[check.entry.rig]).stage
            why = self.why("entry", check.entry.id)
            found[check.entry.id] = Shown(_OF_CHECKS.get(stage, "gating"), str(stage), why, None)
        return found

    @cached_property
    def asked(self) -> list[EntryView]:
        """The entries, and checks, about which a person is asked; the plan is not needed for it."""
        found = [(e, standing.stands(self.world, e)) for e in self.world.entries]
        found += [(c.entry, check_rules.check_standing(c, self.world.rigs[c.entry.rig])) for c in self.world.checks]
        return [entry for entry, where in found if where.stage in stages.ASKS_PERSON]

    @cached_property
    def unreleased(self) -> list[BeadView]:
        """What agents have filed and a person has yet to release, oldest first; without the beads of staged convoys."""
        filed = (b for b in self.world.beads if b.unreleased)
        waiting = (b for b in filed if self.decided[f"bead {b.id}"].rule == readiness.UNRELEASED)
        return sorted(waiting, key=lambda b: (b.created_at, b.id))

    @cached_property
    def known(self) -> pace.History:
        """How long things took recently: three queries, made at the first use."""
        return history_of.of_town(self.town)

    @cached_property
    def expected(self) -> dict[str, estimates.Estimate]:
        """When each active entry lands."""
        return estimates.of_entries(self.world, self.known)

    def lands(self, entry_id: str) -> estimates.Estimate | None:
        """When an active entry lands; None when it has ended."""
        return self.expected.get(entry_id)

    def convoy_lands(self, convoy: Convoy) -> estimates.Estimate | None:
        """When a live convoy lands; None when it has ended."""
        view = self.world.convoy.get(convoy.pk)
        if view is not None:
            return estimates.of_convoy(self.world, self.known, view, self.expected)
        return None

    def entry(self, entry: ReviewEntry) -> Shown:
        """Phase and reason of any entry, ended ones included."""
        if entry.state == EntryState.MERGED:
            return Shown("merged", "merged", entry.reason_text or entry.reason, None)
        if entry.state == EntryState.CHECKED:
            return Shown("checked", "checked", entry.reason_text or entry.reason, None)
        if entry.state == EntryState.FAILED:
            return Shown("failed", "failed", f"{entry.reason}: {entry.reason_text}", None)
        return self.shown.get(entry.pk) or Shown("queued", "unbuilt", "just submitted", None)

    def bead(self, bead: Bead) -> str:
        """Why a bead stands where it stands, in one sentence."""
        if bead.status in FINAL:
            return bead.reason
        return self.why("bead", bead.pk) or bead.reason

    def bead_phase(self, bead: Bead) -> str:
        """Where a bead stands, in one word: its status when ended, its entry's phase, or what its runs do."""
        view = self.beads.get(bead.pk)
        if view is None or bead.status in FINAL:
            return bead.status
        entry = self.world.entry_of_source.get(bead.pk)
        if entry is not None:
            return standing.phase_of(self.world, entry)
        return readiness.bead_phase(view, self.decided[f"bead {view.id}"].rule)

    def convoy(self, convoy: Convoy) -> tuple[str, str]:
        """A convoy's phase and why."""
        view = self.world.convoy.get(convoy.pk)
        if view is not None:
            return readiness.convoy_phase(view), self.why("convoy", view.id)
        return readiness.ended_phase(convoy.bead.status, convoy.bead.resolution), convoy.bead.reason

    def run(self, run: Run) -> str:
        """Why a run stands where it stands, in one sentence."""
        if run.outcome:
            return run.reason
        return self.why("run", run.pk)


def iso(moment: dt.datetime | None) -> str | None:
    """A moment as commands write it."""
    if moment is None:
        return None
    return moment.isoformat()


def relations(view: EntryView | None) -> dict[str, Any]:
    """How an active entry stands to others: what it waits for, what it stands on, with what it would conflict."""
    if view is None:
        return {"waits_for": [], "stands_on": [], "conflicts_with": []}
    return {
        "waits_for": [b.id for b in (*view.waiting_for, *(a for a in view.after if a.status != BeadStatus.CLOSED))],
        "stands_on": [b.id for b in view.ties.stacked_on],
        "conflicts_with": [{"id": c.id, "files": list(c.files)} for c in view.ties.clashes],
    }


def entry_data(board: Board, entry: ReviewEntry) -> dict[str, Any]:
    """An entry as lists show it."""
    shown = board.entry(entry)
    reason = entry.reason
    if entry.state == EntryState.ACTIVE:
        reason = shown.reason
    return {
        "id": entry.pk,
        "phase": shown.phase,
        "reason": reason,
        "detail": shown.reason,
        "stage": shown.stage,
        "head": entry.head_sha,
        "target": entry.target,
        "branch": entry.branch,
        "position": shown.position,
        "attempts": entry.attempts,
        "bead": entry.source_id,
        "convoy": entry.convoy_id,
        "kind": entry.kind,
        "rig": entry.rig.slug,
        "title": entry.bead.title,
        "priority": entry.bead.priority,
        "merge_sha": entry.merge_sha,
        "held": entry.held,
        "land_now": iso(entry.land_now_at),
        **relations(board.world.entry.get(entry.pk)),
        **(board.lands(entry.pk) or estimates.Estimate("")).as_dict(),
        "rework": entry.rework_count,
        "created_at": entry.created_at.isoformat(),
        "admitted_at": iso(entry.admitted_at),
    }


def view_data(board: Board, view: EntryView) -> dict[str, Any]:
    """An active entry as pages list it, without another look at the database."""
    shown = board.shown[view.id]
    car, ahead = None, ""
    if view.car is not None:
        car, ahead = view.car.place, view.car.ahead
    return {
        "id": view.id,
        "phase": shown.phase,
        "stage": shown.stage,
        "detail": shown.reason,
        "branch": view.branch,
        "position": shown.position,
        "attempts": view.attempts,
        "kind": view.kind,
        "car": car,
        "ahead": ahead,
        "title": view.title,
        "held": view.held,
        **relations(view),
        **board.expected[view.id].as_dict(),
        "created_at": view.created_at,
        "admitted_at": view.admitted_at,
    }


def entry_detail(board: Board, entry: ReviewEntry) -> dict[str, Any]:
    """An entry with all that is known about it."""
    candidate = entry.candidates.filter(build_no=entry.build_no).first() or entry.candidates.last()
    built: dict[str, Any] = {"candidate": None, "gates": [], **pulls.of_entry(entry)}
    if candidate is not None:
        told = {"sha": candidate.sha, "tree": candidate.tree_sha, "base": candidate.base_sha}
        told |= {"head": candidate.head_sha, "result": candidate.result}
        told |= {"files": candidate.files, "error": candidate.error}
        built |= {"candidate": told, "gates": gate_results(entry, candidate, past=True)}
    return entry_data(board, entry) | {
        **built,
        "superseded_by": entry.superseded_by_id,
        "again": ways.again(entry),
        "batch": _batch(board, entry),
        "blocked_by": list(entry.bead.blocked_by.values_list("on_id", flat=True)),
        "gates_run": _gates_run(entry),
        "gate_history": [
            {"gate": g.gate, "outcome": g.outcome, "tree": g.tree_sha, "exit_code": g.exit_code, "sandbox": g.sandbox}
            | {"flaky": g.flaky, "duration_ms": g.duration_ms}
            for g in entry.gate_results.all()
        ],
        "verdicts": [
            {"decision": v.decision, "by": v.by, "head": v.head_sha, "feedback": v.feedback, "items": v.items}
            | {"human": v.run_id is None, "at": v.created_at.isoformat()}
            for v in entry.verdicts.all()
        ],
        "comments": [
            {"file": c.file, "line": c.line, "side": c.side, "by": c.by, "body": c.body, "head": c.head_sha}
            | {"resolved": c.resolved}
            for c in entry.comments.all()
        ],
        "landings": [
            {"state": x.state, "expected": x.expected_sha, "candidate": x.candidate.sha, "message": x.message}
            | {"evidence": x.evidence, "waived": _waived(x)}
            for x in entry.landings.select_related("candidate")
        ],
        "history": history(entry.bead),
    }


def _gates_run(entry: ReviewEntry) -> dict[str, str] | None:
    """The latest run of its gates, with the address of its log."""
    run = entry.bead.runs.filter(kind="gates").order_by("created_at").last()
    if run is not None:
        return {"id": run.pk, "url": links.run_url(run.pk)}
    return None


def _batch(board: Board, entry: ReviewEntry) -> dict[str, Any] | None:
    """The entries that are (or, once it is no car, were) gated as one with it, and why the batch was cut so."""
    cut = entry.bead.events.filter(kind__in=["batched", "batch_cut"]).order_by("id").last()
    if cut is None:
        return None
    view = board.world.entry.get(entry.pk)
    if view is None or view.car is None:
        return {"entries": [], "why": cut.reason}
    return {"entries": list(view.car.batch), "why": cut.reason}


def _waived(landing: Landing) -> str:
    """What is said of a landing that made use of a waiver."""
    told = [f"; gates skipped by {e['by']} because {e['because']}" for e in landing.evidence if "waiver" in e]
    return "".join(told)


def history(bead: Bead, most: int = 0) -> list[dict[str, Any]]:
    """A bead's events, oldest first; with `most` the latest of them."""
    events = bead.events.order_by("-id")
    if most:
        events = events[:most]
    return [
        {
            "at": e.created_at.isoformat(),
            "kind": e.kind,
            "from": e.from_status,
            "to": e.to_status,
            "actor": e.actor,
            "reason": e.reason,
            "data": e.data,
        }
        for e in reversed(events)
    ]


def bead_row(board: Board, bead: Bead) -> dict[str, Any]:
    """A bead as lists show it."""
    return {
        "id": bead.pk,
        "type": bead.type,
        "status": bead.status,
        "phase": board.bead_phase(bead),
        "resolution": bead.resolution,
        "reason": board.bead(bead),
        "title": bead.title,
        "priority": bead.priority,
        "model": bead.model,
        "purpose": bead.purpose,
        "staged": bead.unreleased and bead.status not in (BeadStatus.CLOSED, BeadStatus.FAILED),
        "filed_by": bead.filed_by,
        "depth": bead.depth,
        "rig": bead.rig.slug if bead.rig else None,
        "convoy": bead.convoy_id,
        "merge_sha": bead.merge_sha,
        "created_at": bead.created_at.isoformat(),
        "updated_at": bead.updated_at.isoformat(),
    }


def convoy_data(board: Board, convoy: Convoy) -> dict[str, Any]:
    """A convoy with its beads by wave."""
    phase, why = board.convoy(convoy)
    beads = list(convoy.beads.defer("body", "context").prefetch_related("rig"))
    after: dict[str, list[str]] = {b.pk: [] for b in beads}
    for key, on in Dependency.objects.filter(bead__convoy=convoy).order_by("pk").values_list("bead_id", "on_id"):
        after[key].append(on)
    wave_of = {key: number for number, wave in enumerate(waves(after), 1) for key in wave}
    rows = [bead_row(board, b) | {"key": b.plan_key, "wave": wave_of[b.pk], "after": after[b.pk]} for b in beads]
    return {
        "id": convoy.pk,
        "title": convoy.bead.title,
        "rig": convoy.rig.slug,
        "phase": phase,
        "reason": why,
        "status": convoy.bead.status,
        "resolution": convoy.bead.resolution,
        "merge_mode": convoy.merge_mode,
        "staged": convoy.started_at is None,
        "filed_by": convoy.bead.filed_by,
        "closed": sum(1 for b in beads if b.status == BeadStatus.CLOSED),
        "total": len(beads),
        "landed_sha": convoy.landed_sha,
        **(board.convoy_lands(convoy) or estimates.Estimate("")).as_dict(),
        "branches": [
            {"rig": b.rig.slug, "name": b.name, "base": b.base_sha, "head": b.head_sha, "landed": b.landed_sha}
            for b in convoy.branches.select_related("rig")
        ],
        "beads": sorted(rows, key=lambda r: (r["wave"], r["created_at"])),
    }
