"""Beads that wait for a person have their buttons, on their own page and among the needs of the town."""

from __future__ import annotations

import pytest
from django.test import Client

from agents import runs
from beads.models import Bead, Fact
from tests.db.conftest import Place
from tests.web.consoles import failed_convoy

CONFIRM, RETRY = "Nothing was needed: close it", "Try again"


def nothing_changed(place: Place) -> Bead:
    """A bead whose agent has said that it is done, and has changed nothing."""
    bead = place.bead("Paint")
    place.tick()
    run, _ = place.running(bead=bead)
    place.say(run, "run.done", summary="all is well")
    place.exit(run, work="nothing", published=True)
    place.tick()
    return Bead.objects.get(pk=bead.pk, status="failed", resolution="nothing_changed")


@pytest.mark.parametrize(("verb", "status"), [("confirm", "closed"), ("retry", "in_progress")])
def test_g2_an_operator_says_whether_anything_was_needed(
    place: Place, operator: Client, viewer: Client, verb: str, status: str
) -> None:
    bead = nothing_changed(place)
    for page in (f"/beads/{bead.pk}/", f"/towns/{place.town.slug}/"):
        shown = operator.get(page).content.decode()
        assert CONFIRM in shown and RETRY in shown
        assert f"/beads/{bead.pk}/confirm/" in shown and f"/beads/{bead.pk}/retry/" in shown
        assert CONFIRM not in viewer.get(page).content.decode()
    assert operator.post(f"/beads/{bead.pk}/{verb}/").status_code == 302
    place.tick()
    bead.refresh_from_db()
    assert bead.status == status
    assert CONFIRM not in operator.get(f"/towns/{place.town.slug}/").content.decode()


def test_runs_that_cannot_be_started_say_why_on_the_town_page_and_the_bead(place: Place, operator: Client) -> None:
    bead = place.bead("Paint")
    why = "no sandbox can be started here: apt install bubblewrap"
    for _ in range(4):
        place.tick()
        if picked := runs.pick("runner", place.now):
            runs.start_failed(picked[0].pk, why)
    place.tick()
    assert f"Runs could not be started: {why}" in operator.get(f"/towns/{place.town.slug}/").content.decode()
    shown = operator.get(f"/beads/{bead.pk}/").content.decode()
    assert f"its run could not be started: {why}; tried again at" in shown


def test_why_a_convoy_is_retried_is_asked_on_its_page_and_told_to_who_works_on_it(
    place: Place, operator: Client, viewer: Client
) -> None:
    convoy = failed_convoy(place)
    field = '<input name="reason">'
    page = f"/convoys/{convoy.pk}/"
    assert field in operator.get(page).content.decode()
    assert field not in viewer.get(page).content.decode()
    assert field not in operator.get(f"/towns/{place.town.slug}/").content.decode()
    why = "the fixtures are there now"
    assert operator.post(f"{page}retry/", {"reason": why}).status_code == 302
    assert Fact.objects.get(kind="convoy.retry").payload == {"reason": why}
    place.tick()
    assert f"retried: {why}" in operator.get(f"/beads/{convoy.beads.get().pk}/").content.decode()
