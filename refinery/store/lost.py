"""The only writer of LostDecision: decisions that could not be carried out, counted, so that none is lost for ever.

A decision that lost a race is taken anew at the next tick, and mostly carried out then. One that is lost time and again
waits for something that nobody sees: it is told to people with its reason, and what it was for is held.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from beads.inbox import storable
from beads.models import Town
from beads.prepared import Prepared
from refinery.models import LostDecision

TIMES = 10
LONG = dt.timedelta(seconds=30)
_OF_TOWN = Prepared(lambda town: LostDecision.objects.filter(town=town))


def note(
    town: Town, lost: Mapping[str, tuple[str, str]], now: dt.datetime
) -> tuple[list[LostDecision], list[LostDecision]]:
    """Count one tick's lost decisions: subject → (rule, error). Returns those that are lost too often by now, and those
    of before that were carried out, or were decided otherwise. Inside the tick's transaction."""
    known = {row.subject: row for row in _OF_TOWN(town.pk)}
    over = [row for subject, row in known.items() if subject not in lost]
    if over:
        LostDecision.objects.filter(pk__in=[row.pk for row in over]).delete()
    stuck = []
    for subject, (rule, error) in lost.items():
        row = known.get(subject)
        if row is None or row.rule != rule:
            told = {"rule": rule[:60], "error": storable(error[:2000]), "times": 1, "since": now}
            row, _ = LostDecision.objects.update_or_create(town=town, subject=subject[:300], defaults=told)
            continue
        LostDecision.objects.filter(pk=row.pk).update(times=row.times + 1, error=storable(error[:2000]))
        row.times, row.error = row.times + 1, error
        if row.times >= TIMES and now - row.since >= LONG:
            stuck.append(row)
    return stuck, [row for row in over if row.times >= TIMES]
