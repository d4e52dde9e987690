"""One tool call of a run, whichever door it came by (HTTP, MCP): its limits, its tries, and its words when refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from django.core.cache import cache
from django.core.exceptions import RequestDataTooBig
from django.db import DataError, OperationalError
from django.http import Http404
from django.utils import timezone
from psycopg.errors import DeadlockDetected
from rest_framework import exceptions
from structlog.contextvars import bound_contextvars

from agents.api import tools
from agents.models import Run
from agents.runtime.crashpoints import crashpoint
from beads.errors import Conflict, Forbidden, GastownError, Invalid, LostRace, NotFound, Unavailable

log = structlog.get_logger(__name__)
MAX_BODY = 1024 * 1024
DEADLOCKS = 3
T = TypeVar("T")
_STATUS: tuple[tuple[type[GastownError], int], ...] = (
    (Invalid, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (LostRace, 409),
    (tools.Throttled, 429),
    (Unavailable, 503),
)
_CODES = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 429: "throttled"}


@dataclass(frozen=True)
class Refusal:
    """Why something was not done: a code, one sentence, the HTTP status, and details such as the field."""

    code: str
    message: str
    http: int
    details: Mapping[str, Any] = field(default_factory=dict)


def refusal(error: Exception) -> Refusal:
    """Every error → what its caller is told. A bug is logged, and told without its insides."""
    if isinstance(error, GastownError):
        http = next((number for kind, number in _STATUS if isinstance(error, kind)), 400)
        return Refusal(error.code, error.message, http, error.details or {})
    if isinstance(error, Http404):
        return Refusal("not_found", "no such page", 404)
    if isinstance(error, RequestDataTooBig):
        return Refusal("too_large", f"the body is larger than {MAX_BODY} bytes", 413)
    if isinstance(error, exceptions.APIException):
        return Refusal(_CODES.get(error.status_code, "invalid"), str(error.detail), error.status_code)
    if isinstance(error, DataError):
        return Refusal("invalid", "the data cannot be stored", 400)
    if isinstance(error, OperationalError):
        log.error("api.database", error=str(error))
        return Refusal("unavailable", "the database cannot be reached", 503)
    log.error("api.error", exc_info=error)
    return Refusal("internal", "an internal error; it has been logged", 500)


def carry_out(run: Run, name: str, body: object, key: str | None) -> tuple[int, dict[str, Any]]:
    """Run one tool for a run; returns HTTP status and data. Raises GastownError. `key`: see `tools.call`."""
    _throttle(run)
    with bound_contextvars(town=run.town.slug, run=run.pk, bead=run.bead_id, tool=name):
        answer = insisted(lambda: tools.call(name, run, body, timezone.now(), key))
    crashpoint("door.called")
    return answer


def insisted(act: Callable[[], T]) -> T:
    """Do it, again when PostgreSQL has undone it for a deadlock: a call holds its run and asks for its town's row (a
    foreign key), while a tick holds the town and asks for the run. One of the two is undone whole: it may try again.
    """
    for _ in range(DEADLOCKS):
        try:
            return act()
        except OperationalError as error:
            if not isinstance(error.__cause__, DeadlockDetected):
                raise
            log.info("api.deadlock", error=str(error).splitlines()[0])
    return act()


def _throttle(run: Run) -> None:
    """At most so many calls a minute and run (per server process: a brake, not a quota)."""
    minute = int(timezone.now().timestamp() // 60)
    key = f"calls:{run.pk}:{minute}"
    cache.add(key, 0, 120)
    try:
        calls = cache.incr(key)
    except ValueError:  # it was culled in between
        return
    if calls > tools.CALLS_PER_MINUTE:
        raise tools.Throttled(f"more than {tools.CALLS_PER_MINUTE} calls a minute")
