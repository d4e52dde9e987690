"""*Why is this stuck?*: the plan's own sentences about a subject and about what it waits for, in an order to read.

Nothing is decided here: every sentence is that of the board, which is the plan's, or says what is stored and wrong (a
failing effect, a quarantined fact, an open escalation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from django.db.models import Q
from django.urls import reverse

from agents.models import Run
from beads.lifecycle import BeadStatus, EffectState
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Town
from refinery.console.filters import FAILING
from refinery.core.states import EntryState
from refinery.core.telling import short
from refinery.models import ReviewEntry
from refinery.pages.boards import Board

ENDED = "it has ended, or nothing is decided about it"
_PAGES = {
    "bead": "admin:beads_bead_change",
    "entry": "admin:refinery_reviewentry_change",
    "convoy": "admin:beads_convoy_change",
    "run": "admin:agents_run_change",
    "effect": "admin:beads_effect_change",
    "fact": "admin:beads_fact_change",
    "escalation": "admin:beads_escalation_change",
}


@dataclass(frozen=True)
class Sentence:
    """One thing that is true now. `subject` is such as `bead gt-1`; `link` leads to its console page, or nowhere."""

    subject: str
    rule: str
    text: str
    link: str = ""


class Telling:
    """One look at a town's plan, asked about subjects."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.board = Board(town)
        self.decided = self.board.decided

    def of(self, kind: str, key: str) -> Sentence:
        """The plan's sentence about one subject."""
        subject = f"{kind} {key}"
        decision = self.decided.get(subject)
        link = ""
        if kind in _PAGES:
            link = reverse(_PAGES[kind], args=[key])
        if decision is None:
            return Sentence(subject, "", ENDED, link)
        return Sentence(subject, decision.rule, decision.why, link)

    def of_lane(self, rig: str, target: str) -> Iterator[Sentence]:
        """The sentence about a lane, when it has entries."""
        decision = self.decided.get(f"lane {rig} {target}")
        if decision is not None:
            yield Sentence(decision.subject, decision.rule, decision.why)

    def town_wide(self) -> Iterator[Sentence]:
        """What holds up everything in the town."""
        if self.town.paused_at is not None:
            link = reverse("admin:beads_town_change", args=[self.town.pk])
            yield Sentence(f"town {self.town.slug}", "paused", f"paused: {self.town.paused_reason}", link)
        for decision in self.board.town_wide:
            yield Sentence(decision.subject, decision.rule, decision.why)


def _ended(first: Sentence, how: str) -> Sentence:
    """An ended subject's own words in place of the plan's silence."""
    if first.text == ENDED:
        return replace(first, rule="ended", text=how)
    return first


def of_whatever(bead: Bead) -> list[Sentence]:
    """About any bead, as what it is: issue, review entry or convoy."""
    entry = ReviewEntry.objects.filter(pk=bead.pk).first()
    if entry is not None:
        return of_entry(entry)
    convoy = Convoy.objects.filter(pk=bead.pk).first()
    if convoy is not None:
        return of_convoy(convoy)
    return of_bead(bead)


def of_bead(bead: Bead) -> list[Sentence]:
    """A bead, then its blockers, its live runs, its review entries and its convoy."""
    telling = Telling(bead.town)
    how = f"{bead.status} ({bead.resolution}): {bead.reason or 'no reason was noted'}"
    told = [telling.of("bead", bead.pk)]
    if bead.resolution:
        told[0] = _ended(told[0], how)
    told += _blockers(telling, bead)
    told += _runs(telling, [bead.pk])
    for entry in ReviewEntry.objects.active().filter(source=bead):
        told.append(telling.of("entry", entry.pk))
    if bead.convoy_id is not None:
        told.append(telling.of("convoy", bead.convoy_id))
    return told + _around(telling, bead.town, [bead.pk])


