"""PostgreSQL's channels on which parts wake one another: their names, and how to listen for as long as a part lives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import structlog
from django.db import DatabaseError, close_old_connections, connection

log = structlog.get_logger(__name__)
SAY_SECONDS = 60.0
T = TypeVar("T")

WAKE_CHANNEL = "gastown_wake"  # a town has facts that wait: its name
CHANGED_CHANNEL = "gastown_changed"  # what pages show has changed: a town's name, or RUN_TOPIC and a run's id
RUN_TOPIC = "run:"
EFFECTS_CHANNEL = "gastown_effects"  # there is outside work, or a look at a remote is due: the executor listens
RUN_CHANNEL = "gastown_runs"  # a run was queued, or one is to be stopped: runners listen


def listen_parameters() -> dict[str, Any]:
    """Connection parameters of Django's database, for a listening psycopg connection of one's own."""
    parameters = connection.get_connection_params()
    return {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context", "pool")}


def look_until(
    look: Callable[[], T], done: Callable[[T], bool], *, at_most: float | None = None, every: float = 0.5
) -> T:
    """Look at once, at each fact of any town, and every so many seconds, until what is seen is `done` or `at_most`
    seconds are over (None: for as long as it takes); returns what was seen last."""
    end = math.inf if at_most is None else time.monotonic() + at_most
    with psycopg.connect(**listen_parameters(), autocommit=True) as listener:
        listener.execute(f"listen {WAKE_CHANNEL}")
        while True:
            seen = look()
            left = min(every, end - time.monotonic())
            if done(seen) or left <= 0:
                return seen
            list(listener.notifies(timeout=left, stop_after=1))


def keep_on(part: str, serve: Callable[[], None], stopping: Callable[[], bool]) -> None:
    """Run `serve`, which ends when the part is stopping. A lost database is waited for, and said once a minute."""
    said = -math.inf
    while not stopping():
        try:
            serve()
        except (psycopg.OperationalError, DatabaseError) as error:
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                log.warning(f"{part}.database", error=str(error))
            close_old_connections()
            time.sleep(1)
