"""The typed config of towns and rigs. Pure. Unknown or ill-typed keys are refused by their full name.

A town's and a rig's overrides are stored as plain JSON; `effective` lays the rig's over the town's over the
defaults. Source of keys and defaults: the contract's section *Config*.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import json
import shlex
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import pydantic
import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)

from beads.budget import BudgetConfig as BudgetConfig
from beads.budget import Prices
from beads.budget import ProvidersConfig as ProvidersConfig
from beads.errors import Invalid
from beads.limits import FiledBeads as FiledBeads
from beads.limits import LimitsConfig as LimitsConfig
from beads.limits import NotifyConfig as NotifyConfig
from beads.limits import PatrolConfig as PatrolConfig
from beads.limits import PrConfig as PrConfig
from beads.limits import RetentionConfig as RetentionConfig
from beads.values import (
    NONE,
    OPEN,
    AbsolutePath,
    Count,
    Duration,
    Line,
    MailAddress,
    Network,
    OptionalSecret,
    Pattern,
    PersonName,
    Place,
    SecretName,
    Section,
    Size,
    Value,
    Variable,
    Words,
    enum_of,
    report_pattern,
    words_of,
    words_only,
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


class MergeMode(StrEnum):
    """How a convoy reaches the default branch."""

    REVIEW_THEN_LAND = "review-then-land"
    REVIEW_AND_MERGE = "review-and-merge"


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
    return {"name": value.strip()[:200] or value, "run": value} if isinstance(value, str) else value


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


class ConvoyConfig(Section):
    """[convoy]"""

    merge_mode: Annotated[MergeMode, enum_of(MergeMode)] = MergeMode.REVIEW_THEN_LAND
    staged: bool = False


class DispatchConfig(Section):
    """[dispatch]"""

    max_polecats: Annotated[int, Field(ge=1, le=1000)] = 4
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    start_deadline: Duration = dt.timedelta(seconds=60)
    lease: Duration = dt.timedelta(seconds=60)
    heartbeat: Duration = dt.timedelta(seconds=10)
    backoff: Annotated[tuple[Duration, ...], Field(strict=False, min_length=1, max_length=50)] = tuple(
        dt.timedelta(seconds=s) for s in (30, 60, 120, 300, 600)
    )

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> DispatchConfig:
        second = dt.timedelta(seconds=1)
        if self.lease < second or self.heartbeat < second or self.start_deadline < second:
            raise ValueError("start_deadline, lease and heartbeat must be at least 1s")
        if self.lease < 2 * self.heartbeat:
            raise ValueError("lease must be at least twice the heartbeat")
        return self

    def backoff_for(self, failures: int) -> dt.timedelta:
        """The wait after `failures` (≥ 1) failed attempts; the last value repeats."""
        return self.backoff[min(max(failures, 1), len(self.backoff)) - 1]


class AgentCommand(Section):
    """The program that is an agent; see the contract's *Agent environment*.

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
    command: Annotated[tuple[Annotated[str, Field(pattern=r"^[^\x00]*$")], ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _has_program(self) -> AgentCommand:
        if not self.command[0].strip():
            raise ValueError("command: the program's name is empty")
        return self


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


class Publish(StrEnum):
    """When an agent's branch goes to the remote: only what people shall see there, or always."""

    REVIEW = "review"
    ALWAYS = "always"


class GitConfig(Section):
    """[git]: who commits, what agents' branches are called, what of the repository is checked out, with which keys.

    `credential`, `signing_key`: names of the town's secrets, used by the server alone.
    """

    name: PersonName = "Gastown Refinery"
    email: MailAddress = "refinery@gastown.invalid"
    branch_prefix: Annotated[str, StringConstraints(max_length=50, pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*/)+$")] = "gt/"
    publish: Annotated[Publish, enum_of(Publish)] = Publish.REVIEW
    submodules: bool = False
    lfs: bool = False
    credential: OptionalSecret = ""
    signing_key: OptionalSecret = ""


class Config(Section):
    """A town's or rig's whole config."""

    refinery: RefineryConfig = RefineryConfig()
    convoy: ConvoyConfig = ConvoyConfig()
    dispatch: DispatchConfig = DispatchConfig()
    agents: AgentsConfig = AgentsConfig()
    pr: PrConfig = PrConfig()
    patrol: PatrolConfig = PatrolConfig()
    retention: RetentionConfig = RetentionConfig()
    notify: NotifyConfig = NotifyConfig()
    sandbox: SandboxConfig = SandboxConfig()
    git: GitConfig = GitConfig()
    limits: LimitsConfig = LimitsConfig()
    providers: ProvidersConfig = ProvidersConfig()
    prices: Prices = {}
    budget: BudgetConfig = BudgetConfig()


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse TOML; bad TOML raises Invalid naming file, line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{source}: not TOML: {error}", field=source) from None


def to_toml(overrides: Mapping[str, Any]) -> str:
    """Overrides (or a whole config, dumped) as TOML; what is None is left out, for TOML has no word for it."""
    return tomli_w.dumps(_without_none(overrides))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def validate(overrides: Mapping[str, Any], source: str = "config") -> dict[str, Any]:
    """Check a town's or rig's overrides; returns them normalised and JSON-able. Raises Invalid naming the key."""
    rest, only = words_only(overrides)
    told = _parse(rest, source).model_dump(mode="json", exclude_unset=True)
    for role, words in only.items():  # the command may be the town's
        _parse({"agents": {role: {"command": ["-"], **words}}}, source)
        told["agents"][role] = dict(words)
    return told


def effective(town: Mapping[str, Any], rig: Mapping[str, Any]) -> Config:
    """The rig's overrides over the town's over the defaults. Lists are replaced whole."""
    return _effective(json.dumps(town, sort_keys=True), json.dumps(rig, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _effective(town: str, rig: str) -> Config:
    return _parse(words_only(_merge(json.loads(town), json.loads(rig)))[0], "config")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def problems(config: Config) -> list[str]:
    """Why an effective config may not be used, each naming its keys; empty when it may."""
    refinery = config.refinery
    found = []
    if not refinery.code_review and not refinery.gates and not refinery.allow_no_gates:
        found.append(
            "refinery.code_review is false and refinery.gates is empty: nothing would check a change. "
            "Set gates, or refinery.allow_no_gates = true"
        )
    if refinery.gates and not refinery.landing_gates:
        found.append(
            'refinery.gates: each has when = "entry": nothing would check what lands. Let one be "landing" or "both"'
        )
    for key, name in (("credential", config.git.credential), ("signing_key", config.git.signing_key)):
        agents = [agent for agent in dict(config.agents).values() if agent is not None]
        if name and any(name in one.secrets for one in (*agents, *refinery.gates)):
            found.append(f"git.{key}: the secret {name} is for the server alone, and is also handed to runs (secrets)")
    return found


def usable(town: Mapping[str, Any], rig: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The effective config and why it may not be used. Never raises: overrides that are each legal but not together
    give the defaults and the reason, so that one rig's config never stops anything but that rig."""
    try:
        config = effective(town, rig)
    except Invalid as error:
        return Config(), [error.message]
    return config, problems(config)


def _parse(data: Mapping[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(dict(data))
    except pydantic.ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0], source) from None


def _refusal(error: Mapping[str, Any], source: str) -> Invalid:
    """One line for the first problem, with the key's full name."""
    where = [str(part) for part in error["loc"] if part != "[key]"]
    field = ".".join(where)
    if error["type"] == "extra_forbidden":
        guess = difflib.get_close_matches(where[-1], _known(where[:-1]), n=1)
        hint = f"; did you mean {'.'.join([*where[:-1], guess[0]])}?" if guess else ""
        return Invalid(f"{source}: unknown key {field}{hint}", field=field)
    message = words_of(error)
    return Invalid(f"{source}: {field}: {message}" if field else f"{source}: {message}", field=field)


def _known(path: list[str]) -> list[str]:
    """The keys that a section knows."""
    model: Any = Config
    for part in path:
        if part.isdigit():
            model = Gate
            continue
        info = model.model_fields.get(part)
        if info is None:
            return []
        kinds = [k for k in (info.annotation, *getattr(info.annotation, "__args__", ())) if isinstance(k, type)]
        model = next((k for k in kinds if issubclass(k, BaseModel)), model)
    return list(model.model_fields)
