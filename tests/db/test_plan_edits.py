"""What a person changes in a plan before anybody has begun it."""

from __future__ import annotations

import pytest

from beads import ledger, plans
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.models import Bead, Convoy, Fact
from refinery.decisions import work
from tests.db.conftest import Place

ANN = Actor("cli", "ann")


def test_a_person_edits_a_staged_plan_before_it_is_started(place: Place) -> None:
    plan = plans.parse([{"key": "table", "title": "Add the table"}], "plan", place.rig, lambda slug: place.rig)
    key = ledger.create_convoy(place.rig, "Export", "review-then-land", plan, actor="mayor").pk
    bead = Bead.objects.select_related("town").get(convoy=key, plan_key="table")
    work.edit_bead(bead, by=ANN, title="Add the table, with an index", priority=0, reason="it is slow")
    place.tick()
    bead.refresh_from_db()
    assert (bead.title, bead.body, bead.priority) == ("Add the table, with an index", "", 0)
    told = bead.events.get(kind="edited")
    assert (told.actor, told.reason, told.data["old"]) == (
        "cli:ann",
        "it is slow",
        {"title": "Add the table", "priority": 2},
    )
    with pytest.raises(Invalid, match="nothing is to be changed"):
        work.edit_bead(bead, by=ANN)
    with pytest.raises(Invalid, match="priority must be 0 to 4"):
        work.edit_bead(bead, by=ANN, priority=5)
    work.start_convoy(Convoy.objects.select_related("rig", "bead__town").get(pk=key), by=ANN)
    work.edit_bead(bead, by=ANN, title="Too late")
    Bead.objects.filter(pk=bead.pk).update(status="in_progress")
    place.tick()
    bead.refresh_from_db()
    assert bead.title == "Add the table, with an index"
    assert "no longer open" in Fact.objects.filter(kind="bead.edit").latest("pk").error
    bead.status = "in_progress"
    with pytest.raises(Conflict, match="nobody has begun"):
        work.edit_bead(bead, by=ANN, title="Later still")
