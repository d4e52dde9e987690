"""Actions on lanes and their trains: who gets on, is built, lands."""

from __future__ import annotations

import datetime as dt

from agents import roster
from beads import ledger
from beads.models import Bead, Town
from beads.prepared import Prepared
from refinery.core import effects
from refinery.core.actions import (
    AbandonLanding,
    Admit,
    CheckAnew,
    Foresee,
    Land,
    Leave,
    OfTrains,
    Prove,
    PushAgain,
    Rebuild,
    Regroup,
    SetWindow,
)
from refinery.models import Candidate, Landing, ReviewEntry
from refinery.store import entries, forecasts, landings, lanes
from refinery.tick import briefs
from refinery.tick.endings import ACTOR, enqueue

_ENTRY = Prepared(lambda pk: ReviewEntry.objects.select_related("rig", "convoy").filter(pk=pk))


def apply(town: Town, action: OfTrains, now: dt.datetime) -> None:
    """Carry out one of them."""
    match action:
        case Admit():
            _admit(town, action, now)
        case Leave(entry, innocent):
            entries.leave(entry, innocent=innocent)
        case Prove(entry, build_no):
            _build(town, entry, entries.prove(entry, build_no), None, now)
        case CheckAnew(entry, build_no):
            _build(town, entry, entries.check_anew(entry, build_no), None, now)
        case Regroup(expect, places, why):
            entries.regroup(expect, [(p.entry, p.batch, p.slot) for p in places])
            for place in places:
                ledger.note(Bead(pk=place.entry), "batch_cut", ACTOR, why)
        case Rebuild(entry, build_no, counts, on, seal):
            _build(town, entry, entries.rebuild(entry, build_no, counts=counts), on, now, seal)
        case Land() | PushAgain() | AbandonLanding():
            _push(town, action, now)
        case SetWindow(rig, target, size):
            lanes.set_window(rig, target, size)
        case Foresee(rig, target, expect, heads, tip):
            asked = forecasts.ask(rig, target, expect, heads, tip, now)
            enqueue(town, effects.Foresee(asked.pk, asked.number), now, rig)


def _push(town: Town, action: Land | PushAgain | AbandonLanding, now: dt.datetime) -> None:
    match action:
        case Land():
            _land(town, action, now)
        case PushAgain(landing_id):
            pushed = Landing.objects.only("rig").get(pk=landing_id)
            enqueue(town, effects.Land(landing_id), now, pushed.rig_id)
        case AbandonLanding(landing_id):
            landings.abandon(landing_id, now)


def _land(town: Town, action: Land, now: dt.datetime) -> None:
    """The intent is written before anything is pushed: after a crash git is asked what became of it."""
    found = Candidate.objects.select_related("entry__rig").in_bulk([c.candidate for c in action.cars])
    waivers = {c.candidate: c.waiver for c in action.cars if c.waiver}
    landing = landings.intend([(found[c.candidate], c.evidence) for c in action.cars], waivers)
    enqueue(town, effects.Land(landing.pk), now, landing.rig_id)


def _build(town: Town, entry_id: str, build_no: int, on: int | None, now: dt.datetime, seal: int | None = None) -> None:
    """The build is pinned to the head of this moment; its date makes the commit reproducible."""
    (entry,) = _ENTRY(entry_id)
    work = effects.Build(entry_id, build_no, entry.head_sha, int(now.timestamp()), on, seal)
    enqueue(town, work, now, entry.rig_id)


def _admit(town: Town, action: Admit, now: dt.datetime) -> None:
    build_no = entries.admit(action.entry, action.build_no, action.slot, now, action.batch)
    if action.why:
        ledger.note(Bead(pk=action.entry), "batched", ACTOR, action.why)
    if action.build:
        _build(town, action.entry, build_no, action.on, now)
    (entry,) = _ENTRY(action.entry)
    roster.refinery_for(entry.rig, briefs.lane_convoy(entry))
