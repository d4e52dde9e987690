"""Which closed beads may be removed, and together with which: a family is removed as a whole, or stays.

One family: a bead with its entries, a convoy with its beads, an entry with its reworks and the one that replaced it,
and the entries that one push has landed. It goes when each of its beads was closed before a moment and has landed (or
has left nothing that could), and nothing outside of it that stays refers to it: a bead that waits for it, an escalation
about it, a candidate that stands on it, a bead that one of its runs has filed. What is open is in no family that goes.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from agents.models import Run
from beads.lifecycle import ACHIEVED, BeadStatus, BeadType, Resolution
from beads.models import Bead, Dependency, Escalation, Town
from refinery.models import Candidate, GateResult, Landing, ReviewEntry

PAGE = 500

Edge = tuple[str, str]


def ended(town: Town, before: dt.datetime) -> QuerySet[Bead]:
    """The beads that were closed before then, and have landed or made nothing. A failure stays: it may be retried."""
    made = Run.objects.filter(bead=OuterRef("pk")).exclude(head_sha="", salvage_ref="")
    live = Run.objects.live().filter(bead=OuterRef("pk"))
    replaced = Q(resolution=Resolution.SUPERSEDED, review__superseded_by__isnull=False)
    nothing = ~Q(type=BeadType.MERGE_REQUEST) & ~Exists(made)
    closed = Bead.objects.filter(town=town, status=BeadStatus.CLOSED, closed_at__lt=before)
    return closed.filter(~Exists(live)).filter(Q(resolution__in=ACHIEVED) | replaced | nothing)


def ready(town: Town, before: dt.datetime) -> Iterator[list[str]]:
    """The families that may go, the youngest first: what refers to others is mostly younger than they are.

    Who takes them removes each before asking for the next, or leaves it: nothing is offered twice.
    """
    after: tuple[dt.datetime, str] | None = None
    while True:
        page = ended(town, before).order_by("-closed_at", "-pk")
        if after is not None:
            page = page.filter(Q(closed_at__lt=after[0]) | Q(closed_at=after[0], pk__lt=after[1]))
        rows = list(page.values_list("closed_at", "pk")[:PAGE])
        if not rows:
            return
        at, key = rows[-1]
        assert at is not None
        after = (at, key)
        yield from _free(_families([key for _, key in rows]), town, before)


def still_free(keys: Sequence[str], town: Town, before: dt.datetime) -> bool:
    """True when exactly these beads may (still) go together."""
    found = list(_free(_families(keys), town, before))
    return sorted(key for family in found for key in family) == sorted(keys)


def _families(keys: Iterable[str]) -> list[set[str]]:
    """All that belongs together with these beads, in groups."""
    seen: set[str] = set()
    edges: list[Edge] = []
    ask = set(keys)
    while ask:
        seen |= ask
        new = list(_belongings(list(ask)))
        edges += new
        ask = {key for edge in new for key in edge} - seen
    return _groups(seen, edges)


def _belongings(keys: list[str]) -> Iterator[Edge]:
    """Pairs of beads of one family of which one is among these."""
    for column in ("parent", "convoy"):
        near = Q(pk__any=keys, **{f"{column}__isnull": False}) | Q(**{f"{column}__any": keys})
        yield from _pairs(Bead.objects.filter(near).values_list("pk", column))
    for column in ("source", "convoy", "superseded_by"):
        near = Q(pk__any=keys, **{f"{column}__isnull": False}) | Q(**{f"{column}__any": keys})
        yield from _pairs(ReviewEntry.objects.filter(near).values_list("pk", column))
    pushed = Landing.objects.filter(push__isnull=False)
    for column in ("entry__any", "push__entry__any"):
        yield from _pairs(pushed.filter(**{column: keys}).values_list("entry", "push__entry"))


def _pairs(rows: Iterable[tuple[str, str | None]]) -> Iterator[Edge]:
    return ((a, b) for a, b in rows if b is not None)


def _groups(keys: Iterable[str], edges: Iterable[Edge]) -> list[set[str]]:
    """Keys that are joined by edges."""
    near: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    left, groups = set(keys), []
    while left:
        group, ask = set[str](), {left.pop()}
        while ask:
            group |= ask
            ask = {other for key in ask for other in near[key]} - group
        left -= group
        groups.append(group)
    return groups


def _free(families: list[set[str]], town: Town, before: dt.datetime) -> Iterator[list[str]]:
    """The families of which every bead has ended, and to which nothing that stays refers."""
    every = [key for family in families for key in family]
    known = set(ended(town, before).filter(pk__any=every).values_list("pk", flat=True))
    going = [family for family in families if family <= known]
    family_of = {key: number for number, family in enumerate(going) for key in family}
    wanted = list(_references(list(family_of)))
    held: set[int] = set()
    while more := {
        family_of[to]
        for by, to in wanted
        if to in family_of and family_of[to] not in held and (by not in family_of or family_of[by] in held)
    }:
        held |= more
    yield from (sorted(family) for number, family in enumerate(going) if number not in held)


def _references(keys: list[str]) -> Iterator[Edge]:
    """References to these beads that must not be broken: (referring bead, bead)."""
    yield from Dependency.objects.filter(on__any=keys).values_list("bead", "on")
    yield from _pairs(Escalation.objects.filter(about__any=keys).values_list("bead", "about"))
    standing = Candidate.objects.filter(on__entry__any=keys).exclude(entry=F("on__entry"))
    yield from _pairs(standing.values_list("entry", "on__entry"))
    gated = GateResult.objects.filter(run__bead__any=keys).exclude(entry=F("run__bead"))
    yield from gated.values_list("entry", "run__bead")
    refineries = Run.objects.filter(agent__convoy__any=keys)
    yield from _pairs(refineries.values_list("bead", "agent__convoy").distinct())
    runs = dict(Run.objects.filter(bead__any=keys).values_list("pk", "bead"))
    for by, run in Bead.objects.filter(filed_by__in=list(runs)).exclude(filed_by="").values_list("pk", "filed_by"):
        yield by, runs[run]
