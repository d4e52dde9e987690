"""What the console's first page says: is the machine alive, what fails, what each lane does, who is waited for.

Everything is of the towns in which the user is an operator; the heartbeats and invariants are the installation's.
Statuses and sentences come from `refinery.pages.boards`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet
from django.urls import reverse
from django.utils import timezone

from beads import lists, people
from beads.lifecycle import EffectState
from beads.models import Effect, Escalation, Fact, Town, TownRole
from gastown_site import health
from refinery.console.filters import FAILING
from refinery.core import readiness
from refinery.core.entryviews import EntryView
from refinery.models import Violation
from refinery.pages import boards

LIMIT = 25


@dataclass(frozen=True)
class Tile:
    """One number (or word), how good it is (ok, warn, bad), and where it leads."""

    label: str
    value: str
    state: str
    link: str = ""
    words: bool = False


@dataclass(frozen=True)
class Need:
    """Something that waits for a person."""

    what: str
    why: str
    link: str
    since: dt.datetime | None = None


def look(user: Any, most: int = LIMIT) -> dict[str, Any]:
    """The dashboard's context. `most`: of what waits for a person; 0: all."""
    now = timezone.now()
    towns = list(people.towns(user, TownRole.OPERATOR))
    looks = [_Town(town, now) for town in towns]
    oldest = min((e for one in looks for e in one.waiting), key=lambda e: e.created_at, default=None)
    needs = [need for one in looks for need in one.needs] + _escalations(towns)
    needs.sort(key=lambda n: n.since or now)
    return {
        "alive": _alive(),
        "tiles": [*_queues(towns), _oldest(oldest, now), _count("Need a person", len(needs), "warn", "#needs")],
        "looks": looks,
        "needs": lists.first(needs, most),
        "invariants": [f"{v.number}: {v.subject}: {v.sentence}. To mend it: {v.remedy}" for v in _violations(towns)],
        "asked_at": now,
    }


def _violations(towns: list[Town]) -> QuerySet[Violation]:
    return Violation.objects.filter(town__in=towns, cleared_at=None)


class _Town:
    """One look at one town."""

    def __init__(self, town: Town, now: dt.datetime) -> None:
        self.town = town
        self.link = reverse("admin:beads_town_change", args=[town.pk])
        board = boards.Board(town)
        world = board.world
        self.breaker = world.breaker_open
        self.failures = world.failures_in_a_row
        self.runs = len(world.runs)
        self.waiting = [
            e for e in world.entries if board.shown[e.id].phase not in ("awaiting_human", "blocked") and not e.admitted
        ]
        self.lanes = []
        for (rig, target), entries in board.lanes.items():
            name = world.rigs[rig].slug
            self.lanes.append(
                {
                    "rig": name,
                    "target": target,
                    "says": board.lane_why(rig, target),
                    "cars": self._cars(board, entries),
                    "entries": len(entries),
                }
            )
        self.needs = self._needs(board)

    @staticmethod
    def _cars(board: boards.Board, entries: list[EntryView]) -> list[dict[str, str]]:
        """What each car of the lane's train is doing, in order."""
        return [
            {"id": e.id, "link": _entry(e.id), "phase": board.shown[e.id].phase, "why": board.shown[e.id].reason}
            for e in entries
            if e.admitted
        ]

    def _needs(self, board: boards.Board) -> list[Need]:
        world = board.world
        needs = []
        if self.town.paused_at is not None:
            needs.append(
                Need(f"town {self.town.slug}", f"paused: {self.town.paused_reason}", self.link, self.town.paused_at)
            )
        if self.breaker:
            text = board.why("town", self.town.slug)
            needs.append(Need(f"town {self.town.slug}", text, reverse("admin:agents_run_changelist") + "?now=bad"))
        for rig in world.rigs.values():
            link = reverse("admin:beads_rig_change", args=[rig.id])
            needs += [Need(f"rig {rig.slug}", problem, link) for problem in rig.problems]
            if rig.parked:
                needs.append(Need(f"rig {rig.slug}", "is parked", link))
        for entry in world.entries:
            shown = board.shown[entry.id]
            if shown.needs_person:
                needs.append(Need(f"entry {entry.id}", shown.reason, _entry(entry.id), entry.created_at))
        for check in world.checks:
            if check.entry.held:
                shown = board.shown[check.entry.id]
                needs.append(
                    Need(f"check {check.entry.id}", shown.reason, _entry(check.entry.id), check.entry.created_at)
                )
        for bead in board.unreleased:
            link = reverse("admin:beads_bead_change", args=[bead.id])
            needs.append(Need(f"bead {bead.id}", bead.unreleased, link, bead.created_at))
        for convoy in world.convoys:
            if readiness.convoy_phase(convoy) == "needs_attention":
                link = reverse("admin:beads_convoy_change", args=[convoy.id])
                needs.append(Need(f"convoy {convoy.id}", board.why("convoy", convoy.id), link, convoy.started_at))
        return needs


