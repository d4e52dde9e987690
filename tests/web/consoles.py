"""The ops console's pages, how an action is asked for there, and a row that each is meant for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.test import Client

from agents.models import Run
from beads import config as configs
from beads import inbox, ledger, outbox, plans
from beads.actors import Actor
from beads.lifecycle import BeadStatus, Resolution
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Rig, Town
from refinery.decisions import merge_queue
from refinery.models import Lane, ReviewEntry
from tests.db.conftest import Place

WHY = "the build host is back"
OURS = ("beads", "agents", "refinery")
CONSOLES = sorted(
    ((m, c) for m, c in admin.site._registry.items() if m._meta.app_label in OURS), key=lambda mc: mc[0]._meta.label
)
LABELS = [m._meta.label for m, _ in CONSOLES]


def page(row: Model | type[Model]) -> str:
    """The list page of a row's table."""
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/"


def act(client: Client, action: str, row: Model) -> Any:
    """Choose an action for one row and say why, as the form does."""
    form = {"action": action, "_selected_action": [str(row.pk)], "reason": WHY}
    return client.post(page(row), form, follow=True)


def capped(make: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """A row of a town whose config has budgets."""

    def made(place: Place) -> Any:
        row = make(place)
        budget = {"bead": "1 USD", "convoy": "1 USD", "day": "1 USD"}
        ledger.set_config(place.town, configs.validate({**place.town.config, "budget": budget}))
        return row

    return made


def staged(place: Place) -> Convoy:
    """A staged convoy of one bead."""
    plan = plans.parse([{"key": "one", "title": "One"}], "plan", place.rig, lambda slug: place.rig)
    return ledger.create_convoy(place.rig, "Square", "review-and-merge", plan, actor="test")


def started(place: Place) -> Convoy:
    """The same, started."""
    convoy = staged(place)
    inbox.record(place.town, "convoy.start", convoy.pk, {}, actor="test")
    place.tick()
    return Convoy.objects.get(pk=convoy.pk)


def failed_bead(place: Place, bead: Bead | None = None) -> Bead:
    """A bead that gave up."""
    bead = bead or place.bead("Paint")
    bead.refresh_from_db()
    end = ledger.Transition(BeadStatus.FAILED, reason="gave up", resolution=Resolution.GAVE_UP)
    ledger.move(bead, bead.status, end, actor="test")
    return Bead.objects.get(pk=bead.pk, status="failed")


def filed_bead(place: Place) -> Bead:
    """What an agent has filed, and nobody has released."""
    filed = ledger.Filed("run-test0000", 1, waits=True)
    return ledger.create_bead(place.town, place.rig, ledger.Draft("Idea"), actor="Rust", filed=filed)


def nothing_changed(place: Place) -> Bead:
    """A bead whose agent changed nothing."""
    bead = failed_bead(place)
    Bead.objects.filter(pk=bead.pk).update(resolution=Resolution.NOTHING_CHANGED)
    return Bead.objects.get(pk=bead.pk)


def failed_convoy(place: Place) -> Convoy:
    """A started convoy whose bead failed."""
    convoy = started(place)
    failed_bead(place, convoy.beads.get())
    return Convoy.objects.get(pk=convoy.pk)


def held_entry(place: Place) -> ReviewEntry:
    """An entry that was rejected: retry brings it back."""
    entry = place.entry()
    inbox.record(place.town, "entry.reject", entry.pk, {"reason": "no"}, actor="test")
    place.tick()
    return ReviewEntry.objects.get(pk=entry.pk, state="failed")


def admitted_entry(place: Place) -> ReviewEntry:
    """An entry in its lane's slot."""
    entry = place.entry()
    place.tick()
    return ReviewEntry.objects.get(pk=entry.pk, admitted_at__isnull=False)


def superseded_entry(place: Place) -> ReviewEntry:
    """An entry whose branch has a newer one."""
    old = place.entry(head="a" * 40)
    place.entry(head="b" * 40)
    return ReviewEntry.objects.get(pk=old.pk, state="failed")


def frozen_lane(place: Place) -> Lane:
    """A lane in which nothing moves."""
    merge_queue.freeze(place.rig, by=Actor("", "test"), reason="release")
    return Lane.objects.get(rig=place.rig)


def drained_fact(place: Place) -> Fact:
    """An observation that was taken in."""
    inbox.record(place.town, "run.published", live_run(place).pk)
    place.tick()
    return Fact.objects.get(kind="run.published", processed_at__isnull=False)


def live_run(place: Place) -> Run:
    """A polecat at work."""
    place.bead()
    place.tick()
    return place.running(kind="polecat")[0]


def quarantined(place: Place) -> Fact:
    """A fact that nobody understands, tried three times."""
    inbox.record(place.town, "no.such.kind")
    for _ in range(inbox.MAX_TRIES):
        place.tick()
    return Fact.objects.get(quarantined_at__isnull=False)


def failed_effect(place: Place) -> Effect:
    """An effect that was given up."""
    outbox.enqueue(place.town, "build", "build:test:1", {}, place.now)
    effect = Effect.objects.get(key="build:test:1")
    outbox.give_up(effect, place.now, "no")
    return effect


def escalation(place: Place) -> Escalation:
    """An open escalation."""
    bead = ledger.escalate(place.town, ledger.Problem("test", "Look"), actor="test")
    assert bead is not None
    return Escalation.objects.get(pk=bead.pk)


def paused(place: Place) -> Town:
    """A paused town."""
    ledger.pause_town(place.town, "lunch")
    return place.town


def parked(place: Place) -> Rig:
    """A parked rig."""
    ledger.park_rig(place.rig)
    return place.rig


def of_place(name: str) -> Callable[[Place], Any]:
    """The place's own town or rig."""
    return lambda place: getattr(place, name)
