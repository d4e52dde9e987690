"""django-q2's entry points: the minute's reconcile tick and look-out. Thin doors, no logic.

The schedule is the safety net of the reconciler process: the very same tick, in `transaction.atomic` with
`select_for_update`, so that nothing depends on a wake-up.
"""

from __future__ import annotations

from django.utils import timezone

from beads import ops
from refinery.executor import head_poll, housekeeping
from refinery.tick import reconciler

MINUTELY = {"reconcile": "refinery.tasks.reconcile", "lookout": "refinery.tasks.look"}


def reconcile() -> int:
    """Every minute: settle all towns. Returns the number of ticks."""
    ops.beat("cluster", "ran the minute's tick")
    return reconciler.settle_all()


def look() -> int:
    """Every minute: see whether a branch that waits for a person has moved. Returns how many have."""
    return head_poll.look()


def heartbeat() -> None:
    """The cluster works: `up` enqueues this and watches for it."""
    ops.beat("cluster", "ran a heartbeat task")


def collect() -> None:
    """Every hour: remove what has been finished for long enough."""
    housekeeping.collect(timezone.now())


def ensure_schedule() -> None:
    """Make the schedules exist exactly once."""
    from django_q.models import Schedule

    for name, func in MINUTELY.items():
        Schedule.objects.update_or_create(
            name=name, defaults={"func": func, "schedule_type": Schedule.MINUTES, "minutes": 1}
        )
    Schedule.objects.update_or_create(
        name="housekeeping", defaults={"func": "refinery.tasks.collect", "schedule_type": Schedule.HOURLY}
    )
