"""What agents are for, and where their runs stand and how they end: each state named once. Pure."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What an agent is for."""

    POLECAT = "polecat"
    REFINERY = "refinery"
    MAYOR = "mayor"


class RunKind(StrEnum):
    """What a run's process is: an agent of a role, or the gates of a candidate."""

    POLECAT = "polecat"
    REFINERY = "refinery"
    MAYOR = "mayor"
    GATES = "gates"


class RunState(StrEnum):
    """Where a run stands; all but `ended` are live."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class RunOutcome(StrEnum):
    """How an ended run ended.

    `done`: it reported its result. `failed`: the command ended without one (uses up an attempt).
    `lost` (lease ran out), `start_failed`: the host's fault, no attempt used. `stopped`: we asked for it.
    """

    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    START_FAILED = "start_failed"
    STOPPED = "stopped"


class RunResult(StrEnum):
    """What a run's agent reported of its task."""

    DONE = "done"
    REQUEST_CHANGES = "request_changes"


class CostSource(StrEnum):
    """Where the cost of a use of a model is from: told by the provider or the CLI, from `[prices]`, or not known."""

    REPORTED = "reported"
    PRICED = "priced"
    UNKNOWN = "unknown"


class Channel(StrEnum):
    """Who saw a use of a model: the model door, the CLI's own output, or the agent by `gt_report_usage`."""

    DOOR = "door"
    STREAM = "stream"
    TOOL = "tool"
