"""How a preset's run is started on this machine: its program is found, its files are put into the run's HOME.

What a preset lacks is said before a run needs it (`lacking`), each with the line of config, or the command, that mends
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings

from agents import boxes, keys
from agents.models import Run
from agents.presets import PRESETS, Api, Preset, Start, find
from agents.runtime import network, sandbox
from beads import config as configs
from beads import secrets
from beads.config import AgentCommand, Config
from beads.errors import Invalid
from beads.models import Rig, Town
from beads.values import NONE, OPEN

OWN = ".agents/bin"  # what `make agents` has installed, in a checkout


@dataclass(frozen=True)
class Prepared:
    """A start that was prepared: `argv`, variables below the role's own, and what the box has to show for it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    shown: tuple[Path, ...]
    token_as: tuple[str, ...] = ()  # variables that are to be the run's token
    instead: tuple[str, ...] = ()  # the command where `argv` goes on with a session, and does not find it
    lost: str = ""  # a pattern by which it says so

    def steps(self, steps: Iterable[Mapping[str, Any]], prompt: str = "") -> list[dict[str, Any]]:
        """A run's steps, with the command of the one that is the preset's. `prompt`: the file of who goes on."""
        return [self._step(step, prompt) if step.get("preset") else {**step} for step in steps]

    def _step(self, step: Mapping[str, Any], prompt: str) -> dict[str, Any]:
        made = {**step, "argv": list(self.argv)}
        if self.instead:
            again = {"argv": list(self.instead), "lost": self.lost}
            made |= {"env": {**(step.get("env") or {}), "GASTOWN_PROMPT_FILE": prompt}, "instead": again}
        return made


@dataclass(frozen=True)
class Lack:
    """Something that a preset needs and has not. `field`: the key of the config; `line`: what to add, or to type."""

    field: str
    text: str
    line: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}: {self.line}"


def search_path(config: Config) -> str:
    """The directories in which programs of agents are looked for."""
    own = Path(settings.BASE_DIR) / OWN
    named = [os.path.expanduser(place) for place in config.sandbox.path]
    return ":".join([*named, os.environ.get("PATH", ""), str(own)])


def found(config: Config, preset: Preset) -> find.Found | None:
    """Where a preset's program is; None: not on this machine. Raises Invalid where the sandbox must not show it."""
    place = find.find(preset, search_path(config))
    for path in place.shown if place else ():
        if why := sandbox.refused(path, settings.GASTOWN_HOME, os.path.expanduser("~")):
            raise Invalid(f"{preset.name} is in {path}, which cannot be shown in the sandbox: {why}", field="preset")
    return place


def of_run(run: Run, home: Path, session: str = "") -> Prepared | None:
    """How a run is started, its files written into `home`, which is to be its HOME; None: it has no preset. `session`:
    one that it goes on with."""
    step = run.preset_step
    config = configs.effective(run.rig.town.config, run.rig.config)
    agent = boxes.agent_of(config, run)
    if not step or agent is None:
        return None
    model = str(step.get("model") or "")
    town = run.rig.town
    if not by_the_door(config, agent, model, town):
        return prepare(config, agent, str(run.kind), home, model=model, session=session)
    api = PRESETS[str(agent.preset)].api(model)
    assert api is not None
    place = {api.base_url_env: f"{_server(config)}{api.door}"}
    asks = agent.model_copy(update={"env": {**agent.env, **place, api.key: "token"}})
    made = prepare(config, asks, str(run.kind), home, model=model, session=session)
    return replace(made, env={**made.env, **place}, token_as=(api.key,))


def by_the_door(config: Config, agent: AgentCommand, model: str, town: Town | None) -> bool:
    """True when a preset's runs ask their model through the model door: the role has neither a key nor another address
    of its own, and the town has a secret that opens the API for the server."""
    if agent.preset is None or town is None:
        return False
    api = PRESETS[str(agent.preset)].api(model)
    if api is None or {*agent.secrets, *agent.env} & {*api.keys, api.base_url_env}:
        return False
    return bool(keys.secret_of(config, api, secrets.names(town)))


def _server(config: Config) -> str:
    """The server's URL as a run's command sees it."""
    if boxes.is_off(config):
        return str(settings.GASTOWN_URL)
    return network.variables(False, settings.GASTOWN_URL)["GASTOWN_URL"]


def prepare(config: Config, agent: AgentCommand, role: str, home: Path, *, model: str, session: str = "") -> Prepared:
    """Settle how an agent that is a preset is started, and write its files into `home`. Raises Invalid when its program
    is not here, or needs a model and has none."""
    preset = PRESETS[str(agent.preset)]
    place = found(config, preset)
    if place is None:
        raise Invalid(str(_no_program(preset, role)), field=f"agents.{role}.preset")
    if preset.needs_model and not model:
        raise Invalid(str(_no_model(preset, role)), field=f"agents.{role}.model")
    if wrong := preset.refuses(model):
        raise Invalid(f"model: {wrong}", field=f"agents.{role}.model")
    boxed = not boxes.is_off(config)
    start = Start(
        place.program,
        home=sandbox.HOME if boxed else str(home),
        model=model,
        env=agent.env,
        secrets=agent.secrets,
        tools=_server(config),
        session=session,
    )
    launch = preset.start(start)
    instead: tuple[str, ...] = ()
    if session:
        instead = preset.start(replace(start, session="")).argv
    for name, text in launch.files.items():
        path = home / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text)
    shown = tuple(Path(one) for one in place.shown)
    return Prepared(launch.argv, launch.env, shown, instead=instead, lost=preset.lost)


