"""Facts in: one fact → observed columns, by calling the right single writer. No decision is taken here.

The exceptions are a person's own decisions (retry, start), which the fact itself states: they are carried out
through the ledger, under the tick's lock. An unknown kind or a bad payload raises before anything is written, and
ends in quarantine.
"""

from __future__ import annotations

from refinery.facts import beads, budgets, convoys, door, entries, escalations, mayor, outside, pulls, runs
from refinery.facts.registry import KINDS, check, take

__all__ = [
    "KINDS",
    "beads",
    "budgets",
    "check",
    "convoys",
    "door",
    "entries",
    "escalations",
    "mayor",
    "outside",
    "pulls",
    "runs",
    "take",
]
