"""What pages say of when things land: ranges, what takes longer, what is unknown and why."""

from __future__ import annotations

import datetime as dt

from django.db.models import F
from django.test import Client
from django.utils import timezone

from agents.models import Run
from beads import config as configs
from beads import inbox, ledger
from refinery.models import GateResult, Landing
from tests.db.conftest import Place


def landed(place: Place, count: int) -> None:
    """So many changes, each gated for 35 s and pushed in 2 s."""
    for n in range(count):
        entry = place.entry(f"old-{n}", f"{n + 1:040x}")
        place.tick()
        place.built(entry, tree=f"{n + 7:040x}")
        place.gated()
        landing = Landing.objects.get(state="intent")
        inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed"})
        place.tick()
    GateResult.objects.update(duration_ms=35_000)
    Run.objects.update(created_at=F("ended_at") - dt.timedelta(seconds=36))
    Landing.objects.update(created_at=F("concluded_at") - dt.timedelta(seconds=2))


def test_p10_the_queues_page_tells_ranges_and_what_takes_longer(place: Place, viewer: Client) -> None:
    place.now = timezone.now()
    landed(place, 3)
    entry = place.entry("new", f"{20:040x}")
    place.tick()
    place.built(entry, tree=f"{21:040x}")
    text = viewer.get(f"/queue/?town={place.town.slug}").content.decode()
    assert "lands <span" in text and "data-to=" in text and "in 25 to 55 s</span>" in text
    assert "a landing takes 25 to 55 s" in text
    Run.objects.filter(state="queued").update(created_at=F("created_at") - dt.timedelta(minutes=9))
    for address in (f"/queue/?town={place.town.slug}", f"/reviews/{entry.pk}/"):
        text = viewer.get(address).content.decode()
        assert "ands: longer than usual: gating was to take 25 to 50 s, at it for 9 min" in text
        assert "data-to=" not in text
    ledger.set_config(place.rig, configs.validate({"refinery": {"gates": ["make test"]}}))
    text = viewer.get(f"/queue/?town={place.town.slug}").content.decode()
    assert "how long a landing takes is unknown since the gates changed: gate &#x27;make test&#x27; was timed" in text


def test_what_waits_for_a_person_says_nothing_of_time(place: Place, viewer: Client) -> None:
    entry = place.entry("new", f"{20:040x}")
    inbox.record(place.town, "entry.verdict", entry.pk, {"head": entry.head_sha, "decision": "request_changes"})
    entry.held, entry.held_text = "conflict", "it conflicts"
    entry.save()
    assert "Lands" not in viewer.get(f"/reviews/{entry.pk}/").content.decode()
