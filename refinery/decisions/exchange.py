"""Beads that are taken in from a file or from elsewhere: each once, however often it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import transaction

from agents import launches
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Invalid
from beads.exchange import Item
from beads.models import Bead, Rig

ORIGIN = "imported"  # in a bead's context: the id that it had where it comes from


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file: the beads that were made, by the ids of the file; ids that were here before; ids of what
    is over."""

    made: dict[str, str]
    known: tuple[str, ...]
    over: tuple[str, ...]


@transaction.atomic
def take_in(items: Sequence[Item], home: Callable[[str], Rig], *, by: Actor) -> Taken:
    """Make beads of what is not over and not here yet, all of them or none; they are dispatched as slung ones are.

    `home`: the rig for an item's own word on it, which may be empty; all rigs are of one town. What an item waits for
    counts where it is among the items, or was taken in before; what is over holds nobody.
    """
    rigs = {item.rig: home(item.rig) for item in items}
    towns = {rig.town_id: rig.town for rig in rigs.values()}
    if len(towns) > 1:
        raise Invalid("its rigs are of several towns: name one with --rig", field="rig")
    for town in towns.values():
        ledger.lock_town(town)  # the same file twice at once: the second finds what the first has made
        inbox.wake(town)
    here = _known(list(towns), {key for item in items for key in (item.id, *item.after)})
    made: dict[str, str] = {}
    known = [item.id for item in items if item.id in here and not item.over]
    fresh = [item for item in items if not item.over and item.id not in here]
    launches.check_models({"key": item.id, "rig": rigs[item.rig], "model": item.model} for item in fresh)
    for item in fresh:
        rig = rigs[item.rig]
        origin = {ORIGIN: item.id}
        draft = ledger.Draft(item.title, item.body, priority=item.priority, model=item.model, context=origin)
        blockers = [here[key] for key in item.after if key in here]
        here[item.id] = ledger.create_bead(rig.town, rig, draft, actor=str(by), after=blockers)
        made[item.id] = here[item.id].pk
    return Taken(made, tuple(known), tuple(item.id for item in items if item.over))


def _known(towns: Sequence[int], keys: set[str]) -> dict[str, Bead]:
    """The beads that have these ids, or had them where they come from."""
    mine = Bead.objects.filter(town__in=towns)
    found = {bead.pk: bead for bead in mine.filter(pk__in=keys)}
    for bead in mine.filter(context__has_key=ORIGIN).order_by("created_at"):
        if bead.context[ORIGIN] in keys:
            found[bead.context[ORIGIN]] = bead
    return found