# -- what is missing --------------------------------------------------------------------------------------------------


def lacking(config: Config, agent: AgentCommand, role: str, town: Town | None) -> list[Lack]:
    """What can be told without a start: program, model, key, network. Empty for an agent that is a command."""
    if agent.preset is None:
        return []
    preset = PRESETS[str(agent.preset)]
    names = [agent.model, *agent.models.values()]
    lacks = [] if find.find(preset, search_path(config)) else [_no_program(preset, role)]
    if preset.needs_model and not any(names):
        lacks.append(_no_model(preset, role))
    for wrong in filter(None, map(preset.refuses, names)):
        lacks.append(Lack(f"agents.{role}.model", wrong, 'model = "anthropic/…"'))
    api = preset.api(next(filter(None, names), ""))
    if api is None or by_the_door(config, agent, next(filter(None, names), ""), town):
        return lacks
    given = {*agent.secrets, *agent.env}
    if not given & {*api.keys}:
        lacks.append(_no_key(config, preset, role, api, town))
        if keys.wanted(config, api):
            return lacks  # with it the server asks, whatever the role's network
    if api.base_url_env not in given and not _reached(api.host, agent.network):
        more = [] if agent.network == (NONE,) else [*agent.network]
        lacks.append(
            Lack(
                f"agents.{role}.network",
                f"{preset.name} does not reach its model at {api.host}",
                f"network = {_list([*more, api.host])}",
            )
        )
    return lacks


def check_model(rig: Rig, model: str) -> None:
    """May the polecats of a rig work with this model? Empty is the config's, which is theirs; where no polecat is
    configured yet, nobody can tell. Raises Invalid."""
    if not model:
        return
    agent = configs.usable(rig.town.config, rig.config)[0].agents.polecat
    if agent is None:
        return
    if agent.preset is None:
        wrong = f"the polecats of rig {rig.slug} are a command, which takes no model: say it there, or use a preset"
    else:
        wrong = PRESETS[str(agent.preset)].refuses(model)
    if wrong:
        raise Invalid(f"model: {wrong}", field="model")


def check_models(plan: Iterable[Mapping[str, Any]]) -> None:
    """As `check_model`, of the beads of a plan."""
    for item in plan:
        try:
            check_model(item["rig"], item.get("model", ""))
        except Invalid as error:
            raise Invalid(f"{item['key']}: {error.message}", field="model") from None


def notes(owner: Town | Rig) -> list[str]:
    """What to tell whoever sets the config of a town or rig: one line for each thing that a preset of it lacks.
    (Secrets that are named and not set: `beads.secrets.notes`.)"""
    town, rig = (owner.town, owner.config) if isinstance(owner, Rig) else (owner, {})
    config = configs.usable(town.config, rig)[0]
    return [str(lack) for role, agent in roles(config) for lack in lacking(config, agent, role, town)]


def roles(config: Config) -> list[tuple[str, AgentCommand]]:
    """The roles that are presets."""
    return [(role, agent) for role, agent in dict(config.agents).items() if agent is not None and agent.preset]


def unset(agent: AgentCommand, role: str, town: Town, held: Mapping[str, str]) -> list[Lack]:
    """The secrets that a role names and its town has not. `held`: under which other name the town has one."""
    have = set(secrets.names(town))
    return [
        Lack(
            f"agents.{role}.secrets",
            f"the town has no secret {name}",
            f"gastown secret set {name} --town {town.slug}",
        )
        for name in (held.get(name, name) for name in agent.secrets)
        if name not in have
    ]


def _no_program(preset: Preset, role: str) -> Lack:
    return Lack(
        f"agents.{role}.preset",
        f"there is no {preset.program} on this machine",
        f"{preset.install}, or name its directory in [sandbox] path",
    )


def _no_model(preset: Preset, role: str) -> Lack:
    return Lack(f"agents.{role}.model", f"{preset.name} does not start without one", 'model = "anthropic/…"')


def _no_key(config: Config, preset: Preset, role: str, api: Api, town: Town | None) -> Lack:
    """Where the model door speaks the API, a secret of the town's is all; else the role has to name it, too."""
    slug = getattr(town, "slug", "main")
    if names := keys.wanted(config, api):
        line = f"`gastown secret set {names[0]} --town {slug}`"
    else:
        line = f'secrets = ["{api.key}"], and `gastown secret set {api.key} --town {slug}`'
    return Lack(f"agents.{role}.secrets", f"{preset.name} has no key for its model", line)


def _reached(host: str, patterns: Sequence[str]) -> bool:
    """True when a role's network lets this `host:port` pass."""
    return any(one in (OPEN, host) or (one.startswith("*.") and host.endswith(one[1:])) for one in patterns)


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
