"""Where a change's pull request is on its host, for pages and commands."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from beads import config as configs
from beads.models import Bead
from refinery.core import hosting
from refinery.models import HostedPull, ReviewEntry


def of_entry(entry: ReviewEntry) -> dict[str, Any]:
    """`pull_request`: its name, number and address; None where it has none."""
    row = HostedPull.objects.select_related("rig__town").filter(entry=entry).first()
    if row is None:
        return {"pull_request": None}
    return {"pull_request": _shown(row)}


def of_bead(bead: Bead) -> list[dict[str, Any]]:
    """Those that show what was done for a bead, or the bead itself, the oldest first."""
    rows = HostedPull.objects.select_related("rig__town").filter(Q(entry__source=bead) | Q(entry=bead.pk))
    return [_shown(row) for row in rows]


def _shown(row: HostedPull) -> dict[str, Any]:
    config = configs.usable(row.rig.town.config, row.rig.config)[0]
    repository = hosting.repository(config, row.rig.remote_url)
    url = hosting.page(config, row.rig.remote_url, row.number)
    return {"name": f"{repository}#{row.number}", "number": row.number, "url": url}
