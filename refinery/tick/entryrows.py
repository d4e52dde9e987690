"""Rows → active review entries as the rules see them, each with what hangs on it."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from beads.lifecycle import FINAL
from beads.values import moment
from refinery.core import stages
from refinery.core.beadviews import Blocker, RunView
from refinery.core.entryviews import CandidateView, EntryView, LandingView, VerdictView
from refinery.core.keys import build_key, land_key
from refinery.core.outageviews import EffectView
from refinery.core.questions import AskedView, waits_for_answer
from refinery.core.relations import Ties
from refinery.core.states import BuildResult, EntryKind, EntryState, GateOutcome, Judgement, LandingState
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, Verdict, Waiver
from refinery.store.results import view as gate_view
from refinery.tick import queries

_UNASKED = EffectView("")
_HOLDS = (LandingState.INTENT, LandingState.PUSHING, LandingState.LANDED)  # of whatever candidate
_Which = tuple[str, str, str]  # tree, gate, command


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of a town beside its entries; blockers, runs and questions by bead."""

    blockers: Mapping[str, Sequence[Blocker]]
    runs: Mapping[str, Sequence[RunView]]
    effects: Mapping[str, EffectView]
    now: dt.datetime
    asked: Mapping[str, AskedView]


def views(entries: Sequence[ReviewEntry], around: Around) -> Iterator[EntryView]:
    """Each entry as the rules see it, in a fixed number of queries."""
    rows = _Rows(entries, around)
    return (_entry(entry, rows, around) for entry in entries)


class _Rows:
    """The rows that hang on a town's active entries."""

    def __init__(self, entries: Sequence[ReviewEntry], around: Around) -> None:
        ids = [e.pk for e in entries]
        self.entries = entries
        self.since = {e.pk: e.gates_again_at for e in entries}
        found = queries.CANDIDATES(ids)
        self.candidates = {(c.entry_id, c.build_no): c for c in found if not _forgotten(c, self.since[c.entry_id])}
        self.contested: dict[str, tuple[str, ...]] = {}
        self.built_as: dict[tuple[str, str], set[str]] = defaultdict(set)
        for c in self.candidates.values():
            if c.result == BuildResult.CONFLICT:
                self.contested[c.entry_id] = tuple(c.files)
            elif c.result == BuildResult.BUILT:
                self.built_as[c.entry_id, c.head_sha].add(c.sha)
        self.verdicts: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in queries.VERDICTS(ids):
            self.verdicts[verdict.entry_id].append(verdict)
        self.waivers: dict[tuple[str, str], Waiver] = {(w.entry_id, w.head_sha): w for w in queries.WAIVERS(ids)}
        self.landings: dict[str, Landing] = {landing.entry_id: landing for landing in queries.LANDINGS(ids)}
        self.gates: dict[str, dict[_Which, GateResult]] = defaultdict(dict)
        self.fails: Counter[tuple[str, _Which]] = Counter()
        self._read_gates(around)

    def _read_gates(self, around: Around) -> None:
        """Results are of a tree in a rig: whoever has the same one there has the same results, for another rig's gates
        see another repository, and its remote another history."""
        trees: dict[tuple[int, str], list[str]] = defaultdict(list)
        for e in self.entries:
            current = self.candidates.get((e.pk, e.build_no))
            if current is not None and current.tree_sha:
                trees[e.rig_id, current.tree_sha].append(e.pk)
        checks = {e.pk: self._asked(e, around) for e in self.entries if e.kind == EntryKind.CHECK}
        rigs = list({e.rig_id for e in self.entries})
        for result in queries.RESULTS(list(self.since), list({tree for _, tree in trees}), rigs):
            same = trees.get((cast(Any, result).of_rig, result.tree_sha), ())
            for entry_id in {*same, result.entry_id} & self.since.keys():
                if self._counts(result, entry_id, checks):
                    which = result.tree_sha, result.gate, result.command
                    self.gates[entry_id][which] = result
                    self.fails[entry_id, which] += result.outcome == GateOutcome.FAIL

    def _asked(self, check: ReviewEntry, around: Around) -> frozenset[str]:
        """The runs that a check was given since it was last asked for."""
        since = check.gates_again_at
        return frozenset(r.id for r in around.runs.get(check.pk, ()) if since is None or r.created_at >= since)

    def _counts(self, result: GateResult, entry_id: str, checks: Mapping[str, frozenset[str]]) -> bool:
        if entry_id in checks and result.entry_id == entry_id:  # also what it runs on may have been mended since
            return result.run_id in checks[entry_id]
        again = self.since[entry_id]
        return again is None or result.created_at >= again

    def landing(self, e: ReviewEntry) -> Landing | None:
        """Its latest landing, as long as that says something about it."""
        latest, candidate = self.landings.get(e.pk), self.candidates.get((e.pk, e.build_no))
        if latest is None or latest.state in _HOLDS:
            return latest
        if candidate is None or latest.candidate_id != candidate.pk:
            return None
        return latest

    def candidate(self, e: ReviewEntry, landing: Landing | None) -> Candidate | None:
        """Its present candidate; while a new one is built of what has landed, that which has."""
        candidate = self.candidates.get((e.pk, e.build_no))
        if candidate is None and landing is not None and landing.state == LandingState.LANDED:
            return next((c for c in self.candidates.values() if c.pk == landing.candidate_id), None)
        return candidate


