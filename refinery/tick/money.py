"""Stored sums and people's words → the world's budgets; without `[budget]` not one query."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from agents import usage
from agents.lifecycle import RunOutcome
from agents.models import Usage
from beads.budget import Amount, BudgetConfig, Cap, CapScope, Spent
from beads.models import Town
from refinery.core.beadviews import RunView
from refinery.core.budgets import Budgets, RunCap
from refinery.core.world import RigView

Parts = tuple[tuple[str, Spent], ...]


def budgets(
    town: Town, rigs: Mapping[int, RigView], accounts: Mapping[str, tuple[int, str]], runs: Sequence[RunView],
    now: dt.datetime,
) -> Budgets:  # fmt: skip
    """The caps that hold for these accounts (by id: their rig and convoy), and for these runs."""
    capped = {key: rigs[rig].config.budget for key, (rig, _) in accounts.items() if rigs[rig].config.budget.any}
    if not capped:
        return Budgets()
    day = str(now.astimezone(dt.UTC).date())
    convoys = {accounts[key][1] for key in capped} - {""}
    words = usage.allowances(
        town.pk,
        [(scope, key) for key in capped for scope in (CapScope.RUN, CapScope.BEAD)]
        + [(CapScope.CONVOY, key) for key in convoys]
        + [(CapScope.DAY, day)],
    )
    by_run = _by_run(list(capped))
    made: dict[str, tuple[Cap, ...]] = {}
    of_convoy: dict[str, Parts] = {}
    if any(b.convoy for b in capped.values()):
        of_convoy = _by_convoy(convoys)
    today: Parts = ()
    if _day(capped):
        spent_today = usage.by(usage.of_day(town.pk, now.astimezone(dt.UTC).date()), "bead_id")
        today = tuple((key, spent) for (key,), spent in spent_today)

    def cap(scope: CapScope, subject: str, limit: Amount | None, parts: Parts) -> Iterable[Cap]:
        """The cap, where there is one."""
        if limit is not None and subject:
            whole = sum((spent for _, spent in parts), Spent())
            yield Cap(scope, subject, usage.raised(words, scope, subject, limit), whole, parts)

    for key, budget in capped.items():
        convoy = accounts[key][1]
        own: Parts = tuple((f"{purpose} {run}", spent) for run, purpose, spent in by_run.get(key, ()))
        found = (
            *cap(CapScope.BEAD, key, budget.bead, own),
            *cap(CapScope.CONVOY, convoy, budget.convoy, of_convoy.get(convoy, ())),
            *cap(CapScope.DAY, day, budget.day, today),
        )
        if found:
            made[key] = tuple(sorted(found, key=lambda one: -one.limit.share(one.spent)))
    live = [run for run in runs if run.live]
    caps = _run_caps(capped, by_run, runs, words)
    every = chain((one.cap for one in caps.values()), chain.from_iterable(made.values()))
    if not any(one.reached for one in every):
        return Budgets(made, caps)
    return Budgets(made, caps, usage.used_at([run.id for run in live]))


def _day(capped: Mapping[str, BudgetConfig]) -> bool:
    return any(budget.day is not None for budget in capped.values())


def _by_run(accounts: list[str]) -> dict[str, list[tuple[str, str, Spent]]]:
    """By account its runs with their purposes and sums, the dearest first."""
    found: dict[str, list[tuple[str, str, Spent]]] = defaultdict(list)
    rows = usage.by(Usage.objects.filter(bead__in=accounts), "bead_id", "run_id", "run__purpose")
    for (account, run, purpose), spent in rows:
        found[account].append((run, purpose, spent))
    return found


def _by_convoy(convoys: Iterable[str]) -> dict[str, Parts]:
    """By convoy its beads with their sums, and its landing."""
    rows = usage.by(usage.of_convoys(list(convoys)), "bead__convoy_id", "bead_id")
    found: dict[str, list[tuple[str, Spent]]] = defaultdict(list)
    for (convoy, bead), spent in rows:
        found[convoy or bead].append((bead, spent))
    return {convoy: tuple(parts) for convoy, parts in found.items()}


def _run_caps(
    capped: Mapping[str, BudgetConfig],
    by_run: Mapping[str, list[tuple[str, str, Spent]]],
    runs: Iterable[RunView],
    words: Mapping[tuple[str, str], usage.Word],
) -> dict[str, RunCap]:
    """The caps of runs that have spent anything, and whether a person has had a word since they ended."""
    found = {}
    views = {run.id: run for run in runs}
    for account, spent_by in by_run.items():
        limit = capped[account].run
        if limit is None:
            continue
        word = words.get((CapScope.RUN, account))
        for run, purpose, spent in spent_by:
            view = views.get(run)
            if view is None or view.forgotten:  # from before a retry, which is a person's word
                continue
            cap = Cap(CapScope.RUN, run, usage.raised(words, CapScope.RUN, account, limit), spent, ((purpose, spent),))
            released = word is not None and view.ended_at is not None and word.at > view.ended_at
            found[run] = RunCap(cap, account, view.outcome == RunOutcome.STOPPED, released)
    return found
