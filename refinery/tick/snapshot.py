"""Rows → World, in a fixed number of queries, whatever the size of the town's history.

Only live rows are read (partial indexes), with what hangs on them. `load` is what the tick, `explain`, the pages and
the commands all look at.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, cast

from agents.lifecycle import RunOutcome, RunState
from agents.models import Run
from beads import inbox, room
from beads.lifecycle import FINAL
from beads.models import Town
from beads.values import moment
from refinery.core import stacks, stages, trains
from refinery.core.beadviews import BeadView, Blocker, RunView
from refinery.core.convoyviews import ConvoyView
from refinery.core.entryviews import CandidateView, EntryView, GateView, LandingView, LaneView, VerdictView
from refinery.core.keys import build_key, land_key
from refinery.core.outageviews import EffectView
from refinery.core.relations import ForecastView, Refused, Ties
from refinery.core.states import BuildResult, EntryKind, EntryState, GateOutcome, Judgement, LandingState
from refinery.core.telling import of_steps
from refinery.core.world import BREAKER_WINDOW, AgentView, RigView, World
from refinery.models import Candidate, Forecast, GateResult, Landing, Lane, ReviewEntry, Verdict, Waiver
from refinery.store.results import view as gate_view
from refinery.tick import convoyrows, grounds, outside, queries, requestrows

RECENT = 100
_UNASKED = EffectView("")


def load(town: Town, now: dt.datetime) -> World:
    """The world of `town` at `now`: about fifteen queries."""
    troubles = {outage.key: outage for outage in queries.OUTAGES()}
    rigs = {rig.pk: outside.rig_view(town, rig, troubles) for rig in queries.RIGS(town.pk)}
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
    views = {view.id: view for view in _entries(entries, blockers, by_bead, effects, now)}
    checks, known, changes = grounds.apart(entries, views, rigs, now)
    entries = [e for e in entries if e.kind != EntryKind.CHECK]
    shown = _shown(town, entries)
    return World(
        now=now,
        town=town.slug,
        paused=town.paused_at is not None,
        paused_reason=town.paused_reason,
        rigs=rigs,
        beads=tuple(_bead(b, blockers, by_bead) for b in queries.ISSUES(town.pk)),
        requests=requestrows.of_town(town, by_bead),
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
        escalated=frozenset(queries.ESCALATED(town.pk)),
        effects=effects,
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
        lane = known.get(key)
        window, frozen = (lane.window, _frozen(lane, now)) if lane else (None, "")
        lanes[key] = LaneView(window, frozen, failing.get(key), forecasts.get(key))
    return lanes


def _shown(town: Town, entries: list[ReviewEntry]) -> stacks.Shown:
    """What git has shown of these entries' heads."""
    if not entries:
        return stacks.Shown()
    heads = {e.head_sha for e in entries}
    standing = queries.STACKS(town.pk, list(heads))
    sunk: dict[tuple[int, str, str], list[Refused]] = defaultdict(list)
    if lowers := {low for _, _, low in standing} - heads:
        for e in queries.SUNK(town.pk, list(lowers)):
            sunk[e.rig_id, e.target, e.head_sha].append(Refused(e.pk, e.reason.replace("_", " "), e.closed_at))
    return stacks.Shown(standing, sunk, {(f.rig_id, f.target): _forecast(f) for f in queries.FORECASTS(town.pk)})


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
    until = f" until {lane.frozen_until:%Y-%m-%d %H:%M} UTC" if lane.frozen_until else ""
    return f"the lane is frozen by {lane.frozen_by}{until}: {lane.frozen_reason}"


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
    return RunView(
        id=r.pk,
        bead=r.bead_id,
        kind=r.kind,
        state=r.state,
        attempt=r.attempt,
        created_at=r.created_at,
        rig=r.rig_id,
        outcome=RunOutcome.STOPPED if forgotten else r.outcome,
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
        last_line=of_steps(r.step_results) if stillborn or (r.state == RunState.RUNNING and r.exited_at) else "",
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
    )


def _blockers(town: Town) -> dict[str, list[Blocker]]:
    found: dict[str, list[Blocker]] = defaultdict(list)
    for bead, on, status, title, purpose, resolution, closed, rig, filed_by, released, why in queries.BLOCKERS(town.pk):
        waits = ", waits for a person to release it" if filed_by and released is None else ""
        found[bead].append(Blocker(on, status, title, purpose, resolution, closed, rig, waits, why))
    return found


