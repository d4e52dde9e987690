"""Kilo Code, which comes from opencode. Measured with @kilocode/cli 7.7.7."""

from __future__ import annotations

from agents.presets.base import Preset
from agents.presets.opencode import launch, parse

PRESET = Preset(
    name="kilo",
    program="kilo",
    install="npm install -g @kilocode/cli",
    start=lambda start: launch(start, "KILO", ".config/gastown/kilo.json"),
    parse=parse,
    sessions=".local/share/kilo",
)
