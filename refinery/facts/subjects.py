"""What facts are about: the rows of their town that they name. Each raises NotFound where there is none."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model, QuerySet

from agents.models import Run
from beads.errors import Invalid, NotFound
from beads.models import Bead, Convoy, ConvoyBranch, Escalation, Rig
from beads.prepared import Prepared
from refinery.facts.registry import Taken
from refinery.models import Forecast, HostedPull, Landing, ReviewEntry

M = TypeVar("M", bound=Model)
_BEAD = Prepared(lambda pk, town: Bead.objects.filter(pk=pk, town=town))
_ENTRY = Prepared(
    lambda pk, town: ReviewEntry.objects.select_related("bead", "source", "rig").filter(pk=pk, bead__town=town)
)
_RUN = Prepared(lambda pk, town: Run.objects.select_related("bead", "agent", "town").filter(pk=pk, town=town))


def bead(it: Taken[Any]) -> Bead:
    """The bead."""
    found = _BEAD(it.subject, it.fact.town_id)
    if not found:
        raise NotFound(f"no bead {it.subject}")
    return found[0]


def entry(it: Taken[Any]) -> ReviewEntry:
    """The review entry."""
    found = _ENTRY(it.subject, it.fact.town_id)
    if not found:
        raise NotFound(f"no review entry {it.subject}")
    return found[0]


def run(it: Taken[Any]) -> Run:
    """The run."""
    found = run_or_none(it)
    if found is None:
        raise NotFound(f"no run {it.subject}")
    return found


def run_or_none(it: Taken[Any]) -> Run | None:
    """The run, where it is still known."""
    return next(iter(_RUN(it.subject, it.fact.town_id)), None)


def convoy(it: Taken[Any]) -> Convoy:
    """The convoy."""
    found = Convoy.objects.select_related("bead", "rig").filter(pk=it.subject, bead__town=it.town).first()
    if found is None:
        raise NotFound(f"no convoy {it.subject}")
    return found


def escalation(it: Taken[Any]) -> Escalation:
    """The escalation."""
    found = Escalation.objects.select_related("bead").filter(pk=it.subject, town=it.town).first()
    if found is None:
        raise NotFound(f"no escalation {it.subject}")
    return found


def branch(it: Taken[Any]) -> ConvoyBranch:
    """The convoy's branch."""
    return _of_a_rig(it, ConvoyBranch.objects.all(), "convoy branch")


def landing(it: Taken[Any]) -> Landing:
    """The landing."""
    return _of_a_rig(it, Landing.objects.all(), "landing")


def forecast(it: Taken[Any]) -> Forecast:
    """The lane's forecast."""
    return _of_a_rig(it, Forecast.objects.all(), "forecast")


def pull(it: Taken[Any]) -> HostedPull:
    """The pull request, by its row."""
    return _of_a_rig(it, HostedPull.objects.select_related("entry"), "pull request")


def rig(it: Taken[Any]) -> Rig:
    """The rig, by its row."""
    found = Rig.objects.filter(pk=_number(it), town=it.town).first()
    if found is None:
        raise NotFound(f"no rig {it.subject}")
    return found


def _of_a_rig(it: Taken[Any], rows: QuerySet[M], what: str) -> M:
    found = rows.filter(pk=_number(it), rig__town=it.town).first()
    if found is None:
        raise NotFound(f"no {what} {it.subject}")
    return found


def _number(it: Taken[Any]) -> int:
    if not (it.subject.isascii() and it.subject.isdigit() and len(it.subject) < 19):
        raise Invalid(f"{it.kind}: subject {it.subject[:60]!r} is no number", field="subject")
    return int(it.subject)
