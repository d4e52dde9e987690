"""What pages say of models: a bead's own, and that one plays a script and is not charged for."""

from __future__ import annotations

from decimal import Decimal

from django.test import Client

from agents import usage
from agents.usage import Reading
from beads import config as configs
from beads import ledger
from beads.budget import Spent
from beads.models import Bead
from tests.db.conftest import Place
from tests.web.conftest import Agent

CHARGED = "nothing of this is charged"


def text(client: Client, path: str) -> str:
    """A page's text, without its line breaks."""
    answer = client.get(path)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_a_scripted_model_is_said_wherever_money_is_and_only_then(
    place: Place, polecat: Agent, operator: Client
) -> None:
    usage.book(polecat.run, Reading("scripted", Spent(3, 900), "sonnet", Decimal("0.25")), {}, place.now)
    pages = ["/towns/main/", f"/beads/{polecat.run.bead_id}/", f"/runs/{polecat.run.pk}/"]
    assert all("0.25 USD" in text(operator, page) and CHARGED not in text(operator, page) for page in pages)
    told = {**place.town.config, "providers": {"anthropic": {"scripted": True}}}
    ledger.set_config(place.town, configs.validate(told))
    assert all(CHARGED in text(operator, page) for page in pages)
    assert "model plays a script (anthropic): no call leaves this machine" in text(operator, pages[0])


def test_the_beads_page_shows_its_model_and_takes_another(place: Place, operator: Client) -> None:
    told = {**place.town.config, "agents": {"polecat": {"preset": "claude"}}}
    ledger.set_config(place.town, configs.validate(told))
    bead = ledger.create_bead(place.town, place.rig, ledger.Draft("Work", model="haiku"), actor="test")
    assert "is started with the model <code>haiku</code>" in text(operator, f"/beads/{bead.pk}/")
    assert operator.post(f"/beads/{bead.pk}/model/", {"model": "opus"}).status_code == 302
    place.tick()
    assert Bead.objects.get(pk=bead.pk).model == "opus"
    refused = operator.post(f"/beads/{bead.pk}/model/", {"model": "two words"}, follow=True)
    assert "is no name of a model" in refused.content.decode()
