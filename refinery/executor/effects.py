"""Effects: what the plan wants done outside the database. Each handler looks before it acts.

At least once, under a deterministic key: a second run finds the work done and reports the same result. The result
is a fact, recorded in the transaction that marks the effect done. What could not be asked is tried again later
(unknown never means fine); what was refused for good is reported as `effect.failed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from agents import access
from agents.runtime import failures
from agents.runtime.crashpoints import crashpoint
from agents.runtime.gitcmd import GitFailed
from beads import inbox, outages, outbox, room
from beads.errors import Disposition, GastownError
from beads.models import Effect, Rig
from refinery.core import stacks
from refinery.executor import branches, build, foresee, land, notify
from refinery.executor.result import Result
from refinery.git.mirror import missing_target, repo_of
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
        except (OperationalError, InterfaceError):
            raise  # the database is away: nothing was learnt, and it is begun again
        except Exception as error:
            return _failed(effect, error)
        crashpoint(f"effect.acted.{effect.kind}")
        now = timezone.now()
        with transaction.atomic():
            if outbox.succeed(effect, now):
                if result is not None:
                    inbox.record(effect.town, *result, actor="executor")
                if effect.attempts > STRUGGLING:
                    inbox.record(effect.town, "effect.recovered", effect.key[:100], {"key": effect.key})
                if effect.rig is not None and _asks_remote(effect):
                    outages.worked(effect.rig)
        crashpoint(f"effect.recorded.{effect.kind}")
        return "done"


PUSHES = frozenset({"land", "publish", "create_branch", "delete_branch"})
ASKS = PUSHES | {"observe_branch"}
ONLY_AT_WORK = frozenset({"other", "timeout", "credential"})  # a look at the remote need not show it
ONLY_BY_PUSHES = frozenset({"auth", "remote_full"})


def _asks_remote(effect: Effect) -> bool:
    """True for work that cannot be done without an answer of the remote."""
    return effect.kind in ASKS or (effect.kind == "build" and not effect.payload.get("on"))


def _failed(effect: Effect, error: Exception) -> str:
    """Wait for the remote, try again later, or report it: the error's kind decides; bugs count as permanent."""
    now = timezone.now()
    message = (f"{error}" if isinstance(error, GastownError) else f"{type(error).__name__}: {error}")[:2000]
    if isinstance(error, GitFailed) and error.fate in failures.TROUBLE and effect.rig is not None:
        at_work = error.kind in ONLY_AT_WORK or (effect.kind in PUSHES and error.kind in ONLY_BY_PUSHES)
        log.warning("effect.outage", town=effect.town.slug, effect=effect.key, kind=error.kind, error=message)
        with transaction.atomic():
            access.note_outage(effect.rig, error, now, at_work=at_work)
            outbox.wait_for_remote(effect, message)
        return "retry"
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
            if effect.attempts == STRUGGLING and not room.lacking():
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


def look_at_remote(rig_id: int) -> str:
    """See whether an outage of a rig's remote is over: `done`, or `retry`."""
    rig = Rig.objects.select_related("town").get(pk=rig_id)
    try:
        if repo_of(rig).ls_remote(rig.remote_url, rig.default_branch) is None:
            raise missing_target(rig)
    except GitFailed as error:
        access.note_outage(rig, error if error.fate in failures.TROUBLE else GitFailed(error.message), timezone.now())
        return "retry"
    outages.worked(rig)
    return "done"


# -- handlers ---------------------------------------------------------------------


def _foresee(payload: Mapping[str, Any]) -> Result | None:
    """Who in a lane's queue stands on whom, and who would conflict with whom. None when it was asked anew."""
    found = Forecast.objects.select_related("rig").filter(pk=payload["forecast"], number=payload["number"]).first()
    if found is None:
        return None
    active = ReviewEntry.objects.active().filter(rig=found.rig, target=found.target)
    branches = dict(active.values_list("head_sha", "branch"))
    return "lane.foreseen", str(found.pk), foresee.look(repo_of(found.rig), found, branches, stacks.PAIRED)


def _notify(payload: Mapping[str, Any]) -> Result | None:
    """Tell people what they asked to hear."""
    notify.deliver(payload)
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
