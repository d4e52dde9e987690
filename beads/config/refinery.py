"""[refinery]: gates, trains, batches, how a change lands. Pure."""

from __future__ import annotations

import datetime as dt
import shlex
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from beads.values import (
    NONE,
    Count,
    Duration,
    Line,
    Network,
    Pattern,
    Place,
    SecretName,
    Section,
    Size,
    Value,
    Variable,
    enum_of,
    report_pattern,
)


class MergeStrategy(StrEnum):
    """How a change lands: pushed by the refinery, or offered as a pull request to people."""

    DIRECT = "direct"
    PR = "pr"


class MergeMethod(StrEnum):
    """What the landed commit looks like."""

    SQUASH = "squash"
    MERGE = "merge"
    REBASE = "rebase"


class GateWhen(StrEnum):
    """Which tree a gate is run on: the entry's own, merged with the target alone; what lands; or both."""

    ENTRY = "entry"
    LANDING = "landing"
    BOTH = "both"


class Triage(StrEnum):
    """Whether the refinery agent looks at red gates before they are sent back, where one is configured."""

    AUTO = "auto"
    OFF = "off"


class Gate(Section):
    """One check of a candidate: `run` is given to `sh -c`, with `env` added to its environment.

    `paths`: it is needed only for changes that touch a matching path (see `beads.globs`); empty: for every change.
    `cache`: paths in the worktree that are kept after a pass and put back before the gate runs, as long as the files of
    `cache_key` are the same; without these, each pass replaces what is kept.
    `junit`: a pattern, from the worktree's root, of the JUnit reports that it writes.
    `network`: what it reaches through the proxy. `nested`: it may make user namespaces of its own (owner only).
    `memory`, `processes`, `disk`, `tmp`: in place of what [sandbox] says.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
    run: Line
    timeout: Duration = dt.timedelta(minutes=10)
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    network: Network = (NONE,)
    nested: bool = False
    memory: Size | None = None
    processes: Count | None = None
    disk: Size | None = None
    tmp: Size | None = None
    secrets: Annotated[tuple[SecretName, ...], Field(strict=False, max_length=20)] = ()
    when: Annotated[GateWhen, enum_of(GateWhen)] = GateWhen.LANDING
    env: Annotated[dict[Variable, Value], Field(max_length=100)] = {}
    paths: Annotated[tuple[Pattern, ...], Field(strict=False, max_length=100)] = ()
    cache: Annotated[tuple[Place, ...], Field(strict=False, max_length=20)] = ()
    cache_key: Annotated[tuple[Place, ...], Field(strict=False, max_length=20)] = ()
    junit: Annotated[str, StringConstraints(max_length=500), AfterValidator(report_pattern)] = ""

    @property
    def command(self) -> str:
        """What its results are recorded under: with another command, or other variables, it is another check."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in sorted(self.env.items())), self.run])


def _gate(value: object) -> object:
    if isinstance(value, str):
        return {"name": value.strip()[:200] or value, "run": value}
    return value


class TrainConfig(Section):
    """[refinery.train]: how many entries of a lane are built and gated at once, each on the one before it."""

    window: Annotated[int, Field(ge=1, le=100)] = 4


class BatchConfig(Section):
    """[refinery.batch]: how many entries share one run of the gates. `size`: always so many, else chosen from how often
    changes fail; `wait`: how long the first one waits for company."""

    max: Annotated[int, Field(ge=1, le=100)] = 1
    size: Annotated[int, Field(ge=1, le=100)] | None = None
    wait: Duration = dt.timedelta(seconds=30)


class RefineryConfig(Section):
    """[refinery]"""

    gates: Annotated[tuple[Annotated[Gate, BeforeValidator(_gate)], ...], Field(strict=False, max_length=50)] = ()
    parallel_gates: bool = False
    auto_merge: bool = True
    require_clean_merge: bool = True
    code_review: bool = True
    max_convoy_concurrency: Annotated[int, Field(ge=1, le=1000)] = 3
    max_reviews: Annotated[int, Field(ge=1, le=100)] = 3
    merge_strategy: Annotated[MergeStrategy, enum_of(MergeStrategy)] = MergeStrategy.DIRECT
    merge_method: Annotated[MergeMethod, enum_of(MergeMethod)] = MergeMethod.SQUASH
    pop_limit: Annotated[int, Field(ge=1, le=1000)] = 10
    max_rework_cycles: Annotated[int, Field(ge=0, le=100)] = 3
    push_retries: Annotated[int, Field(ge=0, le=1000)] = 5
    allow_no_gates: bool = False
    triage: Annotated[Triage, enum_of(Triage)] = Triage.AUTO
    train: TrainConfig = TrainConfig()
    batch: BatchConfig = BatchConfig()

    @property
    def entry_gates(self) -> tuple[Gate, ...]:
        """The gates of an entry by itself, before it waits for its turn."""
        return tuple(g for g in self.gates if g.when != GateWhen.LANDING)

    @property
    def landing_gates(self) -> tuple[Gate, ...]:
        """The gates of exactly what lands."""
        return tuple(g for g in self.gates if g.when != GateWhen.ENTRY)

    @model_validator(mode="after")
    def _caches_apart(self) -> RefineryConfig:
        whose: dict[str, str] = {}
        for gate in self.gates if self.parallel_gates else ():
            for path in gate.cache:
                for other, name in whose.items():
                    if name != gate.name and f"{path}/".startswith(f"{other}/") | f"{other}/".startswith(f"{path}/"):
                        raise ValueError(f"gates: {name!r} and {gate.name!r} run at once and both cache {path}")
                whose[path] = gate.name
        return self

    @model_validator(mode="after")
    def _unique_names(self) -> RefineryConfig:
        names = [gate.name for gate in self.gates]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"gates: two gates are named {name!r}")
        return self
