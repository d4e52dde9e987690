"""Who lands before whom, and what will happen to whom: what is derived of how entries stand to one another. Pure.

- An entry whose source bead comes after others (`blocks`) waits until these are closed, in whatever rig: blocked.
- An entry whose head contains another active entry's head stands on it, and lands after it.
- Whoever is waited for inherits the priority of the most urgent entry that waits for it.
- Of two that would conflict, the second does not get on the train while the first is in it, or first in line.
- Of those that conflict with the target in the same files one at a time is resolved and landed: the others' conflicts
  would have to be resolved again after each landing.

A dependency that people wrote down goes before one that git shows: where the two contradict each other, the stack is
not kept, for what contains the other's change may as well land first. So there is no circle to be stuck in. What git
was not asked yet is unknown: it is not "no", but it holds up nobody from being built.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from beads.lifecycle import BeadStatus, EffectState, Purpose
from refinery.core.beadviews import Blocker
from refinery.core.entryviews import EntryView
from refinery.core.order import by_lane, in_queue_order, rank
from refinery.core.relations import ConflictForecast, ForecastView, Refused, StackedOn, foresee_key
from refinery.core.stages import Stage, phase
from refinery.core.standing import proving, standing, wants_slot
from refinery.core.states import BuildResult
from refinery.core.trains import started
from refinery.core.world import RigView, World

Graph = dict[str, set[str]]
Lane = tuple[int, str]
PAIRED = 20  # entries of a lane that are merged in pairs
COMPARED = 100  # entries of a lane whose histories are compared
PACE = dt.timedelta(seconds=10)  # at most so often, when only the target has moved


@dataclass(frozen=True)
class Shown:
    """What git has shown. `stacks`: (rig, upper head, lower head). `refused_below`: (rig, target, head) → who had that
    head and left the queue for good. `forecasts`: what is foreseen in each lane."""

    stacks: Sequence[tuple[int, str, str]] = ()
    refused_below: Mapping[tuple[int, str, str], Sequence[Refused]] = field(default_factory=dict)
    forecasts: Mapping[Lane, ForecastView] = field(default_factory=dict)


def arrange(
    entries: Iterable[EntryView],
    blockers: Mapping[str, Sequence[Blocker]],
    rigs: Mapping[int, RigView],
    now: dt.datetime,
    shown: Shown | None = None,
) -> list[EntryView]:
    """The same entries, each with who lands before it, the priority of those who wait for it, and its conflicts.

    `blockers`: what each live bead waits for.
    """
    shown = shown or Shown()
    found = {e.id: e for e in entries}
    graph: Graph = defaultdict(set)  # entry or bead → what comes before it
    for entry in found.values():
        graph[entry.id] |= {b.id for b in entry.after}
        if whole := entry.source or entry.convoy:
            graph[whole].add(entry.id)
    for bead, waits in blockers.items():
        if bead not in found:
            graph[bead] |= {b.id for b in waits}
    lowers, refused_below = _stack(found, graph, shown)
    if lowers or any(e.after for e in found.values()):
        found = _ordered(found, graph, lowers, rigs, now)
    if refused_below:
        found |= {key: _tied(found[key], refused_below=gone) for key, gone in refused_below.items()}
    for lane, members in by_lane(found.values()).items():
        clashes = _clashes(members, shown.forecasts.get(lane))
        if clashes or any(e.contested for e in members):
            found |= _rivals(members, clashes, graph, rigs[lane[0]], now)
    return list(found.values())


def _tied(entry: EntryView, **change: Any) -> EntryView:
    return replace(entry, ties=replace(entry.ties, **change))


def _ordered(
    found: Mapping[str, EntryView],
    graph: Graph,
    lowers: Mapping[str, list[str]],
    rigs: Mapping[int, RigView],
    now: dt.datetime,
) -> dict[str, EntryView]:
    """Who lands before whom, with the priorities that follow."""
    before = {key: tuple(sorted(k for k in reach(graph, key) if k in found and k != key)) for key in found}
    inherited_rank: dict[str, int] = {}
    for entry in found.values():
        for key in before[entry.id]:
            inherited_rank[key] = min(rank(entry), inherited_rank.get(key, rank(entry)))
    done: dict[str, EntryView] = {}
    for entry in sorted(found.values(), key=lambda e: (len(before[e.id]), e.id)):
        under = [done[key] for key in lowers.get(entry.id, ()) if key in done]
        stacked_on = tuple(StackedOn(low.id, _state(entry, low, rigs, now)) for low in under)
        ties = replace(
            entry.ties, before=before[entry.id], inherited_rank=inherited_rank.get(entry.id), stacked_on=stacked_on
        )
        done[entry.id] = replace(entry, ties=ties)
    return {key: done[key] for key in found}


def _stack(
    found: Mapping[str, EntryView], graph: Graph, shown: Shown
) -> tuple[dict[str, list[str]], dict[str, tuple[Refused, ...]]]:
    """Entry → those of its lane that it stands on, and those that it stood on. Adds what closes no circle to the
    graph."""
    by_head: dict[tuple[int, str], list[EntryView]] = defaultdict(list)
    for entry in found.values():
        by_head[entry.rig, entry.head].append(entry)
    lowers: dict[str, list[str]] = defaultdict(list)
    refused_below: dict[str, tuple[Refused, ...]] = defaultdict(tuple)
    for rig, high, low in sorted(set(shown.stacks)):
        for upper in by_head.get((rig, high), ()):
            active = [e for e in by_head.get((rig, low), ()) if e.target == upper.target]
            if not active:
                refused_below[upper.id] += tuple(shown.refused_below.get((rig, upper.target, low), ()))
            for lower in active:
                if upper.id not in reach(graph, lower.id):
                    graph[upper.id].add(lower.id)
                    lowers[upper.id].append(lower.id)
    return lowers, {key: told for key, told in refused_below.items() if told}


def reach(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    """All that comes before `start`, however far."""
    seen: set[str] = set()
    todo = list(graph.get(start, ()))
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo.extend(graph.get(one, ()))
    return seen


def _state(upper: EntryView, lower: EntryView, rigs: Mapping[int, RigView], now: dt.datetime) -> str:
    """Where the lower of a stack is, seen from the upper."""
    if lower.admitted and (not upper.admitted or (lower.slot or 0.0) < (upper.slot or 0.0)):
        return "ahead"
    told = phase(standing(lower, rigs[lower.rig], now).stage, admitted=lower.admitted)
    if told in ("blocked", "awaiting_human"):
        return "waits"
    return "queued"


# -- conflicts ahead of time ----------------------------------------------------------------------------------------


def _clashes(entries: list[EntryView], forecast: ForecastView | None) -> dict[str, list[ConflictForecast]]:
    """Entry → the conflicts that are foreseen for it."""
    clashes: dict[str, list[ConflictForecast]] = defaultdict(list)
    if forecast is None or not forecast.clashes:
        return clashes
    heads: dict[str, list[EntryView]] = defaultdict(list)
    for entry in entries:
        heads[entry.head].append(entry)
    for a, b, files in forecast.clashes:
        for one in heads.get(a, ()):
            if not b:
                clashes[one.id].append(ConflictForecast("", files))
            for other in heads.get(b, ()):
                clashes[one.id].append(ConflictForecast(other.id, files))
                clashes[other.id].append(ConflictForecast(one.id, files))
    return clashes


def _rivals(
    entries: list[EntryView],
    clashes: Mapping[str, list[ConflictForecast]],
    graph: Graph,
    rig: RigView,
    now: dt.datetime,
) -> dict[str, EntryView]:
    """A lane's entries that conflict, or are foreseen to, and who of them lets whom land first."""
    order = in_queue_order(entries)
    moving = {e.id for e in order if e.admitted or wants_slot(e, rig, now)}
    alone = {e.id for e in order if e.id not in moving and _is_proving(e, rig, now)}
    # what is built anyway, as a car or by itself, is asked of that build only
    foreseen = {e.id: clashes.get(e.id, ()) for e in order if e.id in moving and not e.admitted}
    against = {e.id: _against_target(e, foreseen.get(e.id, ())) for e in order if e.id in moving | alone}
    found: dict[str, EntryView] = {}
    first: dict[str, EntryView] = {}  # who is in the train, or would be
    back = {key for key, files in against.items() if not files}
    turns = [e for e in order if _being_resolved(e) or (e.conflict_count and e.id in back)]
    for entry in order:
        told = tuple(clashes.get(entry.id, ()))
        mine = against.get(entry.id, frozenset())
        held_back_by = ""
        resolving = False
        if mine:
            rival = next((e for e in turns if _is_turn_of(e, entry, mine, graph)), None)
            if rival is None:
                turns.append(replace(entry, contested=tuple(mine)))
            else:
                graph[entry.id].add(rival.id)
                held_back_by, resolving = _turn(rival, entry, mine), _being_resolved(rival)
        if entry.id in moving and not held_back_by:
            rivals = [c for c in told if c.id in first and _goes_ahead(first[c.id], entry)]
            if rivals and not entry.admitted:
                held_back_by = _why(rivals[0], first[rivals[0].id])
            first[entry.id] = entry
        if told or held_back_by:
            found[entry.id] = _tied(entry, clashes=told, held_back_by=held_back_by, resolving=resolving)
    return found