def of_entry(entry: ReviewEntry) -> list[Sentence]:
    """A review entry, then its rework, its runs, its lane, the cars ahead, and the bead it comes from."""
    town = entry.rig.town
    telling = Telling(town)
    how = f"{entry.state} ({entry.reason}): {entry.reason_text or 'no reason was noted'}"
    told = [telling.of("entry", entry.pk)]
    if entry.reason:
        told[0] = _ended(told[0], how)
    told += _blockers(telling, entry.bead)
    told += _runs(telling, [entry.pk])
    if entry.state == EntryState.ACTIVE:
        told += telling.of_lane(entry.rig.slug, entry.target)
        cars = ReviewEntry.objects.filter(rig=entry.rig, target=entry.target, slot__isnull=False).order_by("slot")
        ahead = cars
        if entry.slot is not None:
            ahead = cars.filter(slot__lt=entry.slot)
        told += [telling.of("entry", other.pk) for other in ahead]
    if entry.source_id is not None:
        told.append(telling.of("bead", entry.source_id))
    return told + _around(telling, town, [entry.pk])


def of_run(run: Run) -> list[Sentence]:
    """A run, then what it was started for."""
    telling = Telling(run.town)
    is_entry = ReviewEntry.objects.filter(pk=run.bead_id).exists()
    told = [telling.of("run", run.pk), telling.of("entry" if is_entry else "bead", run.bead_id)]
    if run.outcome:
        told[0] = _ended(told[0], f"ended ({run.outcome}): {run.reason or 'no reason was noted'}")
    return told + _around(telling, run.town, [run.pk, run.bead_id])


def of_convoy(convoy: Convoy) -> list[Sentence]:
    """A convoy, then its beads that are not closed, with their live runs and entries, and its landing."""
    town = convoy.bead.town
    telling = Telling(town)
    bead = convoy.bead
    told = [telling.of("convoy", convoy.pk)]
    if bead.resolution:
        told[0] = _ended(told[0], f"{bead.status} ({bead.resolution}): {bead.reason or 'no reason was noted'}")
    open_beads = [b.pk for b in convoy.beads.exclude(status=BeadStatus.CLOSED).order_by("created_at")[:50]]
    told += [telling.of("bead", key) for key in open_beads]
    told += _runs(telling, open_beads)
    about = Q(convoy=convoy) | Q(source__convoy=convoy)
    told += [telling.of("entry", e.pk) for e in ReviewEntry.objects.active().filter(about)[:50]]
    return told + _around(telling, town, [convoy.pk, *open_beads])


def _blockers(telling: Telling, bead: Bead) -> list[Sentence]:
    waits = bead.blocked_by.exclude(on__status=BeadStatus.CLOSED).select_related("on")
    return [telling.of("bead", edge.on_id) for edge in waits[:50]]


def _runs(telling: Telling, beads: Iterable[str]) -> list[Sentence]:
    return [telling.of("run", run.pk) for run in Run.objects.live().filter(bead__in=list(beads))[:50]]


def _around(telling: Telling, town: Town, keys: list[str]) -> list[Sentence]:
    """What is stored and wrong about these subjects, then what holds up the whole town."""
    told = []
    failing = Effect.objects.filter(town=town).filter(
        Q(state=EffectState.FAILED) | Q(state=EffectState.PENDING, attempts__gte=FAILING)
    )
    for effect in failing.order_by("-id")[:200]:
        if any(key in effect.key or key in effect.payload.values() for key in keys):
            text = f"{effect.kind} keeps failing: {effect.error}"
            if effect.state == EffectState.FAILED:
                text = f"{effect.kind} was given up: {effect.error}"
            told.append(
                Sentence(f"effect {effect.pk}", effect.state, text, reverse(_PAGES["effect"], args=[effect.pk]))
            )
    for fact in Fact.objects.filter(town=town, subject__in=keys, processed_at=None)[:20]:
        state = "pending"
        if fact.quarantined_at:
            state = "quarantined"
        text = f"{fact.kind} is {state}"
        if fact.error:
            text += f": {fact.error}"
        told.append(Sentence(f"fact {fact.pk}", state, text, reverse(_PAGES["fact"], args=[fact.pk])))
    for one in Escalation.objects.select_related("bead").filter(town=town, about__in=keys, closed_at=None)[:20]:
        link = reverse(_PAGES["escalation"], args=[one.pk])
        said = short(next(iter(one.bead.body.strip().splitlines()), ""), 400)
        text = one.bead.title
        if said:
            text += f": {said}"
        told.append(Sentence(f"escalation {one.pk}", one.severity, text, link))
    return told + list(telling.town_wide())
