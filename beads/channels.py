"""PostgreSQL's channels on which parts wake one another: their names, and how to listen."""

from __future__ import annotations

from typing import Any

from django.db import connection

WAKE_CHANNEL = "gastown_wake"  # a town has facts that wait: its name
CHANGED_CHANNEL = "gastown_changed"  # what pages show has changed: a town's name, or RUN_TOPIC and a run's id
RUN_TOPIC = "run:"
RUN_CHANNEL = "gastown_runs"  # a run was queued, or one is to be stopped: runners listen


def listen_parameters() -> dict[str, Any]:
    """Connection parameters of Django's database, for a listening psycopg connection of one's own."""
    parameters = connection.get_connection_params()
    return {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context", "pool")}
