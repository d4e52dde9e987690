"""Rows → World, in a fixed number of queries, whatever the size of the town's history.

Only live rows are read (partial indexes), with what hangs on them. `load` is what the tick, `explain`, the pages and
the commands all look at.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from agents.lifecycle import RunOutcome, RunState
from agents.models import Run
from beads import inbox, questions, room
from beads.models import Town
from refinery.core import stacks, trains
from refinery.core.beadviews import BeadView, Blocker, RunView
from refinery.core.convoyviews import ConvoyView
from refinery.core.entryviews import LaneView
from refinery.core.questions import AskedView
from refinery.core.relations import ForecastView, Refused
from refinery.core.states import EntryKind, EntryState
from refinery.core.telling import of_steps, of_transcript
from refinery.core.world import BREAKER_WINDOW, AgentView, RigView, World
from refinery.models import Forecast, Lane, ReviewEntry
from refinery.tick import convoyrows, entryrows, grounds, money, outside, queries, requestrows

RECENT = 100


def load(town: Town, now: dt.datetime) -> World:
    """The world of `town` at `now`: about fifteen queries."""
    troubles = {outage.key: outage for outage in queries.OUTAGES()}
    rigs = {rig.pk: outside.rig_view(town, rig, troubles) for rig in queries.RIGS(town.pk)}
    pulls = outside.with_hosts(town, rigs)
    entries = queries.ENTRIES(town.pk)
    runs = _runs(town)
    by_bead: dict[str, list[RunView]] = defaultdict(list)
    for run in runs:
        by_bead[run.bead].append(run)
    blockers = _blockers(town)
    convoys = convoyrows.of_town(town)
    live_runs = tuple(r for r in runs if r.live)
    failures, last_failure = _failures(town, now)
    effects = outside.effects_of(town)
    escalated = list(queries.ESCALATED(town.pk))
    asked = _asked(escalated)
    around = entryrows.Around(blockers, by_bead, effects, now, asked)
    views = {view.id: view for view in entryrows.views(entries, around)}
    checks, known, changes = grounds.apart(entries, views, rigs, now)
    entries = [e for e in entries if e.kind != EntryKind.CHECK]
    shown = _shown(town, entries)
    beads = tuple(_bead(b, blockers, by_bead) for b in queries.ISSUES(town.pk))
    requests = requestrows.of_town(town, by_bead)
    accounts = {}
    if any(rig.config.budget.any for rig in rigs.values()):
        accounts = {view.account: (view.rig, view.convoy or "") for view in views.values()}
        accounts |= {b.id: (b.rig, b.convoy or "") for b in (*beads, *requests)}
    return World(
        now=now,
        town=town.slug,
        paused=town.paused_at is not None,
        paused_reason=town.paused_reason,
        rigs=rigs,
        beads=beads,
        requests=requests,
        budgets=money.budgets(town, rigs, accounts, runs, now),
        entries=tuple(trains.couple(stacks.arrange(changes, blockers, rigs, now, shown), rigs)),
        checks=checks,
        known=known,
        lanes=_lanes(town, rigs, now, shown.forecasts),
        convoys=convoys,
        runs=live_runs,
        final_beads_with_live_runs=_ended_beads(live_runs),
        refineries=_refineries(town, convoys, live_runs),
        refinery_runs=_refinery_runs(town, live_runs),
        failures_in_a_row=failures,
        last_failure_at=last_failure,
        needs=frozenset(key for key, _, closed, *_ in escalated if closed is None),
        escalated=frozenset(key for key, *_ in escalated),
        asked=asked,
        effects=effects,
        pulls=pulls,
        no_room=room.lacking(),
        behind=inbox.has_pending(town),  # read after the effects: an answer is recorded as they are ended
    )


def _failures(town: Town, now: dt.datetime) -> tuple[int, dt.datetime | None]:
    """How many agents' runs failed in a row within the breaker's window, and when the last one did."""
    count, last = 0, None
    for outcome, at in queries.ENDED(town.pk, now - BREAKER_WINDOW):
        if outcome == RunOutcome.DONE:
            break
        count, last = count + 1, last or at
    return count, last


def _lanes(
    town: Town, rigs: Mapping[int, RigView], now: dt.datetime, forecasts: Mapping[tuple[int, str], ForecastView]
) -> dict[tuple[int, str], LaneView]:
    batching = [rig for rig in rigs.values() if rig.config.refinery.batch.max > 1]
    failing = _failing({rig.id: not rig.config.refinery.entry_gates for rig in batching})
    known = {(lane.rig_id, lane.target): lane for lane in queries.LANES(town.pk)}
    lanes = {}
    for key in {*known, *failing, *forecasts}:
        lanes[key] = LaneView(failing=failing.get(key), forecast=forecasts.get(key))
        if lane := known.get(key):
            lanes[key] = replace(lanes[key], window=lane.window, frozen=_frozen(lane, now))
    return lanes


def _shown(town: Town, entries: list[ReviewEntry]) -> stacks.Shown:
    """What git has shown of these entries' heads."""
    if not entries:
        return stacks.Shown()
    heads = {e.head_sha for e in entries}
    standing = queries.STACKS(town.pk, list(heads))
    refused_below: dict[tuple[int, str, str], list[Refused]] = defaultdict(list)
    if lowers := {low for _, _, low in standing} - heads:
        for e in queries.REFUSED(town.pk, list(lowers)):
            refused_below[e.rig_id, e.target, e.head_sha].append(Refused(e.pk, e.reason.replace("_", " "), e.closed_at))
    return stacks.Shown(
        standing, refused_below, {(f.rig_id, f.target): _forecast(f) for f in queries.FORECASTS(town.pk)}
    )