def _bead(b: Any, blockers: dict[str, list[Blocker]], runs: dict[str, list[RunView]]) -> BeadView:
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
        unreleased=f"filed by {b.created_by or 'an agent'} in run {b.filed_by}: waits for a person to release it"
        if b.filed_by and b.released_at is None
        else "",
        blockers=tuple(blockers.get(b.pk, ())),
        runs=tuple(runs.get(b.pk, ())),
    )


def _entries(
    entries: list[ReviewEntry],
    blockers: dict[str, list[Blocker]],
    runs: dict[str, list[RunView]],
    effects: dict[str, EffectView],
    now: dt.datetime,
) -> Iterable[EntryView]:
    ids = [e.pk for e in entries]
    since = {e.pk: e.gates_again_at for e in entries}
    asked = {
        e.pk: {r.id for r in runs.get(e.pk, ()) if e.gates_again_at is None or r.created_at >= e.gates_again_at}
        for e in entries
        if e.kind == EntryKind.CHECK
    }
    candidates = {(c.entry_id, c.build_no): c for c in queries.CANDIDATES(ids) if not _forgotten(c, since[c.entry_id])}
    contested = {c.entry_id: tuple(c.files) for c in candidates.values() if c.result == BuildResult.CONFLICT}
    built_as: dict[tuple[str, str], list[str]] = defaultdict(list)
    for c in candidates.values():
        if c.result == BuildResult.BUILT:
            built_as[c.entry_id, c.head_sha].append(c.sha)
    gates: dict[str, dict[tuple[str, str, str], GateResult]] = defaultdict(dict)
    fails: Counter[tuple[str, ...]] = Counter()
    trees: dict[tuple[int, str], list[str]] = defaultdict(list)
    for e in entries:
        current = candidates.get((e.pk, e.build_no))
        if current is not None and current.tree_sha:
            trees[e.rig_id, current.tree_sha].append(e.pk)
    # results are of a tree in a rig: whoever has the same one there has the same results, for another rig's gates see
    # another repository, and its remote another history
    for result in queries.RESULTS(ids, list({tree for _, tree in trees}), list({e.rig_id for e in entries})):
        same = trees.get((cast(Any, result).of_rig, result.tree_sha), ())
        for entry_id in {*same, result.entry_id} & since.keys():
            again = since[entry_id]
            if entry_id in asked and result.entry_id == entry_id:  # also what it runs on may have been mended since
                counts = result.run_id in asked[entry_id]
            else:
                counts = again is None or result.created_at >= again
            if counts:
                which = result.tree_sha, result.gate, result.command
                gates[entry_id][which] = result
                fails[entry_id, *which] += result.outcome == GateOutcome.FAIL
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in queries.VERDICTS(ids):
        verdicts[verdict.entry_id].append(verdict)
    waivers: dict[tuple[str, str], Waiver] = {}
    for waiver in queries.WAIVERS(ids):
        waivers[waiver.entry_id, waiver.head_sha] = waiver
    own = {e.pk: {e.pk, *(b.id for b in blockers.get(e.pk, ()))} for e in entries}  # tasks of its own
    landings: dict[str, Landing] = {}
    for landing in queries.LANDINGS(ids):
        landings[landing.entry_id] = landing
    for e in entries:
        candidate = candidates.get((e.pk, e.build_no))
        latest = landings.get(e.pk)
        counts = latest is not None and (
            latest.state in (LandingState.INTENT, LandingState.PUSHING, LandingState.LANDED)
            or (candidate is not None and latest.candidate_id == candidate.pk)
        )
        held_over = latest if counts else None
        if held_over is not None and held_over.state == LandingState.LANDED and candidate is None:
            candidate = candidates.get((e.pk, _build_of(candidates, held_over)))
        yield _entry(
            e,
            candidate,
            held_over,
            tuple(gate_view(result, fails[e.pk, *which]) for which, result in gates[e.pk].items()),
            verdicts[e.pk],
            tuple(blockers.get(e.pk, ())),
            tuple(b for b in blockers.get(e.source_id or e.convoy_id or "", ()) if b.id not in own[e.pk]),
            tuple(runs.get(e.pk, ())),
            effects.get(build_key(e.pk, e.build_no), _UNASKED),
            effects.get(land_key(held_over.push_id or held_over.pk), _UNASKED) if held_over else _UNASKED,
            now,
            frozenset(built_as[e.pk, e.head_sha]),
            waivers.get((e.pk, e.head_sha)),
            contested.get(e.pk, ()),
        )