def _forgotten(candidate: Candidate, retried: dt.datetime | None) -> bool:
    """True for a build that failed before a person's retry: it is made again."""
    return (
        retried is not None
        and candidate.result in (BuildResult.REFUSED, BuildResult.ERROR)
        and candidate.created_at < retried
    )


def _entry(e: ReviewEntry, rows: _Rows, around: Around) -> EntryView:
    beside = cast(Any, e)  # see `queries._BESIDE`
    landing = rows.landing(e)
    candidate = rows.candidate(e, landing)
    build = around.effects.get(build_key(e.pk, e.build_no), _UNASKED)
    waiver = rows.waivers.get((e.pk, e.head_sha))
    convoy_ended = e.kind == EntryKind.LANDING and (beside.convoy_status in FINAL or beside.convoy_close_at is not None)
    since = e.gates_again_at
    blockers = tuple(around.blockers.get(e.pk, ()))
    own = {e.pk, *(b.id for b in blockers)}  # tasks of its own
    after = around.blockers.get(e.source_id or e.convoy_id or "", ())
    priority, ties = beside.bead_priority, Ties()
    if e.land_now_at:
        priority = stages.FIRST
    if waiver is not None:
        ties = Ties(waiver=waiver.pk, waived=f"by {waiver.by} because {waiver.reason}")
    return EntryView(
        id=e.pk,
        rig=e.rig_id,
        branch=e.branch,
        on_remote=e.on_remote,
        head=e.head_sha,
        target=e.target,
        onto_convoy=beside.onto_convoy,
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
        priority=priority,
        admitted_at=e.admitted_at,
        slot=e.slot,
        batch=e.batch,
        build_no=e.build_no,
        build_error=build.trouble("building it", around.now),
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
        candidate=_candidate(candidate),
        built_as=frozenset(rows.built_as.get((e.pk, e.head_sha), ())),
        contested=rows.contested.get(e.pk, ()),
        gates=tuple(gate_view(one, rows.fails[e.pk, which]) for which, one in rows.gates[e.pk].items()),
        verdicts=tuple(
            VerdictView(v.pk, v.decision, v.head_sha, v.by, v.run_id is None, v.created_at, v.merge_now, _pending(v))
            for v in rows.verdicts[e.pk]
        ),
        landing=_landing(landing, around),
        blockers=blockers,
        after=tuple(b for b in after if b.id not in own),
        ties=ties,
        reopened_at=beside.bead_retried_at,
        runs=tuple(r for r in around.runs.get(e.pk, ()) if r.live or since is None or r.created_at >= since),
        question=waits_for_answer(around.asked.get(e.pk), [r for r in around.runs.get(e.pk, ()) if r.kind != "gates"]),
    )


def _landing(x: Landing | None, around: Around) -> LandingView | None:
    if x is None:
        return None
    push = around.effects.get(land_key(x.push_id or x.pk), _UNASKED)
    told = push.trouble("pushing it", around.now)
    if not told and x.state == LandingState.PUSHING:
        told = f"being pushed since {moment(x.created_at, around.now)}"
    return LandingView(x.pk, x.candidate_id, x.state, x.message, x.push_id or 0, told, x.created_at)


def _pending(v: Verdict) -> bool:
    return v.run_id is None and v.decision == Judgement.REQUEST_CHANGES and v.task_id is None


def _candidate(c: Candidate | None) -> CandidateView | None:
    if c is None:
        return None
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
