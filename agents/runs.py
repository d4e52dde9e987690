"""The only writer of Run: a run's whole life, with its lease and its fencing token.

The tick queues, ends and asks to stop. At the door are the *claims* (`pick` by a runner, `claim` by the shim),
compare-and-swaps that cannot wait for a tick, and *observations* (heartbeat, status line, exit report).
A run is fenced by `end`: its token is gone, so every later word of it gets `run_superseded`.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q

from agents.lifecycle import RunKind, RunOutcome, RunState
from agents.models import LIVE_RUN, Agent, Run
from agents.tokens import digest
from beads import inbox, prune
from beads.channels import RUN_CHANNEL, RUN_TOPIC
from beads.errors import LostRace, NotFound, Superseded
from beads.models import Bead

FENCE_MARGIN = dt.timedelta(seconds=15)


def _tell_runners(payload: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, %s)", [RUN_CHANNEL, payload])


def poke(run_id: str) -> None:
    """Let a run's shim look at once, where its runner is alive."""
    _tell_runners(f"poke {run_id}")


# -- the tick's side ---------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """What a run is to do: its kind and purpose, the branch that it is for, its commands and its agent's brief.

    `start_sha`: the commit to start from; empty: the target's head when it starts. `account`: whose money it spends;
    None: its bead's own.
    """

    kind: RunKind
    purpose: str
    target: str
    steps: Sequence[Mapping[str, Any]]
    brief: Mapping[str, Any]
    start_sha: str = ""
    account: Bead | None = None


def queue_run(
    bead: Bead,
    task: Assignment,
    *,
    agent: Agent | None,
    lease: Mapping[str, int] | None = None,
    prefix: str = "gt/",
    at_most: int = 1,
) -> Run:
    """Create a queued run. Raises LostRace when the bead has a live run already, or the agent as many as it may.

    The branch of a run that commits is its own: `<prefix><agent>/<bead>/<attempt>`. `lease`: seconds under the keys
    `start_seconds`, `lease_seconds`, `heartbeat_seconds`. `at_most`: so many live runs may a refinery have, with this
    one. No constraint can count, so that must be asked under the town's lock, which whoever starts runs holds.
    """
    assert bead.rig is not None
    if agent is not None and task.kind == RunKind.REFINERY:
        live = Run.objects.live().filter(agent=agent).count()
        if live >= at_most:
            raise LostRace(f"{agent.name} has {live} live runs, and may have {at_most}")
    attempt = Run.objects.filter(bead=bead, kind=task.kind).count() + 1
    branch = ""
    if agent is not None and (task.kind == RunKind.POLECAT or task.purpose == "resolve"):
        branch = f"{prefix}{agent.name}/{bead.pk}/{attempt}"
    try:
        with transaction.atomic():
            run = Run.objects.create(
                town=bead.town,
                rig=bead.rig,
                bead=bead,
                agent=agent,
                kind=task.kind,
                purpose=task.purpose,
                attempt=attempt,
                account=task.account or bead,
                target=task.target,
                steps=list(task.steps),
                brief=dict(task.brief),
                start_sha=task.start_sha,
                branch=branch,
                **(lease or {}),
            )
    except IntegrityError as error:
        raise LostRace(f"{bead.pk} or its agent has a live run already") from error
    _tell_runners("queued")
    return run


def end(run_id: str, expect: str, outcome: RunOutcome, reason: str, now: dt.datetime) -> None:
    """End (and so fence) a run that is in state `expect`. Raises LostRace when it is not."""
    changed = Run.objects.filter(pk=run_id, state=expect).update(
        state=RunState.ENDED,
        outcome=outcome,
        reason=reason[:2000],
        token_hash=None,
        fenced_hash=F("token_hash"),
        ended_at=now,
    )
    if changed != 1:
        raise LostRace(f"run {run_id} is no longer {expect}")


def request_stop(run_id: str, reason: str, now: dt.datetime, *, counts: bool = False) -> None:
    """Ask a live run to stop; it learns so at once where its runner is alive, else at its heartbeat.

    `counts`: the run itself is to blame, and the stop uses up an attempt.
    """
    if (
        Run.objects.live()
        .filter(pk=run_id, stop_requested_at=None)
        .update(stop_requested_at=now, stop_reason=reason[:300], stop_counts=counts)
    ):
        poke(run_id)


def note_nudged(run_id: str, now: dt.datetime) -> None:
    """The patrol has reminded this run."""
    Run.objects.live().filter(pk=run_id).update(nudged_at=now)


# -- the runner's side ---------------------------------------------------------------------


def pick(runner: str, now: dt.datetime, without: Collection[int] = ()) -> tuple[Run, str] | None:
    """Take the oldest queued run for `runner`; returns it and the secret for its shim's claim.

    Two runners never get the same run (`SKIP LOCKED`). The run is `starting` until its deadline. `without`: rigs whose
    starts have to wait.
    """
    with transaction.atomic():
        run = (
            Run.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("rig", "agent", "bead", "town")
            .filter(state=RunState.QUEUED, stop_requested_at=None)
            .exclude(rig__in=list(without))
            .order_by("created_at", "id")
            .first()
        )
        if run is None:
            return None
        secret = secrets.token_urlsafe(32)
        run.state = RunState.STARTING
        run.runner = runner[:100]
        run.claim_hash = digest(secret)
        run.picked_at = now
        run.start_deadline = now + dt.timedelta(seconds=run.start_seconds)
        run.save(update_fields=["state", "runner", "claim_hash", "picked_at", "start_deadline"])
        inbox.changed(run.town.slug)  # nothing is to be decided
    return run, secret


def preparing(run_ids: Sequence[str], now: dt.datetime) -> None:
    """A living runner is still preparing these: slow steps delay a start, they do not half-start it."""
    for run in Run.objects.filter(pk__in=run_ids, state=RunState.STARTING, claimed_at=None):
        Run.objects.filter(pk=run.pk, state=RunState.STARTING, claimed_at=None).update(
            start_deadline=now + dt.timedelta(seconds=run.start_seconds)
        )


def prepared(run_id: str, *, start_sha: str, log_path: str, sandbox: str, resumed: str = "") -> None:
    """Observation by the runner: where the worktree started and where the log goes; with which session it goes on."""
    fields = {"start_sha": start_sha, "log_path": log_path, "sandbox": sandbox, "resumed": resumed}
    changed = Run.objects.filter(pk=run_id, state=RunState.STARTING).update(**fields)
    if changed != 1:
        raise LostRace(f"run {run_id} was ended while it was prepared")


def start_failed(run_id: str, error: str, fault: str = "") -> None:
    """The runner could not start it: the host's fault. Its claim is void, and a fact says so. `fault`: a kind of
    `agents.runtime.failures`, `sandbox` or `set_up` (it stays so until a person mends something); empty: not known."""
    with transaction.atomic():
        run = _locked(run_id)
        if run is None or run.state != RunState.STARTING or run.claimed_at:
            return
        run.claim_hash = ""
        run.start_error = inbox.storable(error[:2000]) or "it could not be started"
        run.fault = fault[:20]
        run.save(update_fields=["claim_hash", "start_error", "fault"])
        inbox.record(run.town, "run.start_failed", run.pk, {"error": run.start_error}, actor=run.runner)


# -- the shim's side ---------------------------------------------------------------------


@dataclass(frozen=True)
class Claimed:
    """What a successful claim gives, each shown once: the command's token and the shim's secret; and the lease."""

    token: str
    secret: str
    lease_until: dt.datetime


def claim(run_id: str, secret: str, now: dt.datetime, *, own_secret: bool = True) -> Claimed:
    """The shim's claim, once and before the deadline; else `run_superseded` and the shim must do nothing.

    `own_secret`: it knows that its doors have a secret apart from the command's token. A shim that was started by an
    older release does not: its run's token opens them, until it has ended.
    """
    token = secrets.token_urlsafe(32)
    shim = token
    if own_secret:
        shim = secrets.token_urlsafe(32)
    with transaction.atomic():
        run = _locked(run_id)
        if run is None:
            raise Superseded(f"run {run_id} can no longer be claimed")
        fits = (
            run.state == RunState.STARTING
            and run.claimed_at is None
            and run.claim_hash != ""
            and secrets.compare_digest(run.claim_hash, digest(secret))
            and run.stop_requested_at is None
            and run.start_deadline is not None
            and now <= run.start_deadline
        )
        if not fits:
            raise Superseded(f"run {run_id} can no longer be claimed")
        run.state = RunState.RUNNING
        run.token_hash = digest(token)
        run.shim_hash = digest(shim) if own_secret else None
        run.claimed_at = run.heartbeat_at = run.activity_at = now
        run.lease_until = now + dt.timedelta(seconds=run.lease_seconds)
        changed = ("state", "token_hash", "shim_hash", "claimed_at", "heartbeat_at", "activity_at", "lease_until")
        run.save(update_fields=changed)
        inbox.changed(run.town.slug)  # nothing is to be decided
    return Claimed(token, shim, run.lease_until)


def hold(run_id: str) -> Run:
    """Lock a run for one tool call, inside a transaction. Raises Superseded when it has exited or ended.

    Serialises tool calls with the exit report: what comes after the exit is refused, in whatever order the two
    reach the server's threads.
    """
    run = _locked(run_id)
    if run is None or run.state != RunState.RUNNING or run.exited_at is not None:
        raise Superseded(f"run {run_id} has ended: its calls change nothing")
    return run


def holds_prompt(run_id: str) -> bool:
    """True when no prompt has been written for a run yet, and none will be before this transaction ends."""
    return Run.objects.select_for_update().filter(pk=run_id, state=RunState.QUEUED).exists()


def heartbeat(
    run_id: str,
    now: dt.datetime,
    *,
    activity_at: dt.datetime | None = None,
    active_tool: str | None = None,
    session: str = "",
) -> Run:
    """Renew the lease of a live run; `run_superseded` when it is fenced or ended."""
    with transaction.atomic():
        run = _locked(run_id)
        if run is None or run.state != RunState.RUNNING:
            raise Superseded(f"run {run_id} has ended")
        run.heartbeat_at = now
        run.lease_until = now + dt.timedelta(seconds=run.lease_seconds)
        if activity_at and (run.activity_at is None or activity_at > run.activity_at):
            run.activity_at = min(activity_at, now)
        if active_tool is not None:
            run.active_tool = active_tool[:100]
        run.session = session or run.session
        run.save(update_fields=["heartbeat_at", "lease_until", "activity_at", "active_tool", "session"])
        inbox.changed(RUN_TOPIC + run.pk)
    return run


def touch(run: Run, now: dt.datetime) -> None:
    """A tool call is activity."""
    Run.objects.filter(pk=run.pk).update(activity_at=now)


def set_status(run: Run, message: str) -> None:
    """Observation: the agent's status line."""
    Run.objects.filter(pk=run.pk).update(status_message=message[:280])
    inbox.changed(run.town.slug)


