"""What people decide about beads and convoys. One function each, shared by commands, pages and admin. Thin.

Each refuses at once what can be refused, then records one fact with its actor, or makes a new row through the single
writer. The tick carries it out. All decisions have one shape: `(subject, *, by: Actor, reason: str = "", …)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from django.db import transaction

from agents import launches
from beads import config as configs
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.lifecycle import BeadStatus, BeadType, Purpose, Resolution, is_final
from beads.models import Bead, Convoy, Rig
from refinery.decisions.verbs import Heard, Hint, Offer, Outcome, Page, Shell, verb

FOR_AGENTS = (BeadType.ISSUE, BeadType.MESSAGE)  # what agents are given: work, and requests to the mayor
Other = Annotated[Bead, Hint(metavar="BEAD")]


def sling(rig: Rig, draft: ledger.Draft, *, by: Actor, after: Sequence[Bead] = ()) -> Bead:
    """One issue bead, dispatched when it is ready."""
    launches.check_model(rig, draft.model)
    with transaction.atomic():
        for blocker in after:
            if blocker.town_id != rig.town_id:
                raise Invalid(f"{blocker.pk} belongs to another town", field="after")
        bead = ledger.create_bead(rig.town, rig, draft, actor=str(by), after=after)
        inbox.wake(rig.town)
    return bead


@verb(
    Bead,
    "cancel",
    offer=Offer(
        "Cancel",
        "Its run is stopped and its review entry is withdrawn.",
        lambda bead: bead.type in FOR_AGENTS and not is_final(bead.status),
    ),
    shell=Shell("cancel: never merged, runs stopped", "{id} is being cancelled"),
    page=Page(),
)
def cancel_bead(bead: Bead, *, by: Actor, reason: str = "") -> None:
    """Ask for a bead's end."""
    if is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    if bead.type not in FOR_AGENTS:
        raise Conflict(f"{bead.pk} is a {bead.type}: use the command for those")
    inbox.record(bead.town, "bead.cancel", bead.pk, {"reason": reason}, actor=by)


@verb(
    Bead,
    "release",  # its command takes several, and all of a run: `management/commands/bead.py`
    offer=Offer(
        "Release: let an agent do it",
        "An agent has filed it. Read what it asks for before another agent does it.",
        lambda bead: bead.type == BeadType.ISSUE and bead.unreleased and not is_final(bead.status),
    ),
    page=Page(),
)
def release_bead(bead: Bead, *, by: Actor, reason: str = "") -> None:
    """Let what an agent has filed be given to an agent."""
    if bead.type != BeadType.ISSUE or not bead.unreleased or is_final(bead.status):
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type} that waits for no release")
    if bead.convoy is not None and bead.convoy.started_at is None:
        raise Conflict(f"{bead.pk} waits for its convoy: start {bead.convoy_id}")
    inbox.record(bead.town, "bead.release", bead.pk, {"reason": reason}, actor=by)


def _may_be_retried(bead: Bead) -> bool:
    return bead.status == BeadStatus.FAILED or (bool(bead.hold) and not is_final(bead.status))


@verb(
    Bead,
    "retry",
    offer=Offer("Retry", when=lambda bead: bead.type in FOR_AGENTS and _may_be_retried(bead)),
    shell=Shell("bring back a bead that failed, or that you have stopped", "{id} is being retried"),
    page=Page(),
)
def retry_bead(bead: Bead, *, by: Actor, reason: Heard = "") -> None:
    """Bring back a bead that has failed, or that a person has stopped."""
    if not _may_be_retried(bead) or bead.type not in FOR_AGENTS:
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type}: only a failed issue can be retried")
    if bead.convoy is not None and is_final(bead.convoy.bead.status):
        raise Conflict(f"its convoy {bead.convoy_id} has ended: use convoy retry, or sling it anew")
    inbox.record(bead.town, "bead.retry", bead.pk, {"reason": reason}, actor=by)