def _forecast(f: Forecast) -> ForecastView:
    return ForecastView(
        id=f.pk,
        number=f.number,
        answered=f.answered,
        asked_at=f.asked_at,
        asked=tuple(f.asked),
        asked_tip=f.asked_tip,
        tip=f.tip,
        base=f.base,
        heads=frozenset(f.heads),
        paired=frozenset(f.paired),
        clashes=tuple((c["a"], c["b"], tuple(c["files"])) for c in f.clashes),
    )


def _failing(rigs: Mapping[int, bool]) -> dict[tuple[int, str], float]:
    """The share of a lane's latest changes that failed in its train, for lanes that batch.

    `rigs`: whether a rework tells of the train; it does not where entries are gated by themselves first.
    """
    if not rigs:
        return {}
    ended = ReviewEntry.objects.filter(rig__in=list(rigs), closed_at__isnull=False, attempts__gt=0)
    columns = ("rig", "target", "state", "reason", "rework_count")
    seen: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for rig, target, state, reason, rework in ended.order_by("-closed_at").values_list(*columns)[:RECENT]:
        if state == EntryState.MERGED or reason == "gates_failed":
            seen[rig, target].append(reason == "gates_failed" or (rigs[rig] and rework > 0))
    return {key: trains.failing_share(failed) for key, failed in seen.items()}


def _frozen(lane: Lane, now: dt.datetime) -> str:
    if lane.frozen_at is None or (lane.frozen_until is not None and now >= lane.frozen_until):
        return ""
    who = lane.frozen_by
    if lane.frozen_until:
        who += f" until {lane.frozen_until:%Y-%m-%d %H:%M} UTC"
    return f"the lane is frozen by {who}: {lane.frozen_reason}"


def _runs(town: Town) -> list[RunView]:
    """Live runs, and the ended ones of live beads since their last retry, oldest first."""
    return [run_view(r) for r in queries.RUNS(town.pk) if _counts(r)]


def _counts(run: Run) -> bool:
    since = run.bead.retried_at
    return since is None or run.created_at >= since or run.state != RunState.ENDED or bool(run.published)