def set_checkpoint(run: Run, data: Any) -> None:
    """Observation: what the next attempt should know."""
    Run.objects.filter(pk=run.pk).update(checkpoint=data)


def record_exit(run_id: str, report: Mapping[str, Any], now: dt.datetime) -> None:
    """The shim's last word. Closes the door for tools at once; a repeat is a no-op; `run_superseded` if fenced.

    Even of a fenced run the saved work is noted (`head_sha`, `salvage_ref`), as an observation only.
    """
    with transaction.atomic():
        run = _locked(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}")
        if run.exited_at is not None:
            return
        run.exited_at = now
        run.exit_code = report.get("exit_code")
        run.exit_signal = report.get("signal")
        run.exit_error = str(report.get("error") or "")[:2000]
        run.head_sha = str(report.get("head_sha") or "")[:64]
        run.published = bool(report.get("published"))
        run.on_remote = bool(report.get("on_remote"))
        run.work = str(report.get("work") or "")[:12]
        run.work_text = str(report.get("work_text") or "")[:2000]
        run.salvage_ref = str(report.get("salvage_ref") or "")[:200]
        run.session = str(report.get("session") or run.session)
        run.step_results = list(report.get("steps") or [])[:50]
        if report.get("session_lost"):
            run.resumed = ""
        run.save()
        fenced = run.state != RunState.RUNNING
        if not fenced:
            inbox.record(run.town, "run.exited", run.pk, {}, actor=run.pk, dedupe_key=f"exit:{run.pk}")
    if fenced:
        raise Superseded(f"run {run_id} had ended before it exited")


