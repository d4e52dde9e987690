"""Looks, every minute, whether somebody has pushed to a branch that waits for a person. What it sees is a fact.

An approval is of one head. Landing looks at the branch anyway; this look is so that people are asked about the new
head before they have spent their time on the old one. A remote that cannot be asked tells nothing, and nothing follows.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict

import structlog
from django.utils import timezone

from agents import access
from agents.runtime.gitcmd import GitFailed
from beads import inbox
from beads.models import Rig, Town
from refinery.core import standing
from refinery.core.entryviews import EntryView
from refinery.core.world import World
from refinery.git.mirror import repo_of
from refinery.models import ReviewEntry
from refinery.tick import snapshot

log = structlog.get_logger(__name__)
PATIENCE = 10.0  # seconds
MINUTE = 60.0


def look(now: dt.datetime | None = None) -> int:
    """Ask each rig's remote once about all its waiting branches; returns how many new heads were seen."""
    now = now or timezone.now()
    waiting = ReviewEntry.objects.active().filter(admitted_at=None)
    towns = Town.objects.filter(rigs__reviews__in=waiting).distinct()
    return sum(_look(town, snapshot.load(town, now)) for town in towns)


def _look(town: Town, world: World) -> int:
    by_rig: dict[int, list[EntryView]] = defaultdict(list)
    for entry in world.entries:
        rig = world.rigs[entry.rig]
        every = max(round(rig.config.pr.poll_interval.total_seconds() / MINUTE), 1)
        due = int(world.now.timestamp() // MINUTE) % every == 0
        if due and entry.on_remote and standing.phase_of(world, entry) == "awaiting_human":
            by_rig[entry.rig].append(entry)
    for check in world.checks:
        if check.entry.held:
            by_rig[check.entry.rig].append(check.entry)
    seen = 0
    for rig_id, entries in by_rig.items():
        if world.rigs[rig_id].outage is not None:
            continue  # looked at by the executor
        found = Rig.objects.select_related("town").get(pk=rig_id)
        try:
            heads = repo_of(found).heads(found.remote_url, [e.branch for e in entries], PATIENCE)
        except GitFailed as error:
            log.info("lookout.unknown", rig=found.slug, error=error.message)
            access.note_outage(found, error, timezone.now())
            continue
        for entry in entries:
            head = heads[entry.branch]
            if head not in (None, entry.head, entry.observed_head):
                inbox.record(town, "entry.head_seen", entry.id, {"head": head}, actor="lookout")
                seen += 1
    return seen