def _is_proving(entry: EntryView, rig: RigView, now: dt.datetime) -> bool:
    """True when an entry is gated by itself, and waits for nobody."""
    stage = standing(entry, rig, now).stage
    return proving(entry, rig, now) and phase(stage, admitted=False) == "queued" and stage != Stage.BEHIND


def _against_target(entry: EntryView, foreseen: Sequence[ConflictForecast]) -> frozenset[str]:
    """The files in which an entry conflicts with its target, as far as its build shows, or else as is foreseen."""
    built = entry.candidate
    if built is not None and built.head == entry.head and built.result == BuildResult.CONFLICT:
        if built.on is None or built.on_landed:
            return frozenset(built.files)
        return frozenset()
    return frozenset(name for c in foreseen if not c.id for name in c.files)


def _being_resolved(entry: EntryView) -> bool:
    """True while a task to resolve its conflict is open."""
    tasks = [b for b in entry.waiting_for if b.purpose == Purpose.CONFLICT]
    return bool(tasks) and not any(b.status == BeadStatus.FAILED for b in tasks)


def _is_turn_of(rival: EntryView, entry: EntryView, mine: frozenset[str], graph: Graph) -> bool:
    """True when `rival`, which conflicts with the target too, or did, lands first: in one of the same files, at least
    as urgent, and not after `entry` in whatever way."""
    shared = rival.id != entry.id and not mine.isdisjoint(rival.contested)
    return shared and rank(rival) <= rank(entry) and entry.id not in reach(graph, rival.id)


