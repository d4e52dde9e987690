"""Two rigs of one town that hold the same: what is known of one says nothing of the other."""

from __future__ import annotations

from agents.models import Run
from beads import inbox, ledger
from refinery.models import GateResult
from tests.db.conftest import Place


def test_g3_a_trees_results_count_within_its_rig(db: None) -> None:
    place = Place(auto_merge=False)
    first = place.entry("feature")
    place.tick()
    place.built(first)
    place.gated()
    assert GateResult.objects.get().outcome == "pass"
    place.rig = ledger.create_rig(place.town, "fork", "/fork.git", "main")
    second = place.entry("feature")
    place.tick()
    place.built(second)  # the same tree
    assert Run.objects.filter(kind="gates", bead=second.pk, state="queued").count() == 1
    assert not place.effects("land")
    place.gated()
    assert GateResult.objects.filter(entry=second, outcome="pass").count() == 1


def test_a_refused_build_ends_its_entry_and_a_retry_builds_it_again(db: None) -> None:
    place = Place()
    bead = place.bead()
    entry = place.entry("feature", source=bead)
    place.tick()
    entry.refresh_from_db()
    told = {"build_no": entry.build_no, "result": "refused", "head": entry.head_sha, "error": "it has no base"}
    inbox.record(place.town, "candidate.built", entry.pk, told)
    place.tick()
    entry.refresh_from_db()
    bead.refresh_from_db()
    assert (entry.state, entry.reason, entry.reason_text) == ("failed", "unfit", "it has no base")
    assert (bead.status, bead.reason) == ("failed", "its review entry failed: it has no base")
    before = entry.build_no
    inbox.record(place.town, "entry.retry", entry.pk, {"reason": ""}, actor="alice")
    place.tick()
    entry.refresh_from_db()
    assert (entry.state, entry.build_no) == ("active", before + 1)