def _entry(key: str) -> str:
    return reverse("admin:refinery_reviewentry_change", args=[key])


def _escalations(towns: list[Town]) -> list[Need]:
    found = (
        Escalation.objects.select_related("bead").filter(town__in=towns, closed_at=None).order_by("-bead__created_at")
    )
    return [
        Need(
            f"escalation {one.pk}",
            one.bead.title + (f" (seen by {one.acknowledged_by})" if one.acknowledged_by else ""),
            reverse("admin:beads_escalation_change", args=[one.pk]),
            one.bead.created_at,
        )
        for one in found.order_by("-bead__created_at")
    ]


def _alive() -> list[Tile]:
    link = reverse("admin:beads_heartbeat_changelist")
    return [Tile(s.part, s.wrong or "ok", "bad" if s.wrong else "ok", link, True) for s in health.standings()]


def _count(label: str, count: int, bad: str, link: str) -> Tile:
    return Tile(label, str(count), bad if count else "ok", link)


def _queues(towns: list[Town]) -> list[Tile]:
    facts, effects = reverse("admin:beads_fact_changelist"), reverse("admin:beads_effect_changelist")

    def _rows(model: type[Model], **match: Any) -> QuerySet[Any]:
        return model._default_manager.filter(town__in=towns, **match)

    late = timezone.now() - dt.timedelta(minutes=2)
    pending = _rows(Fact, processed_at=None, quarantined_at=None)
    stale = pending.filter(recorded_at__lt=late).exists()
    quarantined = _rows(Fact, processed_at=None, quarantined_at__isnull=False).count()
    return [
        Tile("Facts pending", str(pending.count()), "bad" if stale else "ok", f"{facts}?now=pending"),
        _count("Facts in quarantine", quarantined, "bad", f"{facts}?now=quarantined"),
        Tile("Effects pending", str(_rows(Effect, state=EffectState.PENDING).count()), "ok", f"{effects}?now=pending"),
        _count(
            "Effects failing",
            _rows(Effect, state=EffectState.PENDING, attempts__gte=FAILING).count(),
            "warn",
            f"{effects}?now=failing",
        ),
        _count("Effects given up", _rows(Effect, state=EffectState.FAILED).count(), "bad", f"{effects}?now=failed"),
    ]


def _oldest(entry: EntryView | None, now: dt.datetime) -> Tile:
    if entry is None:
        return Tile("Oldest waiting entry", "none waits", "ok", "", True)
    age = now - entry.created_at
    state = "ok"
    if age > dt.timedelta(hours=4):
        state = "bad"
    elif age > dt.timedelta(hours=1):
        state = "warn"
    return Tile("Oldest waiting entry", f"{entry.id}, {_span(age)}", state, _entry(entry.id), True)


def _span(age: dt.timedelta) -> str:
    seconds = int(age.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
