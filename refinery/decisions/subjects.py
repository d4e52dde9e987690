"""What people decide about: how each subject is named in a shell, how it is found there, and whose town it is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from agents.models import Run
from beads.finders import bead_of, rig_of, the_one, town_of
from beads.models import Bead, Convoy, Escalation, Rig, Town
from refinery.models import ReviewEntry


def convoy_of(key: str) -> Convoy:
    """A convoy by id."""
    return the_one(Convoy.objects.select_related("bead__town", "rig__town").filter(pk=key), "convoy", key)


def entry_of(key: str) -> ReviewEntry:
    """A review entry by id."""
    rows = ReviewEntry.objects.select_related("bead__town", "rig__town", "source", "convoy__bead")
    return the_one(rows.filter(pk=key), "review entry", key)


def run_of(key: str) -> Run:
    """A run by id."""
    rows = Run.objects.select_related("agent", "rig", "town", "bead__town", "bead__rig", "bead__convoy__bead")
    return the_one(rows.filter(pk=key), "run", key)


def escalation_of(key: str) -> Escalation:
    """An escalation by id."""
    return the_one(Escalation.objects.select_related("bead", "town").filter(pk=key), "escalation", key)


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of row that people decide about: `noun` in names of actions, `command` and `argument` in a shell.

    `find` returns the row that a key names, and raises NotFound; `town` says in which town a row is.
    """

    noun: str
    command: str
    argument: str
    find: Callable[[str], Any]
    town: Callable[[Any], Town]


SUBJECTS: dict[type[Model], Subject] = {
    Bead: Subject("bead", "bead", "id", bead_of, lambda bead: bead.town),
    Convoy: Subject("convoy", "convoy", "id", convoy_of, lambda convoy: convoy.bead.town),
    Escalation: Subject("escalation", "escalations", "id", escalation_of, lambda one: one.town),
    ReviewEntry: Subject("entry", "mq", "id", entry_of, lambda entry: entry.rig.town),
    Rig: Subject("rig", "rig", "slug", rig_of, lambda rig: rig.town),
    Run: Subject("run", "runs", "id", run_of, lambda run: run.town),
    Town: Subject("town", "town", "slug", town_of, lambda town: town),
}
