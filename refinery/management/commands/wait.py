"""`wait`: block until something ends. Exit 0 merged, closed or landed; 1 failed; 3 time-out."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.db import transaction
from django.db.models import Q

from agents.models import Run
from beads.channels import look_until
from beads.command import ExitWith, GastownCommand
from beads.finders import bead_of
from beads.lifecycle import LIVE, BeadStatus
from beads.models import Bead, Effect, Fact, Town
from refinery import links
from refinery.core.states import EntryState
from refinery.decisions.subjects import convoy_of, entry_of
from refinery.models import ReviewEntry
from refinery.pages import boards
from refinery.tick import reconciler

TIMED_OUT = 3
LOOK_SECONDS = 0.5


class Command(GastownCommand):
    help = "Wait until a convoy, a bead or an entry ends, or until nothing is going on."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--convoy", metavar="ID")
        what.add_argument("--bead", metavar="ID")
        what.add_argument("--mq", metavar="ID")
        what.add_argument("--idle", action="store_true")
        parser.add_argument("--timeout", type=float, default=None, metavar="SECONDS")

    def run(  # type: ignore[override]
        self, convoy: str | None, bead: str | None, mq: str | None, idle: bool, timeout: float | None, **_: Any
    ) -> Any:
        """Look at each wake-up, and every half second anyway."""

        def look() -> tuple[bool | None, dict[str, Any]]:
            if convoy:
                return _bead(convoy_of(convoy).bead)
            if bead:
                return _bead(bead_of(bead))
            if mq:
                return _entry(entry_of(mq))
            return _idle()

        good, data = look_until(look, lambda seen: seen[0] is not None, at_most=timeout, every=LOOK_SECONDS)
        if good:
            return data
        data["links"] = links.addresses(str(data.get("detail") or data.get("reason") or ""))
        if good is not None:
            return ExitWith(data, 1)
        return ExitWith(data | {"timeout": True}, TIMED_OUT)


def _bead(bead: Bead) -> tuple[bool | None, dict[str, Any]]:
    data = {"id": bead.pk, "status": bead.status, "resolution": bead.resolution, "reason": bead.reason}
    if bead.status in LIVE:
        board = boards.Board(bead.town)
        data["reason"] = board.convoy(bead.convoy_detail)[1] if bead.type == "convoy" else board.bead(bead)
        return None, data
    return bead.status == BeadStatus.CLOSED and bead.resolution not in ("cancelled", "superseded"), data


def _entry(entry: ReviewEntry) -> tuple[bool | None, dict[str, Any]]:
    data = boards.entry_data(boards.Board(entry.rig.town), entry)
    return (None if entry.state == EntryState.ACTIVE else entry.state in (EntryState.MERGED, EntryState.CHECKED)), data


def _idle() -> tuple[bool | None, dict[str, Any]]:
    """Nothing runs, nothing is to be done outside, no fact waits, no lane works on an entry, and nothing is planned.

    Looked at twice: the second time no tick is under way, for between two of them all may look quiet.
    """
    busy = _going_on()
    if not any(busy.values()):
        with transaction.atomic():
            towns = list(Town.objects.select_for_update().order_by("pk"))
            busy = _going_on()
            busy["planned"] = sum(len(d.actions) for town in towns for d in reconciler.explain(town))
    if any(busy.values()):
        return None, busy
    return True, busy


def _going_on() -> dict[str, int]:
    """What is under way, counted. Facts after effects: an effect ends as its fact is recorded."""
    return {
        "runs": Run.objects.live().count(),
        "effects": Effect.objects.pending().count(),
        "facts": Fact.objects.filter(processed_at=None, quarantined_at=None).count(),
        "admitted": ReviewEntry.objects.filter(Q(state=EntryState.ACTIVE) & ~Q(admitted_at=None)).count(),
    }
