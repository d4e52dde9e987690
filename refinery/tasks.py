"""django-q2's entry points: the minute's reconcile tick, and one effect. Thin doors, no logic.

The schedule is the safety net of the reconciler process: the very same tick, in `transaction.atomic` with
`select_for_update`, so that nothing depends on a wake-up.
"""

from __future__ import annotations

from django.utils import timezone

from beads import ops
from refinery import effects, housekeeping, reconciler

SCHEDULE = "reconcile"


def reconcile() -> int:
    """Every minute: settle all towns and hand over effects that lie about. Returns the number of ticks."""
    ops.beat("cluster", "ran the minute's tick")
    ticks = reconciler.settle_all()
    effects.sweep()
    return ticks


def run_effect(effect_id: int) -> str:
    """Run one effect."""
    return effects.run_effect(effect_id)


def heartbeat() -> None:
    """The cluster works: `up` enqueues this and watches for it."""
    ops.beat("cluster", "ran a heartbeat task")


def collect() -> None:
    """Every hour: remove what has been finished for long enough."""
    housekeeping.collect(timezone.now())


def ensure_schedule() -> None:
    """Make the schedules exist exactly once."""
    from django_q.models import Schedule

    Schedule.objects.update_or_create(
        name=SCHEDULE,
        defaults={"func": "refinery.tasks.reconcile", "schedule_type": Schedule.MINUTES, "minutes": 1},
    )
    Schedule.objects.update_or_create(
        name="housekeeping", defaults={"func": "refinery.tasks.collect", "schedule_type": Schedule.HOURLY}
    )
