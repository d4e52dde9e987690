"""Gates and tests that have passed and failed on one and the same tree, and which did so lately.

What counts: two attempts within one run, or results of two runs; an *error* says nothing. A test counts as passed in
an attempt that ran as many tests as the one in which it failed and does not list it among the failed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from django.db.models import Count, Max, Q

from beads.models import Town
from refinery.models import GateResult

WINDOW = dt.timedelta(days=14)
SHOWN = 20
Told = Mapping[str, Any]


def mixed(outcomes: Iterable[str]) -> bool:
    """True when there is a pass and a fail among them."""
    return {"pass", "fail"} <= set(outcomes)


def unsteady(tests: Sequence[Told]) -> list[str]:
    """The tests that have both passed and failed, by what several attempts on one tree have reported."""
    names = {name for one in tests for name in one.get("flaky") or []}
    for one, other in combinations([t for t in tests if t.get("total")], 2):
        if (one["total"], one["skipped"]) == (other["total"], other["skipped"]):
            failed, also = _failed(one), _failed(other)
            if _complete(other):
                names |= failed - also
            if _complete(one):
                names |= also - failed
    return sorted(names)


def _failed(tests: Told) -> set[str]:
    return {failure["name"] for failure in tests.get("failures") or []}


def _complete(tests: Told) -> bool:
    """True when every failed test is listed."""
    return bool(len(tests.get("failures") or []) == tests["failed"])


def recent(town: Town, now: dt.datetime) -> list[dict[str, Any]]:
    """The town's flaky gates of the last two weeks, the worst first: how often, of how many results, when last."""
    results = GateResult.objects.filter(entry__rig__town=town, created_at__gt=now - WINDOW).order_by()
    rows = list(
        results.values("entry__rig__slug", "gate")
        .annotate(of=Count("pk"), times=Count("pk", filter=Q(flaky=True)), last=Max("pk", filter=Q(flaky=True)))
        .filter(times__gt=0)
        .order_by("-times", "gate")[:SHOWN]
    )
    flakes = results.filter(flaky=True).order_by("-pk").only("pk", "entry_id", "gate", "created_at", "flaky_tests")
    known = {}
    if rows:
        known = {r.pk: r for r in flakes.filter(pk__in=[row["last"] for row in rows])}
    return [
        {
            "rig": row["entry__rig__slug"],
            "gate": row["gate"],
            "times": row["times"],
            "of": row["of"],
            "entry": known[row["last"]].entry_id,
            "at": known[row["last"]].created_at,
            "tests": known[row["last"]].flaky_tests[:5],
        }
        for row in rows
        if row["last"] in known
    ]
