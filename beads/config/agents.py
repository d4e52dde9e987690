"""[agents.…] and [sandbox]: who does the work, and what is to be seen of the machine meanwhile. Pure."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from beads.values import (
    OPEN,
    AbsolutePath,
    Count,
    Duration,
    ModelName,
    Network,
    SecretName,
    Section,
    Size,
    Value,
    Variable,
    Words,
    enum_of,
)


class Preset(StrEnum):
    """A coding agent that Gastown knows how to start; what it knows of each is in `agents/presets/`."""

    CLAUDE = "claude"
    CODEX = "codex"
    KILO = "kilo"
    OPENCODE = "opencode"
    GEMINI = "gemini"
    MINI = "mini"


class Sessions(StrEnum):
    """Whether a rework or a retry goes on with the agent's own session, where its preset can, or begins a fresh one."""

    RESUME = "resume"
    FRESH = "fresh"


class ModelFor(StrEnum):
    """What a run may have a model of its own for: its purpose, or its bead's priority."""

    WORK = "work"
    REVIEW = "review"
    REWORK = "rework"
    CONFLICT = "conflict"
    TRIAGE = "triage"
    P0 = "p0"
    P1 = "p1"
    P2 = "p2"
    P3 = "p3"
    P4 = "p4"


_PURPOSES: dict[str, ModelFor] = {
    "work": ModelFor.WORK,
    "rework": ModelFor.REWORK,
    "conflict": ModelFor.CONFLICT,
    "review": ModelFor.REVIEW,
    "triage": ModelFor.TRIAGE,
    "resolve": ModelFor.CONFLICT,  # the refinery's
}


class AgentCommand(Section):
    """The program that is an agent: a preset, or any command; see the contract's *Agent environment*.

    `model`: the preset's model; `models`: another one by purpose or priority, where the purpose counts more. A bead's
    own model (`sling --model`) wins over them, for whoever does its work.
    `secrets`: names of the town's secrets that its runs get as variables. `wall`, `memory`, `processes`, `disk`, `tmp`:
    in place of what [sandbox] says. `instructions`: told to it in every prompt, in the operator's voice.
    """

    instructions: Words = ""
    network: Network = (OPEN,)
    secrets: Annotated[tuple[SecretName, ...], Field(strict=False, max_length=20)] = ()
    env: Annotated[dict[Variable, Value], Field(max_length=100)] = {}
    memory: Size | None = None
    processes: Count | None = None
    disk: Size | None = None
    tmp: Size | None = None
    wall: Duration | None = None
    preset: Annotated[Preset | None, enum_of(Preset)] = None
    command: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\x00]*$")], ...], Field(strict=False, validate_default=True)
    ] = ()
    model: ModelName = ""
    models: dict[Annotated[ModelFor, enum_of(ModelFor)], ModelName] = {}
    sessions: Annotated[Sessions, enum_of(Sessions)] = Sessions.RESUME

    @field_validator("command")
    @classmethod
    def _one_program(cls, words: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        preset = info.data.get("preset")
        if words and preset:
            raise ValueError(f"preset = {str(preset)!r} is there, too: say one of the two")
        if not words and not preset:
            raise ValueError("is missing: set it, or a preset")
        if words and not words[0].strip():
            raise ValueError("the program's name is empty")
        return words

    @field_validator("model")
    @classmethod
    def _a_presets_model(cls, name: str, info: ValidationInfo) -> str:
        if name and info.data.get("command"):
            raise ValueError("a command takes none: say it in the command itself, or use a preset")
        return name

    @field_validator("models")
    @classmethod
    def _a_presets_models(cls, names: dict[ModelFor, str], info: ValidationInfo) -> dict[ModelFor, str]:
        for name in names.values():
            cls._a_presets_model(name, info)
        return names

    def model_for(self, purpose: str, priority: int, own: str = "") -> str:
        """The model of a run of this purpose for a bead of this priority; an empty string: the agent's own choice.

        `own`: the bead's, which wins; then the purpose's, the priority's, the role's.
        """
        by_priority = self.models.get(ModelFor(f"p{priority}"))
        return own or self.models.get(_PURPOSES.get(purpose, ModelFor.WORK)) or by_priority or self.model


class AgentsConfig(Section):
    """[agents.…]"""

    polecat: AgentCommand | None = None
    refinery: AgentCommand | None = None
    mayor: AgentCommand | None = None


class SandboxMode(StrEnum):
    """Whether agents and gates run in a sandbox. `off` is a decision that is shown in red."""

    REQUIRED = "required"
    OFF = "off"


class SandboxConfig(Section):
    """[sandbox]: what every run of an agent or of gates sees beside its workspace, and how much it may use.

    `read_only`: paths shown inside, for reading; `path`: directories put first in PATH, and shown. `disk`: what the
    workspace and the home of a run may grow to; `wall`: how long an agent's run may take.
    """

    mode: Annotated[SandboxMode, enum_of(SandboxMode)] = SandboxMode.REQUIRED
    read_only: Annotated[tuple[AbsolutePath, ...], Field(strict=False, max_length=50)] = ()
    path: Annotated[tuple[AbsolutePath, ...], Field(strict=False, max_length=50)] = ()
    memory: Size = 4 << 30
    processes: Count = 512
    disk: Size = 10 << 30
    tmp: Size = 1 << 30
    wall: Duration = dt.timedelta(hours=6)
