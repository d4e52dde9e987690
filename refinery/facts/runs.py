"""What runs report, and what people want of them."""

from __future__ import annotations

from agents import mail, runs
from agents.lifecycle import RunKind, RunOutcome, RunResult, RunState
from agents.models import Run
from beads import ledger
from beads.errors import NotFound
from beads.prepared import Prepared
from refinery.core.states import Judgement
from refinery.facts import subjects
from refinery.facts.payloads import Payload, Reason, Result
from refinery.facts.registry import Taken, fact
from refinery.models import Candidate, ReviewEntry
from refinery.store import gates, verdicts

_CANDIDATE = Prepared(
    lambda entry, sha: (
        Candidate.objects.select_related("entry__bead").filter(entry_id=entry, sha=sha).order_by("-id")[:1]
    )
)


def _candidate(run: Run) -> Candidate | None:
    """What a run of an entry was to gate or review."""
    return next(iter(_CANDIDATE(run.bead_id, run.start_sha)), None)


@fact("run.exited", says=Payload, replayable=True)
def exited(it: Taken[Payload]) -> None:
    """A run's command has ended: of gates, what they gave is recorded."""
    run = subjects.run(it)
    if run.kind != RunKind.GATES:
        return
    if candidate := _candidate(run):
        gates.record(run, candidate)


@fact("run.done", "run.request_changes", says=Result, replayable=True)
def result(it: Taken[Result]) -> None:
    """What an agent reported through its run's token: it can only ever reach that run's bead."""
    run = subjects.run(it)
    told = RunResult.DONE if it.kind == "run.done" else RunResult.REQUEST_CHANGES
    summary = it.said.summary or it.said.feedback
    if not runs.set_result(run.pk, told, summary[:10000], it.fact.recorded_at):
        return
    mail.took_in(run, it.fact.recorded_at)
    if run.kind != RunKind.REFINERY or run.purpose != "review":
        return
    entry = ReviewEntry.objects.select_related("bead").get(pk=run.bead_id)
    candidate = _candidate(run)
    if candidate is None:
        raise NotFound(f"no candidate {run.start_sha} of {entry.pk}")
    review = verdicts.Review(
        head=candidate.head_sha,
        decision=Judgement.APPROVE if told == RunResult.DONE else Judgement.REQUEST_CHANGES,
        by=run.agent_name or run.pk,
        run=run.pk,
        feedback=summary,
        items=it.said.items,
    )
    verdicts.record(entry, review)


@fact("run.published", says=Payload, replayable=True)
def published(it: Taken[Payload]) -> None:
    """Its commits are where people see them."""
    runs.set_published(subjects.run(it).pk)


@fact("run.stop", says=Reason)
def stop(it: Taken[Reason]) -> None:
    """A person wants it to stop."""
    run = subjects.run(it)
    runs.request_stop(run.pk, it.said.reason or "stopped by a person", it.now)
    ledger.note(run.bead, "run_stop_requested", it.actor, it.said.reason, run=run.pk)


@fact("run.fence", says=Reason)
def fence(it: Taken[Reason]) -> None:
    """A person's decision: the run's token dies now. No-op when it has ended by itself meanwhile."""
    run = subjects.run(it)
    if run.state == RunState.ENDED:
        return
    runs.end(run.pk, run.state, RunOutcome.LOST, f"fenced by {it.actor}: {it.said.reason}", it.now)
    runs.poke(run.pk)
    ledger.note(run.bead, "run_fenced", it.actor, it.said.reason, run=run.pk)
