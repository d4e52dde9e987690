"""Running effects: what the plan wants done outside the database. Each handler looks before it acts.

At least once, under a deterministic key: a second run finds the work done and reports the same result. The result
is a fact, recorded in the transaction that marks the effect done. What could not be asked is tried again later
(unknown never means fine); what was refused for good is reported as `effect.failed`.
"""

from __future__ import annotations

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
from refinery.core import effects
from refinery.core.effects import Remote
from refinery.executor import branches, build, foresee, hearing, land, notify, pulls
from refinery.executor.registry import HANDLERS
from refinery.git.mirror import missing_target, repo_of

_HANDLERS = (branches, build, foresee, hearing, land, notify, pulls)  # loaded: each registers what it does
log = structlog.get_logger(__name__)
STRUGGLING = 5


def run_effect(effect_id: int) -> str:
    """Run one effect if it is pending and nobody else has it; returns what came of it, for the log."""
    with outbox.holding(effect_id) as effect:
        if effect is None:
            return "skipped"
        crashpoint(f"effect.taken.{effect.kind}")
        try:
            work = effects.read(effect.kind, effect.payload)
            with bound_contextvars(town=effect.town.slug, effect=effect.key):
                result = HANDLERS[work.name](work)
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
                if effect.rig is not None and work.asks != Remote.NOTHING:
                    outages.worked(effect.rig)
        crashpoint(f"effect.recorded.{effect.kind}")
        return "done"


ONLY_AT_WORK = frozenset({"other", "timeout", "credential"})  # a look at the remote need not show it
ONLY_BY_PUSHES = frozenset({"auth", "remote_full"})


def _failed(effect: Effect, error: Exception) -> str:
    """Wait for the remote, try again later, or report it: the error's kind decides; bugs count as permanent."""
    now = timezone.now()
    message = (f"{error}" if isinstance(error, GastownError) else f"{type(error).__name__}: {error}")[:2000]
    if isinstance(error, GitFailed) and error.fate in failures.TROUBLE and effect.rig is not None:
        at_work = error.kind in ONLY_AT_WORK or (_pushes(effect) and error.kind in ONLY_BY_PUSHES)
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


def _pushes(effect: Effect) -> bool:
    kind = effects.KINDS.get(effect.kind)
    return kind is not None and kind.remote == Remote.PUSH


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
