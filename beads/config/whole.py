"""A whole config: read, laid over another, checked. Pure."""

from __future__ import annotations

import difflib
import functools
import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pydantic
import tomli_w
from pydantic import BaseModel

from beads.budget import BudgetConfig, Prices, ProvidersConfig
from beads.config.agents import AgentsConfig, SandboxConfig
from beads.config.refinery import Gate, RefineryConfig
from beads.config.work import ConvoyConfig, DispatchConfig, GitConfig
from beads.errors import Invalid
from beads.limits import LimitsConfig, NotifyConfig, PatrolConfig, PrConfig, RetentionConfig
from beads.values import Section, words_of


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
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def validate(overrides: Mapping[str, Any], source: str = "config") -> dict[str, Any]:
    """Check a town's or rig's overrides; returns them normalised and JSON-able. Raises Invalid naming the key."""
    rest, only = _without_programs(overrides)
    told = _parse(rest, source).model_dump(mode="json", exclude_unset=True)
    for role, words in only.items():  # the program may be the town's
        _parse({"agents": {role: {"preset": "claude", **words}}}, source)
        told["agents"][role] = dict(words)
    return told


_BESIDE = frozenset({"instructions", "model", "models", "sessions"})


def _without_programs(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(overrides without the roles of which only what stands beside a program is told, those roles)."""
    agents = overrides.get("agents")
    if not isinstance(agents, Mapping):
        return dict(overrides), {}
    only = {role: told for role, told in agents.items() if isinstance(told, Mapping) and told and set(told) <= _BESIDE}
    rest = {role: told for role, told in agents.items() if role not in only}
    return {**overrides, "agents": rest}, only


def effective(town: Mapping[str, Any], rig: Mapping[str, Any]) -> Config:
    """The rig's overrides over the town's over the defaults. Lists are replaced whole."""
    return _effective(json.dumps(town, sort_keys=True), json.dumps(rig, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _effective(town: str, rig: str) -> Config:
    return _parse(_without_programs(_laid_over(json.loads(town), json.loads(rig)))[0], "config")


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`. A program that is named above takes the place of the one below and of its models."""
    agents = dict(below.get("agents") or {})
    for role, told in (above.get("agents") or {}).items():
        old = agents.get(role)
        if not isinstance(told, Mapping) or not isinstance(old, Mapping) or not {"command", "preset"} & set(told):
            continue
        gone = {"command"} if told.get("preset") else {"preset"}
        if told.get("preset") != old.get("preset"):
            gone |= {"model", "models"}
        agents[role] = {key: value for key, value in old.items() if key not in gone}
    return _merge({**below, "agents": agents} if agents else below, above)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
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
    ours = {
        "git.credential": config.git.credential,
        "git.signing_key": config.git.signing_key,
        "pr.credential": config.pr.credential,
        "pr.webhook_secret": config.pr.webhook_secret,
    }
    for key, name in ours.items():
        agents = [agent for agent in dict(config.agents).values() if agent is not None]
        if name and any(name in one.secrets for one in (*agents, *refinery.gates)):
            found.append(f"{key}: the secret {name} is for the server alone, and is also handed to runs (secrets)")
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
        told = f"{source}: unknown key {field}"
        if guess:
            told += f"; did you mean {'.'.join([*where[:-1], guess[0]])}?"
        return Invalid(told, field=field)
    named = ": ".join(filter(None, (source, field, words_of(error))))
    return Invalid(named, field=field)


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
