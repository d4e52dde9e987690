"""How long things took recently, for `refinery.core.estimates`: three queries for a whole town."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from agents.lifecycle import RunOutcome
from agents.models import Run
from beads.models import Town
from beads.prepared import Prepared
from refinery.core.pace import History, What, history
from refinery.core.states import GateOutcome
from refinery.models import GateResult, Landing

_WHAT = ("gates", "review", "work")
LATEST = 600  # runs, and a quarter as many landings
_RUNS = Prepared(
    lambda town: (
        Run.objects.ended()
        .filter(town=town, outcome=RunOutcome.DONE, purpose__in=_WHAT, ended_at__isnull=False)
        .order_by("-ended_at")
        .values_list("pk", "rig_id", "purpose", "created_at", "ended_at")[:LATEST]
    )
)
_LANDINGS = Prepared(
    lambda town: (
        Landing.objects.landed()
        .filter(rig__town=town, concluded_at__isnull=False)
        .order_by("-id")
        .values_list("rig_id", "created_at", "concluded_at")[: LATEST // 4]
    )
)


def of_town(town: Town) -> History:
    """The latest gates, reviews, pieces of work and landings of a town's rigs, from the asking to the end.

    Of a run of gates, each gate that passed is counted for itself, under its command: a run that a rig's present
    gates were no part of says nothing about them. What the run took beside its gates is counted apart.
    """
    ended = [
        (run, rig, purpose, (end - created).total_seconds())
        for run, rig, purpose, created, end in _RUNS(town.pk)
        if end is not None
    ]
    samples: list[tuple[int, What, float]] = [
        (rig, "landing", (end - created).total_seconds()) for rig, created, end in _LANDINGS(town.pk) if end is not None
    ]
    samples += [(rig, purpose, seconds) for _, rig, purpose, seconds in ended if purpose != "gates"]
    samples += _of_gates({run: (rig, seconds) for run, rig, purpose, seconds in ended if purpose == "gates"})
    return history(samples)


def _of_gates(runs: dict[str, tuple[int, float]]) -> Iterator[tuple[int, What, float]]:
    """What each gate took in these runs (given the latest first), and what each run took beside them."""
    took: dict[str, list[float]] = defaultdict(list)
    passed: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    if not runs:
        return
    results = GateResult.objects.filter(run__in=list(runs)).order_by()
    for run, gate, command, outcome, ms in results.values_list("run_id", "gate", "command", "outcome", "duration_ms"):
        took[run].append(ms / 1000)
        if outcome == GateOutcome.PASS:
            passed[run].append((gate, command, ms / 1000))
    for run, (rig, whole) in runs.items():
        yield from ((rig, (gate, command), seconds) for gate, command, seconds in passed[run])
        if took[run]:
            one_by_one = sum(took[run])  # else they ran at once
            yield rig, "around", whole - (one_by_one if one_by_one <= whole else max(took[run]))
