"""Rules for requests: one at a time the mayor takes them, in the order in which they were asked. Pure.

A request ends with what came of it: a plan was staged, it was answered in words, or it failed, with a reason. While the
mayor's question has no answer, it waits for a person and nothing runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.lifecycle import RunKind, RunOutcome
from beads.lifecycle import BeadStatus
from refinery.core.actions import Decision, Escalate, MoveBead, Ruling, StartRun
from refinery.core.questions import ASKS
from refinery.core.readiness import HELD, budget_wait, retry_wait, rig_wait
from refinery.core.requestviews import Product, RequestView
from refinery.core.rules.attempts import another, hopeless, runs_again, voided
from refinery.core.telling import led_by, short
from refinery.core.world import World

PLAN = "plan"  # what a run of the mayor is for
WAITS_FOR_ANSWER = ASKS


def no_mayor(rig: str) -> str:
    """What is said where nobody is configured who could plan for a rig."""
    return (
        f'nobody plans for rig {rig}: put [agents.mayor] with command = ["PROGRAM"] into its config, then '
        f"gastown rig config {rig} --config FILE.toml"
    )


def decide(world: World) -> Iterator[Decision]:
    """One decision for each live request, the oldest first."""
    at_work = next((run.bead for run in world.runs if run.kind == RunKind.MAYOR), "")
    before = 0
    for request in sorted(world.requests, key=lambda r: (r.created_at, r.id)):
        rule, why, actions = _one(world, request, at_work, before)
        if any(isinstance(action, StartRun) for action in actions):
            at_work = request.id
        before += rule == "in-line"
        yield Decision(f"bead {request.id}", rule, why, actions)


def _one(world: World, request: RequestView, at_work: str, before: int) -> Ruling:
    if request.cancel_requested:
        why = "cancelled"
        return "cancel", why, (MoveBead(request.id, request.status, BeadStatus.CLOSED, why, "cancelled"),)
    if request.live_run is not None:
        why = f"the mayor is at it: run {request.live_run.id} is {request.live_run.state}"
        return "in-work", why, runs_again(world, request)
    if request.hold:
        if request.status == BeadStatus.IN_PROGRESS:
            return "stopped", request.hold, (another(request, request.hold),)
        return HELD, f"{request.hold}; it waits until a person lets it go on", ()
    if request.status == BeadStatus.IN_PROGRESS:
        return _after_run(world, request)
    if request.question:
        return WAITS_FOR_ANSWER, f"the mayor asks: {short(request.question, 300)}", ()
    if (wait := _waits(world, request)) is not None:
        return "wait", wait, ()
    if at_work:
        if before:
            at_work += f", and {before} asked before it"
        return "in-line", f"the mayor is at work on {at_work}: requests are taken in order", ()
    start = StartRun(bead=request.id, kind=RunKind.MAYOR, brief=PLAN, expect_status=request.status)
    return "dispatch", f"the mayor takes it up: attempt {request.attempts_used + 1} starts", (start,)


def _waits(world: World, request: RequestView) -> str | None:
    """Why an open request cannot be taken up now, whoever else waits; None when it can."""
    rig = world.rigs[request.rig]
    if why := world.stopped(rig) or world.no_room:
        return why
    nobody = ""
    if rig.config.agents.mayor is None:
        nobody = no_mayor(rig.slug)
    return rig_wait(world, rig, nobody) or budget_wait(world, request) or retry_wait(world, request)


def _after_run(world: World, request: RequestView) -> Ruling:
    """The mayor's run has ended, in whatever way: what it made before that counts, and is not made twice."""
    run = request.last_run
    if run is None:
        return "no-run", "has no run: back in line", (another(request, "has no run: back in line"),)
    made = request.products.get(run.id, Product())
    if made.asked:
        why = "its question is answered"
        if request.question:
            why = f"the mayor asks: {short(request.question, 300)}"
        return "asked", why, (another(request, why),)
    if made.convoys or made.beads:
        return "planned", why_planned(made, run.summary), (_end(request, why_planned(made, run.summary)),)
    if made.replied:
        return "replied", "answered", (_end(request, "answered"),)
    if run.outcome == RunOutcome.DONE or (run.outcome == RunOutcome.FAILED and run.exit_code == 0):
        last = run.summary or run.reason
        return _fail(request, f'the mayor staged nothing and asked nothing; its last words: "{short(last, 500)}"')
    if run.outcome != RunOutcome.FAILED:
        return voided(world, request, run)
    if why := hopeless(world, request, run):
        return _fail(request, why)
    why = f"attempt {request.attempts_used} failed: {run.reason}"
    return "attempt-failed", why, (another(request, why),)


def why_planned(made: Product, summary: str = "") -> str:
    """What is said of a request that has led to a plan."""
    parts = [f"convoy {key}" for key in made.convoys] + [f"bead {key}" for key in made.beads]
    return f"planned: {', '.join(parts)}{led_by(': ', summary)}"


def _end(request: RequestView, why: str) -> MoveBead:
    return MoveBead(request.id, request.status, BeadStatus.CLOSED, why, "done")


def _fail(request: RequestView, why: str) -> Ruling:
    last = request.runs[-1].id
    text = f"{why}\nIts run: {last}; its output: gastown runs log {last}. To let it be tried again: "
    text += f"gastown bead retry {request.id}"
    told = Escalate(f"failed:{request.id}", f"The mayor failed: {request.title}"[:300], text, "medium", request.id)
    return "give-up", why, (MoveBead(request.id, request.status, BeadStatus.FAILED, why, "gave_up"), told)
