"""Stop and save, hints and questions on the pages of a run, a bead and a town; and who has the buttons."""

from __future__ import annotations

import pytest
from django.test import Client

from agents.api import tools
from agents.models import Run
from beads.models import Bead, Fact
from tests.db.conftest import Place

SAVE, HINT, GO_ON = "Stop and save", "Go on with this hint", "Go on"


@pytest.fixture
def run(place: Place) -> Run:
    """A run at work."""
    place.bead("Fence")
    place.tick()
    return place.running()[0]


def text(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def test_a_run_is_stopped_and_saved_on_its_page_and_goes_on_from_the_towns(
    place: Place, operator: Client, viewer: Client, run: Run
) -> None:
    page, bead, town = f"/runs/{run.pk}/", f"/beads/{run.bead_id}/", f"/towns/{place.town.slug}/"
    for url in (page, bead):
        assert SAVE in text(operator, url) and HINT in text(operator, url)
        assert SAVE not in text(viewer, url) and HINT not in text(viewer, url)
    answer = operator.post(f"{page}save/", {"reason": "wrong way"})
    assert answer.status_code == 302 and answer["Location"] == page
    place.tick()
    place.exit(run, 143)
    place.tick()
    for url in (bead, town):
        assert "stopped by web:olga: wrong way" in text(operator, url)
    assert f"/beads/{run.bead_id}/retry/" in text(operator, town) and GO_ON in text(operator, town)
    assert SAVE not in text(operator, bead)
    assert operator.post(f"/beads/{run.bead_id}/retry/", {"reason": "left"}).status_code == 302
    place.tick()
    assert Run.objects.filter(bead=run.bead_id, state="queued").count() == 1
    assert "wrong way" not in text(operator, town)


@pytest.mark.parametrize("where", ["runs", "beads"])
def test_a_hint_is_given_on_either_page(place: Place, operator: Client, run: Run, where: str) -> None:
    key = run.pk if where == "runs" else run.bead_id
    sent = operator.post(f"/{where}/{key}/hint/", {"text": "look at <b>colours.py</b>"}, follow=True)
    assert "goes on with your hint" in sent.content.decode()
    place.tick()
    run.refresh_from_db()
    assert run.stop_reason == "stopped by web:olga, to go on with a hint"
    assert "<b>colours.py" not in text(operator, f"/beads/{run.bead_id}/")


def test_an_empty_hint_is_refused_with_one_sentence(place: Place, operator: Client, run: Run) -> None:
    sent = operator.post(f"/runs/{run.pk}/hint/", {"text": "  "}, follow=True)
    assert "text is empty" in sent.content.decode()
    assert not Fact.objects.filter(kind="bead.hint").exists()


def test_a_reader_may_neither(place: Place, viewer: Client, run: Run) -> None:
    for verb in ("save", "hint"):
        assert viewer.post(f"/runs/{run.pk}/{verb}/", {"text": "x"}).status_code == 403
    assert not Fact.objects.filter(kind__in=["bead.hint", "bead.hold"]).exists()


def test_a_bead_that_waits_for_an_answer_has_the_question_and_its_box_on_every_page(
    place: Place, operator: Client, run: Run
) -> None:
    asked = tools.call("gt_ask", run, {"text": "Which colour?\nBlue or red."}, place.now)[1]
    place.exit(run, 1)
    place.tick()
    bead = f"/beads/{run.bead_id}/"
    for url in (bead, f"/runs/{run.pk}/", f"/towns/{place.town.slug}/"):
        assert "Which colour?" in text(operator, url) and f"/escalations/{asked['id']}/answer/" in text(operator, url)
    assert "its agent asks: Which colour?" in text(operator, bead)
    assert operator.post(f"/escalations/{asked['id']}/answer/", {"text": "Blue"}).status_code == 302
    place.tick()
    assert Bead.objects.get(pk=run.bead_id).status == "in_progress"
    assert f"/escalations/{asked['id']}/answer/" not in text(operator, bead)
