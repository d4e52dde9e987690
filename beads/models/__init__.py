"""The ledger's tables and the promises the database itself keeps. No workflow here.

Writers: `beads.ledger` (Town, Rig, Bead, Dependency, Convoy, ConvoyBranch, Escalation, BeadEvent, ConfigVersion),
`beads.inbox` (Fact), `beads.outbox` (Effect), `beads.ops` (Heartbeat), `beads.people` (Membership),
`beads.outages` (Outage), `beads.installations` (Installation), `beads.secrets` (Secret). Nobody else saves these rows.

Columns are of three kinds: *desired* (set by people and tools, named `…_requested_at` or set at creation),
*observed* (set from facts), *decided* (status, resolution: set by the tick through the ledger).
"""

from __future__ import annotations

from beads import lookups as lookups  # registers `__any`
from beads.models.health import Heartbeat, Installation, Outage
from beads.models.towns import ConfigVersion, Membership, Rig, Secret, Town, TownRole
from beads.models.traffic import Effect, Effects, Fact
from beads.models.work import (
    Bead,
    BeadEvent,
    Convoy,
    ConvoyBranch,
    Dependency,
    Escalation,
    choices,
    new_bead_id,
    new_id,
)

__all__ = [
    "Bead",
    "BeadEvent",
    "ConfigVersion",
    "Convoy",
    "ConvoyBranch",
    "Dependency",
    "Effect",
    "Effects",
    "Escalation",
    "Fact",
    "Heartbeat",
    "Installation",
    "Membership",
    "Outage",
    "Rig",
    "Secret",
    "Town",
    "TownRole",
    "choices",
    "new_bead_id",
    "new_id",
]
