"""Effects: what the plan wants done outside the database. Each handler looks before it acts.

At least once, under a deterministic key: a second run finds the work done and reports the same result. The result
is a fact, recorded in the transaction that marks the effect done. What could not be asked is tried again later
(unknown never means fine); what was refused for good is reported as `effect.failed`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from agents.runtime.crashpoints import crashpoint
from agents.runtime.gitcmd import GitFailed
from beads import inbox, outbox
from beads.errors import Disposition, GastownError
from beads.models import Effect
from refinery import forecasts, foresight, notices
from refinery.executor import branches, build, land
from refinery.executor.result import Result
from refinery.git.mirror import repo_of
from refinery.models import Forecast, ReviewEntry

log = structlog.get_logger(__name__)
STRUGGLING = 5


def run_effect(effect_id: int) -> str:
    """Run one effect if it is pending and nobody else has it; returns what came of it, for the log."""
    with outbox.holding(effect_id) as effect:
        if effect is None:
            return "skipped"
        handler = HANDLERS.get(effect.kind)
        crashpoint(f"effect.taken.{effect.kind}")
        try:
            if handler is None:
                raise GastownError(f"unknown kind of effect {effect.kind!r}")
            with bound_contextvars(town=effect.town.slug, effect=effect.key):
                result = handler(effect.payload)
        except Exception as error:
            return _failed(effect, error)
        crashpoint(f"effect.acted.{effect.kind}")
        now = timezone.now()
        with transaction.atomic():
            if outbox.succeed(effect, now) and result is not None:
                kind, subject, payload = result
                inbox.record(effect.town, kind, subject, payload, actor="executor")
        crashpoint(f"effect.recorded.{effect.kind}")
        return "done"


def _failed(effect: Effect, error: Exception) -> str:
    """Try again later, or report the failure: the error's disposition decides; bugs count as permanent."""
    now = timezone.now()
    message = (f"{error}" if isinstance(error, GastownError) else f"{type(error).__name__}: {error}")[:2000]
    again = isinstance(error, GastownError) and error.disposition != Disposition.PERMANENT
    if isinstance(error, GitFailed) and error.kind == "local" and effect.attempts >= STRUGGLING:
        again = False  # git fails here, again and again: a person looks at it, and nobody waits behind it
    told = {"kind": effect.kind, "key": effect.key, "error": message, "payload": effect.payload}
    log.warning(
        "effect.failed", town=effect.town.slug, effect=effect.key, attempts=effect.attempts, again=again, error=message
    )
    with transaction.atomic():
        if again:
            outbox.retry_later(effect, now, message)
            if effect.attempts == STRUGGLING:
                inbox.record(
                    effect.town,
                    "effect.struggling",
                    effect.key[:100],
                    told,
                    dedupe_key=f"struggling:{effect.pk}",
                )
            return "retry"
        outbox.give_up(effect, now, message)
        inbox.record(
            effect.town,
            "effect.failed",
            effect.key[:100],
            told,
            dedupe_key=f"gave-up:{effect.pk}:{effect.attempts}",
        )
    return "failed"


# -- handlers ---------------------------------------------------------------------


def _foresee(payload: Mapping[str, Any]) -> Result | None:
    """Who in a lane's queue stands on whom, and who would conflict with whom. None when it was asked anew."""
    found = Forecast.objects.select_related("rig").filter(pk=payload["forecast"], number=payload["number"]).first()
    if found is None:
        return None
    active = ReviewEntry.objects.filter(rig=found.rig, target=found.target, state="active")
    branches = dict(active.values_list("head_sha", "branch"))
    return "lane.foreseen", str(found.pk), forecasts.look(repo_of(found.rig), found, branches, foresight.PAIRED)


def _notify(payload: Mapping[str, Any]) -> Result | None:
    """Tell people what they asked to hear."""
    notices.deliver(payload)
    return None


HANDLERS: dict[str, Callable[[Mapping[str, Any]], Result | None]] = {
    "build": build.build,
    "land": land.land,
    "create_branch": branches.create_branch,
    "observe_branch": branches.observe_branch,
    "foresee": _foresee,
    "delete_branch": branches.delete_branch,
    "publish": branches.publish,
    "notify": _notify,
}


def sweep(now: dt.datetime | None = None) -> int:
    """Hand over again what is due and lies about; see `beads.outbox.sweep`."""
    return outbox.sweep(now or timezone.now())
