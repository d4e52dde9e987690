"""How people steer work that is under way: stop it with its work kept, and let it go on with a hint.

Neither uses up an attempt. A bead that is held waits for a person, without a run; *retry* or a hint lets it go on.
"""

from __future__ import annotations

from typing import Annotated

from agents.lifecycle import RunKind, RunState
from agents.models import Run
from beads import inbox
from beads.actors import Actor
from beads.errors import Conflict
from beads.lifecycle import FINAL, BeadStatus, BeadType, Purpose, is_final
from beads.models import Bead
from refinery.decisions.verbs import Hint, Offer, Page, Shell, verb
from refinery.decisions.work import FOR_AGENTS
from refinery.models import ReviewEntry
from refinery.store.requests import open_question

_KINDS = (RunKind.POLECAT, RunKind.MAYOR)  # whose runs can be held: a review makes nothing that is to be kept
_HINT = Hint("what its agent is to heed first", metavar="TEXT", label="Your hint", lines=3, positional=True)
_SAVED = "Its run is stopped at once, what it has made is kept, and it waits for you: go on with a hint, or try again."
_GOES_ON = "Its agent is told this before all else. A run that is at work is stopped first, with its work kept."


def _can_be_held(bead: Bead) -> bool:
    at_work = bead.status in (BeadStatus.OPEN, BeadStatus.IN_PROGRESS)
    return bead.type in FOR_AGENTS and at_work and not bead.hold


@verb(
    Bead,
    "hold",
    offer=Offer("Stop and save", _SAVED, _can_be_held, page=True),
    shell=Shell("stop its run with its work kept; it waits for you", "{id} is being stopped, and waits for you then"),
    page=Page(),
)
def hold_bead(bead: Bead, *, by: Actor, reason: str = "") -> None:
    """Stop a bead's run at once, with its work kept; the bead then waits for a person."""
    if bead.status == BeadStatus.IN_REVIEW:
        raise Conflict(f"{bead.pk} is in review: no agent works on it itself now")
    if not _can_be_held(bead):
        what = "held already" if bead.hold else f"a {bead.status} {bead.type}"
        raise Conflict(f"{bead.pk} is {what}: only live work can be stopped and saved")
    inbox.record(bead.town, "bead.hold", bead.pk, {"reason": reason}, actor=by)


def _can_be_hinted(bead: Bead) -> bool:
    if bead.type == BeadType.MESSAGE and open_question(bead) is not None:
        return False
    return bead.type in FOR_AGENTS and bead.status in (BeadStatus.OPEN, BeadStatus.IN_PROGRESS, BeadStatus.FAILED)


@verb(
    Bead,
    "hint",
    offer=Offer("Go on with this hint", _GOES_ON, _can_be_hinted, console=False, page=True),
    shell=Shell("let it go on with your hint; its run is stopped first", "{id} goes on with your hint"),
    page=Page("It goes on with your hint."),
)
def hint_bead(bead: Bead, *, by: Actor, text: Annotated[str, _HINT]) -> None:
    """Let a bead's next run begin with a person's hint, at once: a live run is stopped first, with its work kept."""
    bead = _at_work(bead)
    if bead.type == BeadType.MESSAGE and open_question(bead) is not None:
        raise Conflict(f"the mayor asks about {bead.pk}: answer it (bead answer)")
    if not _can_be_hinted(bead):
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type}: only work that is not done takes a hint")
    if bead.convoy is not None and is_final(bead.convoy.bead.status):
        raise Conflict(f"its convoy {bead.convoy_id} has ended: use convoy retry, or sling it anew")
    inbox.record(bead.town, "bead.hint", bead.pk, {"text": text}, actor=by)


def _at_work(bead: Bead) -> Bead:
    """The bead whose agent changes what this one is: of one in review, the rework or conflict that is going on."""
    if bead.status != BeadStatus.IN_REVIEW:
        return bead
    entry = ReviewEntry.objects.active().filter(source=bead).first()
    key = entry.pk if entry is not None else bead.pk
    tasks = Bead.objects.select_related("town", "rig", "convoy").filter(parent=key).exclude(purpose=Purpose.WORK)
    task = tasks.exclude(status__in=sorted(FINAL)).first()
    if task is None:
        raise Conflict(f"{bead.pk} is in review, and nobody changes it now: mq request-changes {key} --body TEXT")
    return task


def _steered(run: Run) -> bool:
    return run.kind in _KINDS and run.state != RunState.ENDED and _can_be_held(run.bead)


@verb(
    Run,
    "save",
    offer=Offer("Stop and save", _SAVED, _steered, page=True),
    shell=Shell(
        "stop it with its work kept; its bead waits for you", "run {id} is being stopped; its bead waits for you"
    ),
    page=Page(),
)
def save_run(run: Run, *, by: Actor, reason: str = "") -> None:
    """Stop a live run at once, with its work kept; its bead then waits for a person."""
    _check_kind(run)
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended: bead hold {run.bead_id} keeps the next one from starting")
    hold_bead(run.bead, by=by, reason=reason)


@verb(
    Run,
    "hint",
    offer=Offer(
        "Go on with this hint",
        _GOES_ON,
        lambda run: run.kind in _KINDS and _can_be_hinted(run.bead),
        console=False,
        page=True,
    ),
    shell=Shell(
        "let its bead go on with your hint; it is stopped first", "the bead of run {id} goes on with your hint"
    ),
    page=Page("Its bead goes on with your hint."),
)
def hint_run(run: Run, *, by: Actor, text: Annotated[str, _HINT]) -> None:
    """Let the bead of a run go on with a person's hint."""
    _check_kind(run)
    hint_bead(run.bead, by=by, text=text)


def _check_kind(run: Run) -> None:
    if run.kind not in _KINDS:
        what = (
            "gates take no hint" if run.kind == RunKind.GATES else "say it in a review: mq request-changes, mq comment"
        )
        raise Conflict(f"{run.pk} is a run of {run.kind}: {what}; runs stop ends it")
