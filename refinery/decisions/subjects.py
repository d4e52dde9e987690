"""What people decide about: how each subject is named in a shell, how it is found there, and whose town it is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import Model

from agents.models import Run
from beads.errors import NotFound
from beads.finders import bead_of, rig_of, town_of
from beads.models import Bead, Convoy, Escalation, Rig, Town
from refinery.models import ReviewEntry

M = TypeVar("M", bound=Model)


def convoy_of(key: str) -> Convoy:
    """A convoy by id."""
    return _one(Convoy, ("bead__town", "rig__town"), "convoy", key)


def entry_of(key: str) -> ReviewEntry:
    """A review entry by id."""
    return _one(ReviewEntry, ("bead__town", "rig__town", "source", "convoy__bead"), "review entry", key)


def run_of(key: str) -> Run:
    """A run by id."""
    return _one(Run, ("agent", "rig", "town"), "run", key)


def escalation_of(key: str) -> Escalation:
    """An escalation by id."""
    return _one(Escalation, ("bead", "town"), "escalation", key)


def _one(model: type[M], related: tuple[str, ...], words: str, key: str) -> M:
    found = model._default_manager.select_related(*related).filter(pk=key).first()
    if found is None:
        raise NotFound(f"no {words} {key}", details={"field": "id"})
    return found


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