def _forgotten(candidate: Candidate, retried: dt.datetime | None) -> bool:
    """True for a build that failed before a person's retry: it is made again."""
    return (
        retried is not None
        and candidate.result in (BuildResult.REFUSED, BuildResult.ERROR)
        and candidate.created_at < retried
    )


def _build_of(candidates: dict[tuple[str, int], Candidate], landing: Landing) -> int:
    return next((no for (_, no), c in candidates.items() if c.pk == landing.candidate_id), 0)


def _entry(
    e: ReviewEntry,
    candidate: Candidate | None,
    landing: Landing | None,
    gates: tuple[GateView, ...],
    verdicts: list[Verdict],
    blockers: tuple[Blocker, ...],
    after: tuple[Blocker, ...],
    runs: tuple[RunView, ...],
    build: EffectView,
    push: EffectView,
    now: dt.datetime,
    built_as: frozenset[str],
    waiver: Waiver | None,
    contested: tuple[str, ...],
) -> EntryView:
    beside = cast(Any, e)  # see _BESIDE
    convoy_ended = e.kind == EntryKind.LANDING and (beside.convoy_status in FINAL or beside.convoy_close_at is not None)
    since = e.gates_again_at
    return EntryView(
        id=e.pk,
        rig=e.rig_id,
        branch=e.branch,
        on_remote=e.on_remote,
        head=e.head_sha,
        target=e.target,
        created_at=e.created_at,
        title=beside.bead_title,
        status=beside.bead_status,
        kind=e.kind,
        convoy=e.convoy_id,
        convoy_age=beside.convoy_started_at,
        source=e.source_id,
        source_status=beside.source_status or "",
        source_cancelled=convoy_ended or beside.source_cancel_at is not None,
        author=e.author,
        priority=stages.FIRST if e.land_now_at else beside.bead_priority,
        admitted_at=e.admitted_at,
        slot=e.slot,
        batch=e.batch,
        build_no=e.build_no,
        build_error=build.trouble("building it", now),
        build_failing_since=build.since,
        held=e.held,
        held_text=e.held_text,
        attempts=e.attempts,
        rework_count=e.rework_count,
        conflict_count=e.conflict_count,
        land_retries=e.land_retries,
        reject_requested=e.reject_requested,
        observed_head=e.observed_head,
        answered_head=e.answered_head,
        answered_to=e.answered_to_id or 0,
        answer=e.answer,
        candidate=_candidate(candidate) if candidate else None,
        built_as=built_as,
        contested=contested,
        gates=gates,
        verdicts=tuple(
            VerdictView(v.pk, v.decision, v.head_sha, v.by, v.run_id is None, v.created_at, v.merge_now, _pending(v))
            for v in verdicts
        ),
        landing=_landing(landing, push, now) if landing else None,
        blockers=blockers,
        after=after,
        ties=Ties(waiver=waiver.pk, waived=f"by {waiver.by} because {waiver.reason}") if waiver else Ties(),
        reopened_at=beside.bead_retried_at,
        runs=tuple(r for r in runs if r.live or since is None or r.created_at >= since),
    )


def _landing(x: Landing, push: EffectView, now: dt.datetime) -> LandingView:
    since = f"being pushed since {moment(x.created_at, now)}" if x.state == LandingState.PUSHING else ""
    told = push.trouble("pushing it", now) or since
    return LandingView(x.pk, x.candidate_id, x.state, x.message, x.push_id or 0, told, x.created_at)


def _pending(v: Verdict) -> bool:
    return v.run_id is None and v.decision == Judgement.REQUEST_CHANGES and v.task_id is None


def _candidate(c: Candidate) -> CandidateView:
    return CandidateView(
        id=c.pk,
        build_no=c.build_no,
        result=c.result,
        head=c.head_sha,
        base=c.base_sha,
        sha=c.sha,
        tree=c.tree_sha,
        files=tuple(c.files),
        error=c.error,
        on=c.on_id,
        seal=c.seal_sha,
        untouched=frozenset(tuple(patterns) for patterns in c.untouched),
        on_landed=c.on is not None and c.on.entry.state == EntryState.MERGED and c.on.entry.merge_sha == c.on.sha,
    )


def _ended_beads(live_runs: tuple[RunView, ...]) -> frozenset[str]:
    return frozenset(queries.CLOSED(list({r.bead for r in live_runs}))) if live_runs else frozenset()


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
    agents = queries.AGENTS(list(by_agent)) if by_agent else ()
    return {(a.rig_id or 0, a.convoy_id): tuple(by_agent[a.pk]) for a in agents}