@verb(
    Bead,
    "confirm",
    offer=Offer(
        "Confirm: nothing was needed",
        when=lambda bead: bead.status == BeadStatus.FAILED and bead.resolution == Resolution.NOTHING_CHANGED,
    ),
    shell=Shell(
        "say that a bead whose agent changed nothing needed nothing", "{id} is being closed: nothing was needed"
    ),
    page=Page(),
)
def confirm_bead(bead: Bead, *, by: Actor, reason: str = "") -> None:
    """A person's word that nothing needed to be changed: the bead is closed as that, and what waits for it goes on."""
    if bead.status != BeadStatus.FAILED or bead.resolution != Resolution.NOTHING_CHANGED:
        raise Conflict(f"{bead.pk} is {bead.status} {bead.resolution}: only what has changed nothing can be confirmed")
    inbox.record(bead.town, "bead.confirm", bead.pk, {"reason": reason}, actor=by)


def _is_open(bead: Bead) -> bool:
    return bead.type == BeadType.ISSUE and bead.purpose == Purpose.WORK and bead.status == BeadStatus.OPEN


@verb(
    Bead,
    "edit",
    offer=Offer("Edit", "Whoever works on it is told what it says then.", _is_open, console=False, page=True),
    shell=Shell("change what a bead says that nobody has begun", "{id} is being changed"),
    page=Page(),
)
def edit_bead(
    bead: Bead,
    *,
    by: Actor,
    title: Annotated[str, Hint(longest=ledger.MAX_TITLE, now=True)] = "",
    body: Annotated[str, Hint(longest=64 * 1024, lines=8, now=True)] = "",
    priority: Annotated[int | None, Hint("0 (first) to 4 (last)", now=True)] = None,
    reason: str = "",
) -> None:
    """Change what a bead says that nobody has begun, such as one of a staged plan. What is left out stays."""
    if not _is_open(bead):
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type}: only what nobody has begun is edited")
    if priority is not None and not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    if not title and not body and priority is None:
        raise Invalid("nothing is to be changed: give a title, a body or a priority", field="title")
    said = {"title": title, "body": body, "priority": priority, "reason": reason}
    inbox.record(bead.town, "bead.edit", bead.pk, said, actor=by)


def _is_work(bead: Bead) -> bool:
    return bead.type == BeadType.ISSUE and bead.purpose == Purpose.WORK and bead.status != BeadStatus.CLOSED


def _model_said(outcome: Outcome) -> str:
    name = outcome.values["model"]
    if name:
        return f"{outcome.row.pk} is worked on with {name} from its next run on"
    return f"{outcome.row.pk} is worked on with the config's model from its next run on"


@verb(
    Bead,
    "model",
    offer=Offer("Model", "Its next run is started with it; a failed bead: retry it then.", _is_work, False, True),
    shell=Shell("with which model it is worked on; none: as the config says", _model_said),
    page=Page("Its next run is started with that model."),
)
def bead_model(
    bead: Bead,
    *,
    by: Actor,
    model: Annotated[str, Hint("as the agent's own --model takes it", longest=200, now=True)] = "",
    reason: str = "",
) -> None:
    """Say with which model a bead is worked on: its work, rework and conflicts, from the next run on."""
    if not _is_work(bead) or bead.rig is None:
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type}: only planned work that is not closed has a model")
    model = ledger.check_model(model)
    launches.check_model(bead.rig, model)
    if model == bead.model:
        raise Conflict(f"{bead.pk} is worked on with {model or 'the model of the config'} already")
    inbox.record(bead.town, "bead.model", bead.pk, {"model": model, "reason": reason}, actor=by)


@verb(
    Bead,
    "block",
    shell=Shell(
        "let it, and its change in the queue, wait until another bead is closed",
        "{id} waits for {on} from the next tick on",
        lambda outcome: {"on": outcome.values["on"].pk},
    ),
)
def block_bead(bead: Bead, *, by: Actor, on: Other, reason: str = "") -> None:
    """Let a bead, and its change in the queue, wait until another bead of the town is closed, in whatever rig."""
    for one, field in ((bead, "id"), (on, "on")):
        if one.type not in (BeadType.ISSUE, BeadType.CONVOY) or one.purpose != Purpose.WORK:
            raise Invalid(f"{one.pk} is no planned work: only beads and convoys wait for one another", field=field)
    if on.town_id != bead.town_id:
        raise Invalid(f"{on.pk} belongs to another town", field="on")
    if bead.convoy_id == on.pk or on.convoy_id == bead.pk:
        raise Invalid(f"{bead.pk} and {on.pk} are a convoy and its own bead", field="on")
    if is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    path = ledger.find_path(on.pk, bead.pk)
    if path or bead.pk == on.pk:
        raise Invalid(f"dependency cycle: {' → '.join([bead.pk, *(path or [])])}", field="on")
    inbox.record(bead.town, "bead.block", bead.pk, {"on": on.pk, "reason": reason}, actor=by)


