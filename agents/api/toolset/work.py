"""What a run is told of its work, and how it reports: prime, status, checkpoint, done, request changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from agents import guides, mail, runs, work
from agents.api.tools import ALL, Args, Call, tool
from agents.api.toolset.shared import REFINERY, Text, bead_data, sender
from agents.lifecycle import Role
from agents.models import Run
from agents.runtime import gitcmd
from beads import inbox
from beads.errors import Conflict, Invalid

MAX_CHECKPOINT = 64 * 1024

BRIEFED = (  # of its brief, what `gt_prime` tells as it is
    *(
        "gates",
        "gate_results",
        "rework",
        "asked",
        "conflict",
        "candidate",
        "convoy",
        "checkpoint",
        "previous",
        "questions",
    ),
    *("rounds", "attempts", "start", "instructions", "request"),
)
prime_extras: list[Callable[[Run], dict[str, Any]]] = []


@tool("gt_prime", ALL, reads=True)
def prime(call: Call, args: Args) -> dict[str, Any]:
    """Who you are and what you are to do: agent, run, bead, branch, target, gates, mail, rework or conflict."""
    run = call.run
    letters = mail.for_run(run)
    mail.note_told(letters, run)
    data: dict[str, Any] = {
        "agent": {"name": sender(call), "role": run.kind},
        "run": run.pk,
        "attempt": run.brief.get("attempt", run.attempt),
        "bead": bead_data(run.bead),
        "branch": run.branch,
        "target": run.target,
        "purpose": run.purpose,
        "mail": [mail.data(m) for m in letters],
        "mail_left": mail.count_for(run) - len(letters),
    }
    for key in BRIEFED:
        data[key] = run.brief.get(key)
    data["guides"] = guides.seen(run)
    data["task"] = {"title": run.brief.get("title"), "body": run.brief.get("body")}
    for extra in prime_extras:
        data |= extra(run)
    return data


class StatusArgs(Args):
    """gt_status"""

    message: Annotated[str, Field(max_length=280)]


@tool("gt_status", ALL, StatusArgs)
def status(call: Call, args: StatusArgs) -> dict[str, Any]:
    """Show one line about what you are doing on the pages (at most 280 characters)."""
    runs.set_status(call.run, args.message)
    return {}


class CheckpointArgs(Args):
    """gt_checkpoint"""

    data: Any


@tool("gt_checkpoint", ALL, CheckpointArgs)
def checkpoint(call: Call, args: CheckpointArgs) -> dict[str, Any]:
    """Keep notes (JSON, at most 64 KiB) that the next attempt is given."""
    size = len(json.dumps(args.data).encode())
    if size > MAX_CHECKPOINT:
        raise Invalid(f"data: {size} bytes, at most {MAX_CHECKPOINT}", field="data")
    runs.set_checkpoint(call.run, args.data)
    return {"bytes": size}


# -- results --------------------------------------------------------------------------------------------------------


class DoneArgs(Args):
    """gt_done"""

    summary: Text = ""
    branch: Annotated[str, Field(max_length=250)] = ""
    pr_url: Annotated[str, Field(max_length=1000)] = ""


def _result(call: Call, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Record the run's result, once. It can only ever reach the bead that this run was started for."""
    run = call.run
    key = f"result:{run.pk}"
    if not inbox.record(run.town, kind, run.pk, payload, actor=sender(call), dedupe_key=key):
        if inbox.kind_of(key) != kind:
            raise Conflict("this run has reported another result before")
        return {"repeat": True}
    runs.poke(run.pk)
    return {"repeat": False}


@tool("gt_done", ALL, DoneArgs)
def done(call: Call, args: DoneArgs) -> dict[str, Any]:
    """Your work is finished (polecat), you approve this candidate (refinery), your plan is staged (mayor). Then exit.
    Repeats are no-ops.

    `branch`: where your commits are, when it is not the branch that you were given. `{"result": "nothing_changed"}`
    says that there is no commit of yours yet: what you have changed must be committed before you exit.
    """
    if args.pr_url:
        raise Invalid(
            "pr_url: the pull request of your branch is made, or found, by Gastown itself: leave it out", field="pr_url"
        )
    told: dict[str, Any] = {}
    if call.run.kind == Role.POLECAT:
        told = _seen(call.run, args.branch)
    return _result(call, "run.done", args.model_dump()) | told


def _seen(run: Run, named: str) -> dict[str, Any]:
    """What the workspace shows of the work, for the agent: what counts is what arrives when the run has ended."""
    seen = work.look(run)
    if named:
        gitcmd.check_branch(named)
        if seen is not None and named not in seen.branches:
            raise Invalid(f"branch: there is no branch {named} in your workspace", field="branch")
    if seen is None:
        return {}
    head = seen.branches[named] if named else seen.head
    others = [name for name, sha in seen.branches.items() if sha not in (run.start_sha, head)]
    if head in ("", run.start_sha) and not (others and not named):
        return {"result": "nothing_changed", "hint": "no commit of yours is there: commit what you changed, then exit"}
    return {"result": "done"}


class Item(Args):
    """One thing to change."""

    file: Annotated[str, Field(max_length=1000)]
    line: Annotated[int, Field(ge=1)] | None = None
    problem: Annotated[str, Field(max_length=4000)]
    suggestion: Annotated[str, Field(max_length=4000)] | None = None


class ChangesArgs(Args):
    """gt_request_changes"""

    feedback: Annotated[str, Field(min_length=1, max_length=64 * 1024)]
    items: Annotated[list[Item], Field(max_length=200)] = []


@tool("gt_request_changes", REFINERY, ChangesArgs)
def request_changes(call: Call, args: ChangesArgs) -> dict[str, Any]:
    """Send the change back to its author: what is wrong, with file, line and what to do."""
    return _result(call, "run.request_changes", args.model_dump())
