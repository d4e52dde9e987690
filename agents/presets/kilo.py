"""Kilo Code, which comes from opencode. Measured with @kilocode/cli 7.7.7."""

from __future__ import annotations

from agents.presets.base import Launch, Preset, Start
from agents.presets.opencode import launch, parse

_OFF = ("SESSION_INGEST", "PRESENCE", "CODEBASE_INDEXING")  # sessions and code stay here


def _start(start: Start) -> Launch:
    made = launch(start, "KILO", ".config/gastown/kilo.json", *_OFF)
    more = {"KILO_TELEMETRY_LEVEL": "off", "KILO_SESSION_RETRY_LIMIT": "6"}  # without one it tries for ever
    return Launch(made.argv, {**made.env, **more}, made.files)


PRESET = Preset(
    name="kilo",
    program="kilo",
    install="npm install -g @kilocode/cli",
    start=_start,
    parse=parse,
    sessions=(".local/share/kilo/kilo.db", ".local/share/kilo/kilo.db-wal"),  # beside them: log-ins
    lost=r"Session not found|NotFoundError",
    anywhere=True,
)
