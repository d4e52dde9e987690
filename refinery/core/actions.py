"""The closed union of actions: what a plan may ask for. Pure.

Each action names the state it was decided on; `refinery.tick.apply` compares and swaps on it. Adding one means a
dataclass here, its rule, and one `match` arm in `refinery.tick.acts`.
"""

from __future__ import annotations

from dataclasses import dataclass

from refinery.core.effects import OfHost
from refinery.core.entryviews import NotNeeded


@dataclass(frozen=True, slots=True)
class StartRun:
    """Queue a run for a bead. `brief` says what for: work, rework, conflict, review, resolve, gates. `at_most`: so many
    live runs may its agent have, with this one."""

    bead: str
    kind: str
    brief: str
    start_sha: str = ""
    prefer_agent: int | None = None
    expect_status: str | None = None
    at_most: int = 1


@dataclass(frozen=True, slots=True)
class EndRun:
    """End and fence a run that is in state `expect`."""

    run: str
    expect: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopRun:
    """Ask a live run to stop. `counts`: the run is to blame, and it uses up an attempt."""

    run: str
    reason: str
    counts: bool = False


@dataclass(frozen=True, slots=True)
class NudgeRun:
    """Remind a run's agent that nothing was heard of it."""

    run: str
    message: str


@dataclass(frozen=True, slots=True)
class PublishRun:
    """Push an ended run's commits to its branch, which its shim could not."""

    run: str


@dataclass(frozen=True, slots=True)
class MoveBead:
    """Move a bead's status from exactly `expect`."""

    bead: str
    expect: str
    to: str
    reason: str
    resolution: str = ""
    merge_sha: str = ""


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """Enqueue a review entry for what `run` published for a source bead, or (`convoy` set) a convoy's landing."""

    rig: int
    branch: str
    head: str
    target: str
    run: str | None = None
    source: str | None = None
    convoy: str | None = None
    on_remote: bool = True


@dataclass(frozen=True, slots=True)
class Admit:
    """Make an entry a car of its lane's train, at `slot`. `build`: its candidate can be built at once, `on` that of
    the car ahead (None: on the target's head). `batch`: the number of its batch, and `why` it was cut so."""

    entry: str
    build_no: int
    slot: float = 1.0
    build: bool = True
    on: int | None = None
    batch: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Prove:
    """Build an entry that is no car, on the target's present head, for the gates that it must pass by itself."""

    entry: str
    build_no: int


@dataclass(frozen=True, slots=True)
class OpenCheck:
    """Put a lane's target itself before the gates: it is not known whether what failed for an entry passes there."""

    rig: int
    target: str


@dataclass(frozen=True, slots=True)
class CheckAnew:
    """Fetch the target of a check again, and gate its present head. Its hold is lifted."""

    entry: str
    build_no: int


@dataclass(frozen=True, slots=True)
class Place:
    """A car's new place in its train: `batch` and, unless it stays, `slot`."""

    entry: str
    batch: int
    slot: float | None = None


@dataclass(frozen=True, slots=True)
class Regroup:
    """Cut a batch of cars, `expect`, anew."""

    expect: int
    places: tuple[Place, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Take an entry out of its lane's train: it waits for people or for work. `innocent`: it only made room."""

    entry: str
    innocent: bool = False


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Build a car again `on` the candidate of the car ahead (None: on the target's present head).

    `counts`: as a retry of its landing. `seal`: it is the last car of a batch, whose first car has this candidate.
    """

    entry: str
    build_no: int
    counts: bool = True
    on: int | None = None
    seal: int | None = None


@dataclass(frozen=True, slots=True)
class NewHead:
    """Pin a new head: verdicts and gate results of the old one stop counting."""

    entry: str
    expect: str
    head: str
    branch: str
    why: str
    on_remote: bool = True


@dataclass(frozen=True, slots=True)
class Answered:
    """The author has given `head` back without a new commit, and said why."""

    entry: str
    head: str
    answer: str


@dataclass(frozen=True, slots=True)
class OpenRework:
    """Send the change back: mail, a rework bead that blocks the entry. `cause`: gates or review."""

    entry: str
    cause: str
    round: int


@dataclass(frozen=True, slots=True)
class OpenConflict:
    """A *Resolve merge conflicts* task that blocks the entry."""

    entry: str
    candidate: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for a person: release the slot, say why, escalate."""

    entry: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Landable:
    """A car that may land: its candidate, and the gate results that let it, or the waiver where there are none."""

    entry: str
    candidate: int
    evidence: tuple[int | NotNeeded, ...] = ()
    waiver: int = 0


@dataclass(frozen=True, slots=True)
class Land:
    """Write the intent to push these cars, in order, with one push of the last one's candidate."""

    cars: tuple[Landable, ...]


@dataclass(frozen=True, slots=True)
class SetWindow:
    """How many cars a lane's train may have from now on."""

    rig: int
    target: str
    size: int


@dataclass(frozen=True, slots=True)
class PushAgain:
    """The answer of a landing's push was lost: look at the remote again, and push if it is not there."""

    landing: int


@dataclass(frozen=True, slots=True)
class AbandonLanding:
    """Withdraw an intent that nobody has begun to push."""

    landing: int


@dataclass(frozen=True, slots=True)
class CloseEntry:
    """End an entry: merged (git shows it) or failed with a reason from the closed set."""

    entry: str
    state: str
    reason: str
    text: str
    merge_sha: str = ""
    delete_branch: bool = False


@dataclass(frozen=True, slots=True)
class CreateBranch:
    """Cut a convoy's feature branch on the remote."""

    branch: int


@dataclass(frozen=True, slots=True)
class ObserveBranch:
    """Ask the remote where a convoy's feature branch stands."""

    branch: int


@dataclass(frozen=True, slots=True)
class Foresee:
    """Ask git about the heads of a lane's queue, in order. `expect`: the number of the last question."""

    rig: int
    target: str
    expect: int
    heads: tuple[str, ...]
    tip: str = ""


@dataclass(frozen=True, slots=True)
class BranchLanded:
    """Note the commit on the target that holds a feature branch."""

    branch: int
    sha: str


@dataclass(frozen=True, slots=True)
class ConvoyLanded:
    """Note where a convoy landed, tell the people once, delete its branches."""

    convoy: str
    sha: str


@dataclass(frozen=True, slots=True)
class Escalate:
    """Tell the people, once per open `key`."""

    key: str
    title: str
    body: str = ""
    severity: str = "medium"
    about: str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """What was escalated under `key` needs nobody any more."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class RetireAgent:
    """Take an agent out of service."""

    agent: int


@dataclass(frozen=True, slots=True)
class AskHost:
    """Have something done at the host of a rig's pull requests."""

    rig: int
    work: OfHost


OfRuns = StartRun | EndRun | StopRun | NudgeRun | PublishRun | RetireAgent
OfEntries = OpenEntry | OpenCheck | NewHead | Answered | OpenRework | OpenConflict | Hold | CloseEntry
OfTrains = (
    Admit | Leave | Prove | CheckAnew | Regroup | Rebuild | Land | PushAgain | AbandonLanding | SetWindow | Foresee
)
OfLedger = MoveBead | CreateBranch | ObserveBranch | BranchLanded | ConvoyLanded | Escalate | Settle | AskHost
Action = OfRuns | OfEntries | OfTrains | OfLedger

Ruling = tuple[str, str, tuple[Action, ...]]
"""What a rule says of its subject: its name, why in one sentence, and what is to be done."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a subject's first matching rule says: why, and the actions (none: it waits)."""

    subject: str
    rule: str
    why: str
    actions: tuple[Action, ...] = ()