def _turn(rival: EntryView, entry: EntryView, mine: frozenset[str]) -> str:
    where = files(ConflictForecast("", tuple(sorted(mine.intersection(rival.contested)))))
    how = "comes first"
    if _being_resolved(rival):
        how = "is being resolved"
    return f"held back: it conflicts with {entry.target} in {where}, and so did {rival.id}, which {how}"


def _goes_ahead(rival: EntryView, entry: EntryView) -> bool:
    """True when `entry` would get on behind `rival`; see `refinery.core.rules.lanes`."""
    if not rival.admitted or (rival.landing is not None and rival.landing.under_way):
        return True
    return rank(rival) <= rank(entry) or (started(rival) and rank(entry) > 0)


def _why(clash: ConflictForecast, rival: EntryView) -> str:
    where = "comes first"
    if rival.admitted:
        where = "is in the train"
    return f"held back: it would conflict with {rival.id}, which {where}, in {files(clash)}"


def files(clash: ConflictForecast) -> str:
    """The first files of a conflict, in words."""
    named = ", ".join(clash.files[:3])
    if len(clash.files) > 3:
        named += f" and {len(clash.files) - 3} more"
    return named or "(no file named)"


def due(world: World, lane: Lane, entries: Iterable[EntryView]) -> tuple[str, str, tuple[str, ...]] | None:
    """Whether git has to be asked about a lane's queue: rule, why, and the heads to ask about (empty: not now).

    None when there is nothing to compare. At most one question is under way for each lane.
    """
    wanted = tuple(dict.fromkeys(e.head for e in in_queue_order(entries)))[:COMPARED]
    if len(wanted) < 2:
        return None
    known = world.lane(*lane).forecast
    if known is None:
        return "foresee", "the first two entries of the lane", wanted
    if known.number > known.answered:
        key = foresee_key(known.id, known.number)
        effect = world.effects.get(key)
        if effect is not None and effect.state == EffectState.FAILED:
            if set(wanted) <= set(known.asked) and known.tip == known.asked_tip:
                wanted = ()  # the same would fail again
            return "foresee-failed", f"what will happen cannot be foreseen: {effect.error}", wanted
        if not world.unanswered(key):
            wanted = ()
        return "foreseeing", "git is asked who stands on whom and who conflicts", wanted
    if not set(wanted) <= known.heads:
        return "foresee", "there are new heads", wanted
    if known.base == known.tip and set(wanted[:PAIRED]) <= known.paired:
        return "foreseen", "known for these heads and the target's head", ()
    if known.asked_at is not None and world.now < known.asked_at + PACE:
        return "foresee-later", "the target has moved; asked again in a moment", ()
    return "foresee", "the target has moved", wanted


def uncompared(world: World, entry: EntryView) -> bool:
    """True while git is being asked whether an entry stands on another one that should land first."""
    known = world.lane(entry.rig, entry.target).forecast
    if known is None or entry.head in known.heads or entry.head not in known.asked:
        return False
    effect = world.effects.get(foresee_key(known.id, known.number))
    return effect is not None and effect.state == EffectState.PENDING


# -- exits ----------------------------------------------------------------------------------------------------------


def refused(entry: EntryView) -> tuple[str, str] | None:
    """The exit reason when what it depends on will not land. A person's retry goes on in spite of what was refused
    before it: it waits for a failed bead to be retried, and no longer for what was cancelled or left the queue."""
    since = entry.reopened_at or entry.created_at
    for bead in entry.after:
        if bead.status == BeadStatus.FAILED and (
            entry.reopened_at is None or _after(bead.closed_at, entry.reopened_at)
        ):
            return "blocker_failed", f"bead {bead.id}, which it comes after, failed: retry that, then this"
        if bead.resolution == "cancelled" and _after(bead.closed_at, since):
            return "blocker_failed", f"bead {bead.id}, which it comes after, was cancelled and did not land"
    for low in entry.ties.refused_below:
        if _after(low.at, since):
            return "stacked_on_failed", f"it contains the change of {low.id}, which left the queue: {low.how}"
    return None


def _after(moment: dt.datetime | None, since: dt.datetime) -> bool:
    return moment is None or moment > since
