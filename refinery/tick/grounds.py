"""Rows → what is known of the gates on the targets themselves: active checks, and what passes where entries stand."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping

from refinery.core import checks as check_rules
from refinery.core.entryviews import EntryView, GateView
from refinery.core.relations import Key, KnownCheck
from refinery.core.states import EntryKind, GateOutcome
from refinery.core.world import CheckView, RigView
from refinery.models import ReviewEntry
from refinery.store.results import view
from refinery.tick import queries

Passes = dict[tuple[int, str], dict[Key, int]]


def apart(
    found: Iterable[ReviewEntry], views: Mapping[str, EntryView], rigs: Mapping[int, RigView], now: dt.datetime
) -> tuple[tuple[CheckView, ...], dict[tuple[int, str], KnownCheck], list[EntryView]]:
    """The active checks, what they say of their lanes, and the changes, each with what is known where it stands."""
    kinds = {e.pk: e.kind for e in found}
    active = checks([e for e in found if e.kind == EntryKind.CHECK], views)
    known = {(c.entry.rig, c.entry.target): check_rules.known(c, rigs[c.entry.rig], now) for c in active}
    changes = [views[key] for key, kind in kinds.items() if kind != EntryKind.CHECK]
    return active, known, check_rules.ground(changes, known, passes(changes))


def checks(found: Iterable[ReviewEntry], views: Mapping[str, EntryView]) -> tuple[CheckView, ...]:
    """The active checks among these rows, by their views: one query when there are any."""
    asked = {e.pk: e.gates_again_at or e.created_at for e in found}
    if not asked:
        return ()
    latest: dict[str, dict[Key, GateView]] = defaultdict(dict)
    for result in queries.RESULTS(list(asked), [], []):
        latest[result.entry_id][result.gate, result.command] = view(result)
    return tuple(CheckView(views[key], at, tuple(latest[key].values())) for key, at in asked.items())


def passes(entries: Iterable[EntryView]) -> Passes:
    """(rig, commit) → the gates whose latest result on its tree is a pass, for the commits on which entries stand that
    have failed; see `relations.Ground.passes`. No query when none has."""
    bases = {(e.rig, e.candidate.base) for e in entries if e.candidate and e.candidate.base and _failed(e)}
    if not bases:
        return {}
    rigs = list({rig for rig, _ in bases})
    commits: dict[tuple[int, str], set[tuple[int, str]]] = defaultdict(set)  # (rig, tree) → (rig, commit)
    for rig, sha, tree in queries.TREES(rigs, [sha for _, sha in bases]):
        if (rig, sha) in bases:
            commits[rig, tree].add((rig, sha))
    found: Passes = defaultdict(dict)
    bad: set[tuple[int, str, Key]] = set()
    for rig, tree, gate, command, outcome, number in queries.OUTCOMES(rigs, [tree for _, tree in commits]):
        key = (gate, command)
        for commit in commits.get((rig, tree), ()):
            if outcome == GateOutcome.PASS:
                found[commit].setdefault(key, number if (rig, tree, key) in bad else 0)
            else:
                found[commit].pop(key, None)
                bad.add((rig, tree, key))
    return found


def _failed(entry: EntryView) -> bool:
    tree = entry.built.tree
    return any(g.outcome != GateOutcome.PASS for g in entry.gates if g.tree == tree)