def run_view(r: Run) -> RunView:
    """A run as the rules see it."""
    retried = r.bead.retried_at
    forgotten = retried is not None and r.created_at < retried and r.state == RunState.ENDED
    stillborn = bool(cast(Any, r).stillborn) and not forgotten
    outcome, last_line, words = r.outcome, "", ""
    if forgotten:
        outcome = RunOutcome.STOPPED
    if r.state == RunState.RUNNING and r.exited_at:
        last_line, words = of_steps(r.step_results), of_transcript(r.step_results)
    elif stillborn:
        last_line = of_steps(r.step_results)
    return RunView(
        id=r.pk,
        bead=r.bead_id,
        kind=r.kind,
        state=r.state,
        attempt=r.attempt,
        created_at=r.created_at,
        rig=r.rig_id,
        account=r.account_id or r.bead_id,
        outcome=outcome,
        agent=r.agent_id,
        purpose=r.purpose,
        start_deadline=r.start_deadline,
        lease_until=r.lease_until,
        activity_at=r.activity_at,
        active_tool=r.active_tool,
        nudged_at=r.nudged_at,
        start_error=r.start_error,
        fault=r.fault,
        exited_at=r.exited_at,
        exit_code=r.exit_code,
        exit_signal=r.exit_signal,
        exit_error=r.exit_error,
        start_sha=r.start_sha,
        head_sha=r.head_sha,
        branch=r.branch,
        published=r.published,
        on_remote=r.on_remote,
        work=r.work,
        work_text=r.work_text,
        last_line=last_line,
        words=words,
        stillborn=stillborn,
        publish_requested=r.publish_requested_at is not None,
        result=r.result,
        summary=r.summary[:300],
        reason=r.reason,
        stop_requested=r.stop_requested_at is not None,
        stop_counts=r.stop_counts,
        stop_reason=r.stop_reason,
        has_steps=bool(r.step_results),
        ended_at=r.ended_at,
        forgotten=forgotten,
    )


def _blockers(town: Town) -> dict[str, list[Blocker]]:
    found: dict[str, list[Blocker]] = defaultdict(list)
    for bead, on, status, title, purpose, resolution, closed, rig, filed_by, released, why in queries.BLOCKERS(town.pk):
        waits = ""
        if filed_by and released is None:
            waits = ", waits for a person to release it"
        found[bead].append(Blocker(on, status, title, purpose, resolution, closed, rig, waits, why))
    return found


def _bead(b: Any, blockers: dict[str, list[Blocker]], runs: dict[str, list[RunView]]) -> BeadView:
    unreleased = ""
    if b.filed_by and b.released_at is None:
        unreleased = f"filed by {b.created_by or 'an agent'} in run {b.filed_by}: waits for a person to release it"
    return BeadView(
        id=b.pk,
        status=b.status,
        created_at=b.created_at,
        rig=b.rig_id,
        title=b.title,
        purpose=b.purpose,
        priority=b.priority,
        convoy=b.convoy_id,
        parent=b.parent_id,
        cancel_requested=b.cancel_requested_at is not None,
        hold=b.hold,
        unreleased=unreleased,
        blockers=tuple(blockers.get(b.pk, ())),
        runs=tuple(runs.get(b.pk, ())),
    )


def _asked(rows: Iterable[tuple[str, str | None, dt.datetime | None, dt.datetime, str]]) -> dict[str, AskedView]:
    """What agents have asked of people, by the bead that it is about."""
    found: dict[str, AskedView] = {}
    for key, about, closed_at, asked_at, text in sorted(rows, key=lambda row: row[3]):
        if about is not None and key.startswith(questions.PREFIX):
            before = found.get(about)
            opened = before.open if before is not None else ""
            if closed_at is None:
                opened = opened or text
            found[about] = AskedView(opened, asked_at)
    return found


def _ended_beads(live_runs: tuple[RunView, ...]) -> frozenset[str]:
    if not live_runs:
        return frozenset()
    return frozenset(queries.CLOSED(list({r.bead for r in live_runs})))


def _refineries(town: Town, convoys: tuple[ConvoyView, ...], live_runs: tuple[RunView, ...]) -> tuple[AgentView, ...]:
    busy = {r.agent for r in live_runs}
    live = {c.id: c for c in convoys}
    views = []
    for a in queries.REFINERIES(town.pk):
        convoy = live.get(a.convoy_id or "")
        reviewed = convoy is not None and convoy.all_closed
        views.append(AgentView(a.pk, a.convoy_id or "", convoy is None, reviewed, a.pk in busy))
    return tuple(views)


def _refinery_runs(town: Town, live_runs: tuple[RunView, ...]) -> dict[tuple[int, str | None], tuple[str, ...]]:
    """The live runs of refineries, whatever they are for: (rig, convoy or None) → run ids."""
    by_agent: dict[int, list[str]] = defaultdict(list)
    for run in live_runs:
        if run.kind == "refinery" and run.agent is not None:
            by_agent[run.agent].append(run.id)
    if not by_agent:
        return {}
    agents = queries.AGENTS(list(by_agent))
    return {(a.rig_id or 0, a.convoy_id): tuple(by_agent[a.pk]) for a in agents}
