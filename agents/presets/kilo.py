"""Kilo Code, which comes from opencode. Measured with @kilocode/cli 7.7.7."""

from __future__ import annotations

from agents.presets.base import Preset
from agents.presets.opencode import launch, parse

_OFF = ("SESSION_INGEST", "PRESENCE", "CODEBASE_INDEXING")  # sessions and code stay here
PRESET = Preset(
    name="kilo",
    program="kilo",
    install="npm install -g @kilocode/cli",
    start=lambda start: launch(start, "KILO", ".config/gastown/kilo.json", *_OFF),
    parse=parse,
    sessions=".local/share/kilo",
)