def set_result(run_id: str, result: str, summary: str, at: dt.datetime) -> bool:
    """Observation from a drained fact: what the agent reported. First word counts; False when it was said."""
    return bool(Run.objects.filter(pk=run_id, result="").update(result=result, summary=summary, result_at=at))


def request_publish(run_id: str, now: dt.datetime) -> None:
    """Note that a publish effect was asked for."""
    Run.objects.filter(pk=run_id, on_remote=False).update(publish_requested_at=now)


def set_published(run_id: str) -> None:
    """Observation from a publish effect: its branch is on the remote."""
    Run.objects.filter(pk=run_id).update(published=True, on_remote=True)


def note_refused(run_id: str, text: str) -> None:
    """Observation from a publish effect: the remote does not take its branch."""
    Run.objects.filter(pk=run_id, on_remote=False).update(work_text=text[:2000])


def note_saved(run_id: str, found: Mapping[str, Any]) -> None:
    """Observation: the work of a run that has ended could be taken in after all."""
    fields = {"head_sha": found["head_sha"], "published": bool(found["head_sha"]), "salvage_ref": found["salvage_ref"]}
    late = Run.objects.ended().filter(pk=run_id)
    late.filter(Q(work="unsaved") | Q(work="", exited_at=None)).update(work=found["work"], **fields)


def forget_log(run: Run) -> None:
    """Its log is gone from the disk."""
    Run.objects.filter(pk=run.pk).update(log_path="")


def forget_branch(run: Run) -> None:
    """Its branch is gone from the remote, or is somebody else's by now."""
    Run.objects.filter(pk=run.pk).update(on_remote=False)


def forget(beads: Sequence[str]) -> int:
    """Remove the runs of these beads: they have been archived."""
    return prune.delete(Run.objects.filter(bead__any=beads).exclude(LIVE_RUN))


def disown_all(now: dt.datetime) -> int:
    """The rows come from a backup: no process of theirs is here, and no log. Live runs are fenced at once (no secret of
    theirs opens anything) and overdue, so that the next ticks end them; returns how many there were."""
    live = Run.objects.filter(state__in=[RunState.STARTING, RunState.RUNNING])
    secrets_gone: dict[str, Any] = {"claim_hash": "", "token_hash": None, "shim_hash": None}
    count = live.update(lease_until=now, start_deadline=now, fenced_hash=F("token_hash"), **secrets_gone)
    Run.objects.exclude(log_path="").update(log_path="")
    return count


def _locked(run_id: str) -> Run | None:
    return (
        Run.objects.select_for_update(of=("self",))
        .select_related("town", "rig", "bead", "agent")
        .filter(pk=run_id)
        .first()
    )
