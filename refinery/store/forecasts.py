"""The only writer of Forecast and Stack: what was asked about a lane's queue, and what git has shown.

Questions are numbered, and answers name the commits they are about: a lost answer is asked for again, and one that
comes twice, or late, changes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from beads.errors import LostRace
from beads.models import Rig
from refinery.models import Forecast, ReviewEntry, Stack


def ask(rig_id: int, target: str, expect: int, heads: Sequence[str], tip: str, now: dt.datetime) -> Forecast:
    """Note question `expect + 1`. LostRace when another one was asked meanwhile."""
    found, _ = Forecast.objects.get_or_create(rig_id=rig_id, target=target)
    told = {"number": expect + 1, "asked_at": now, "asked": list(heads), "asked_tip": tip}
    if Forecast.objects.filter(pk=found.pk, number=expect).update(**told) != 1:
        raise LostRace(f"lane {target} was asked about meanwhile")
    found.refresh_from_db()
    return found


def answered(forecast: Forecast, data: Mapping[str, Any]) -> None:
    """Observation: what git showed. What contains what is kept whenever it comes; the rest from the last question."""
    pairs = [Stack(rig_id=forecast.rig_id, upper=upper, lower=lower) for upper, lower in data["stacks"]]
    Stack.objects.bulk_create(pairs, ignore_conflicts=True)
    Forecast.objects.filter(pk=forecast.pk, number=data["number"], answered__lt=data["number"]).update(
        answered=data["number"],
        base=data["base"],
        tip=data["base"],
        heads=data["heads"],
        paired=data["paired"],
        clashes=data["clashes"],
    )


def seen(rig: Rig, target: str, sha: str) -> None:
    """Observation: where a lane's target is."""
    Forecast.objects.filter(rig=rig, target=target).exclude(tip=sha).update(tip=sha)


def prune(rig: Rig) -> int:
    """Forget what is of no active entry any more; returns how much went."""
    active = ReviewEntry.objects.active().filter(rig=rig)
    gone = Forecast.objects.filter(rig=rig).exclude(target__in=active.values("target")).delete()[0]
    compared = {head for heads in Forecast.objects.filter(rig=rig).values_list("heads", flat=True) for head in heads}
    stacks = Stack.objects.filter(rig=rig).exclude(upper__in=active.values("head_sha")).exclude(upper__in=compared)
    return gone + stacks.delete()[0]
