"""The emergency lane on the review page."""

from __future__ import annotations

from django.test import Client

from beads.models import Fact
from tests.db.conftest import SHA, Place

WHY = "the shop is down"


def test_only_an_operator_lands_now_on_the_review_page(place: Place, reviewer: Client, operator: Client) -> None:
    entry = place.entry()
    form = {"head": entry.head_sha, "reason": WHY, "skip_gates": "on"}
    assert reviewer.post(f"/reviews/{entry.pk}/land-now/", form).status_code == 403
    assert not Fact.objects.exists()
    assert b"Land now" not in reviewer.get(f"/reviews/{entry.pk}/").content
    assert b"Land now" in operator.get(f"/reviews/{entry.pk}/").content
    stale = operator.post(f"/reviews/{entry.pk}/land-now/", form | {"head": SHA["f"]})
    assert stale.status_code == 409
    assert operator.post(f"/reviews/{entry.pk}/land-now/", form).status_code == 302
    fact = Fact.objects.get(kind="entry.land_now")
    assert (fact.actor, fact.payload["skip_gates"]) == ("web:olga", True)
