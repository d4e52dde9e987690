"""Rows → live convoys as the rules see them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from beads.models import Town
from refinery.core.convoyviews import BranchView, ConvoyView, LandingEntry, TrackedBead
from refinery.tick import queries


def of_town(town: Town) -> tuple[ConvoyView, ...]:
    """The live convoys of a town."""
    live = queries.CONVOYS(town.pk)
    if not live:
        return ()
    ids = [c.pk for c in live]
    beads: dict[Any, list[TrackedBead]] = defaultdict(list)
    for convoy_id, key, rig_id, status, resolution, title, closed_at, reason in queries.TRACKED(ids):
        beads[convoy_id].append(TrackedBead(key, rig_id or 0, status, resolution, title, closed_at, reason))
    branches: dict[Any, list[BranchView]] = defaultdict(list)
    for br in queries.BRANCHES(ids):
        branches[br.convoy_id].append(
            BranchView(
                br.pk,
                br.rig_id,
                br.name,
                br.base_sha,
                br.head_sha,
                br.asked_at,
                br.observed_at,
                br.landed_sha,
            )
        )
    landings: dict[Any, list[LandingEntry]] = defaultdict(list)
    for e in queries.CONVOY_LANDINGS(ids):
        landings[e.convoy_id].append(LandingEntry(e.pk, e.rig_id, e.state, e.reason, e.reason_text, e.merge_sha))
    return tuple(
        ConvoyView(
            id=c.pk,
            rig=c.rig_id,
            status=c.bead.status,
            merge_mode=c.merge_mode,
            title=c.bead.title,
            started_at=c.started_at,
            close_requested=c.close_requested_at is not None,
            beads=tuple(beads[c.pk]),
            branches=tuple(branches[c.pk]),
            landings=tuple(landings[c.pk]),
        )
        for c in live
    )