@verb(
    Bead,
    "unblock",
    shell=Shell(
        "let it no longer wait for another bead",
        "{id} waits for {on} no longer",
        lambda outcome: {"on": outcome.values["on"].pk},
    ),
)
def unblock_bead(bead: Bead, *, by: Actor, on: Other, reason: str = "") -> None:
    """Undo `block_bead`, or drop a dependency of a plan."""
    if not bead.blocked_by.filter(on=on).exists():
        raise Conflict(f"{bead.pk} does not wait for {on.pk}")
    if on.parent_id == bead.pk:
        raise Invalid(f"{on.pk} is a task of {bead.pk}: cancel it instead", field="on")
    inbox.record(bead.town, "bead.unblock", bead.pk, {"on": on.pk, "reason": reason}, actor=by)


def create_convoy(
    rig: Rig,
    *,
    by: Actor,
    title: str,
    plan: Sequence[Mapping[str, Any]],
    mode: str | None = None,
    staged: bool | None = None,
) -> tuple[Convoy, bool]:
    """Make a convoy from a checked plan; returns it and whether it stays staged."""
    config = configs.effective(rig.town.config, rig.config).convoy
    if staged is None:
        staged = config.staged
    if not staged and rig.parked_at is not None:
        raise Conflict(f"rig {rig.slug} is parked: unpark it, or give --staged")
    launches.check_models(plan)
    with transaction.atomic():
        convoy = ledger.create_convoy(rig, title, mode or config.merge_mode, plan, actor=str(by))
        if not staged:
            start_convoy(convoy, by=by)
    return convoy, staged


@verb(
    Convoy,
    "start",
    offer=Offer("Start", when=lambda convoy: convoy.started_at is None),
    shell=Shell("dispatch a staged convoy", "convoy {id} is started"),
    page=Page(),
)
def start_convoy(convoy: Convoy, *, by: Actor, reason: str = "") -> None:
    """Let a staged convoy's beads be dispatched."""
    if convoy.started_at is not None:
        raise Conflict(f"convoy {convoy.pk} was started before")
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    inbox.record(convoy.bead.town, "convoy.start", convoy.pk, {"reason": reason}, actor=by)


@verb(
    Convoy,
    "close",
    offer=Offer(
        "Close midway",
        "Its runs are stopped and its entries cancelled; its branch is kept.",
        lambda convoy: not is_final(convoy.bead.status),
    ),
    shell=Shell("close midway: runs stop, entries are cancelled, the branch is kept", "convoy {id} is being closed"),
    page=Page(),
)
def close_convoy(convoy: Convoy, *, by: Actor, reason: str = "") -> None:
    """Close a convoy midway: runs are stopped, entries cancelled, its branch kept."""
    if is_final(convoy.bead.status):
        raise Conflict(f"convoy {convoy.pk} is {convoy.bead.status} already")
    inbox.record(convoy.bead.town, "convoy.close", convoy.pk, {"reason": reason}, actor=by)


@verb(
    Convoy,
    "retry",
    offer=Offer(
        "Retry what failed",
        when=lambda convoy: (
            convoy.bead.status == BeadStatus.FAILED or convoy.beads.filter(status=BeadStatus.FAILED).exists()
        ),
    ),
    shell=Shell("retry failed beads, or a failed landing", "convoy {id} is being retried"),
    page=Page(),
)
def retry_convoy(convoy: Convoy, *, by: Actor, reason: Heard = "") -> None:
    """Retry a convoy's failed beads, or its failed landing."""
    failed = convoy.beads.filter(status=BeadStatus.FAILED).exists()
    if convoy.bead.status == BeadStatus.CLOSED or not (failed or convoy.bead.status == BeadStatus.FAILED):
        raise Conflict(f"convoy {convoy.pk} has nothing that failed")
    inbox.record(convoy.bead.town, "convoy.retry", convoy.pk, {"reason": reason}, actor=by)
