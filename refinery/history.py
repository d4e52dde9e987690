"""How long things took of late, for `refinery.estimates`: two queries for a whole town."""

from __future__ import annotations

from agents.models import Run
from beads.models import Town
from refinery.estimates import History, history
from refinery.models import Landing

_WHAT = ("gates", "review", "work")
LATEST = 600  # runs, and a quarter as many landings


def of_town(town: Town) -> History:
    """The latest gate runs, reviews, pieces of work and landings of a town's rigs, from the asking to the end."""
    runs = Run.objects.filter(town=town, state="ended", outcome="done", purpose__in=_WHAT).order_by("-ended_at")
    landings = Landing.objects.filter(rig__town=town, state="landed", concluded_at__isnull=False).order_by("-id")
    samples = [
        (rig, purpose, (ended - created).total_seconds())
        for rig, purpose, created, ended in runs.values_list("rig_id", "purpose", "created_at", "ended_at")[:LATEST]
        if ended is not None
    ]
    samples += [
        (rig, "landing", (ended - created).total_seconds())
        for rig, created, ended in landings.values_list("rig_id", "created_at", "concluded_at")[: LATEST // 4]
        if ended is not None
    ]
    return history(samples)
