"""Does a preset work here? It is started in the real sandbox with a task of ten words.

What can be told without a start is told first (`launches.lacking`); then the agent says by itself what is wrong with
its key, its log-in, its model or its network, and the line that mends it is added.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from agents import boxes, keys, launches
from agents.launches import Lack
from agents.presets import PRESETS, Api, Event, Usage, bill
from agents.presets.telling import Trouble, last_words, trouble
from agents.runtime import gitcmd, sandbox
from agents.runtime.orders import Orders
from agents.runtime.steps import Steps
from beads import owner, secrets
from beads.config import AgentCommand, Config
from beads.errors import Invalid
from beads.models import Town
from beads.values import OPEN

TASK = "Run `echo ready` in your shell, then answer only: ready.\n"
SECONDS = 180.0
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-.+][0-9A-Za-z.]+)?")


@dataclass(frozen=True)
class Trial:
    """How it went: what is missing (nothing: it works), the seconds it took, its bill by model, its output."""

    role: str
    preset: str
    program: str = ""
    version: str = ""
    lacks: tuple[Lack, ...] = ()
    seconds: float = 0.0
    bill: Mapping[str, Usage] = field(default_factory=dict)
    output: str = ""


def attempt(config: Config, role: str, agent: AgentCommand, town: Town) -> Trial:
    """Check a role that is a preset, and start it. Raises NoSandbox where none can be had."""
    preset = PRESETS[str(agent.preset)]
    place = launches.found(config, preset)
    held: dict[str, str] = {}
    if launches.by_the_door(config, agent, agent.model_for("work", 2), town):
        agent, held = _past_the_door(config, agent, town)
    lacks = [*launches.lacking(config, agent, role, town), *launches.unset(agent, role, town, held)]
    about = Trial(role, preset.name, place.path if place else "", version(config, preset.name))
    if lacks:
        return Trial(about.role, about.preset, about.program, about.version, tuple(lacks))
    root = Path(settings.GASTOWN_HOME) / "trials"
    root.mkdir(mode=0o700, exist_ok=True)
    scene = Path(tempfile.mkdtemp(dir=root))
    try:
        began = time.monotonic()
        values = secrets.for_run(town, [held.get(name, name) for name in agent.secrets])
        told = {name: values[held.get(name, name)] for name in agent.secrets}
        result, log = _run(config, role, agent, told, scene)
        seconds = time.monotonic() - began
    finally:
        shutil.rmtree(scene, ignore_errors=True)
    output = log.text()
    events = [event for line in output.splitlines() for event in preset.parse(line)]
    found = _judged(_Case(config, role, agent, held), result, events, log)
    return Trial(about.role, about.preset, about.program, about.version, found, seconds, bill(events), output[-20_000:])


def _past_the_door(config: Config, agent: AgentCommand, town: Town) -> tuple[AgentCommand, dict[str, str]]:
    """The same with the key itself: no run is here whose token would open the model door, nor anything to be read.
    Beside it, of which secret of the town's the variable that is the key gets its value."""
    api = PRESETS[str(agent.preset)].api(agent.model_for("work", 2))
    assert api is not None
    base = keys.base_url(config, api)
    host, port = owner.place_of(base)
    env = dict(agent.env)
    if base != api.url:
        env[api.base_url_env] = base
    told = {"secrets": (*agent.secrets, api.key), "network": (f"{host}:{port}",), "env": env}
    return agent.model_copy(update=told), {api.key: keys.secret_of(config, api, secrets.names(town))}


def version(config: Config, name: str) -> str:
    """What a preset's program says of its version, in a box; empty when it is not here, or says none."""
    preset = PRESETS[name]
    place = launches.found(config, preset)
    if place is None:
        return ""
    status = sandbox.status()
    box = sandbox.Box(status.kind, status.bwrap, read_only=(*place.shown, *boxes.real(place.shown)))
    try:
        _, said = sandbox.ask(box, [*place.program, preset.version], 60.0)
    except OSError:
        return ""
    found = _VERSION.search(said)
    return found[0] if found else ""


def _run(
    config: Config, role: str, agent: AgentCommand, values: Mapping[str, str], scene: Path
) -> tuple[dict[str, Any], _Output]:
    """Start it in a repository of its own, with its secrets; (the step's result, its output)."""
    tree, home, prompt = scene / "tree", scene / "home", scene / "prompt.md"
    tree.mkdir()
    home.mkdir(mode=0o700)
    prompt.write_text(TASK)
    gitcmd.run_git(["init", "--quiet"], cwd=tree)
    prepared = launches.prepare(config, agent, role, home, model=agent.model_for("work", 2))
    box = boxes.box_of(
        config,
        agent,
        role,
        boxes.Places(
            tree, home=home, read_only=[prompt, *prepared.shown], secrets=values, allow=owner.private_networks()
        ),
    )
    env = {"LANG": "C.UTF-8", "TERM": "dumb", "HOME": str(home), "GASTOWN_URL": settings.GASTOWN_URL}
    env |= {"GASTOWN_PROMPT_FILE": str(prompt), "GASTOWN_ROLE": role, **prepared.env, **agent.env, **values}
    step = {"name": "agent", "argv": list(prepared.argv), "timeout": SECONDS}
    log = _Output()
    spec = {"kind": role, "worktree": str(tree), "steps": [step], "box": box, "env": env}
    results, _ = Steps(spec, log, Orders(), lambda: {"GASTOWN_TOKEN": "of-no-run"}).run()
    return results[0] if results else {}, log


class _Output:
    """A log in memory."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.said: list[str] = []

    def write(self, data: bytes) -> None:
        """Append."""
        self.data.append(data)

    def say(self, text: str) -> None:
        """A line of ours, which is none of the agent's words."""
        self.said.append(text)

    def text(self) -> str:
        """All of it."""
        return b"".join(self.data).decode("utf-8", "replace")

    def about(self, host: str) -> str:
        """What the box has said last of this host; empty: nothing."""
        return next((text for text in reversed(self.said) if host and host in text), "")


@dataclass(frozen=True)
class _Case:
    """What was tried. `held`: of which secret of the town's a variable has its value, where that has another name."""

    config: Config
    role: str
    agent: AgentCommand
    held: Mapping[str, str]

    @property
    def api(self) -> Api | None:
        """The API that was asked, where that is known."""
        return PRESETS[str(self.agent.preset)].api(self.agent.model_for("work", 2))

    @property
    def key(self) -> str:
        """The secret of the town's that is its key."""
        if self.api is None:
            return "…"
        name = next((name for name in self.api.keys if name in self.agent.secrets), self.api.key)
        return self.held.get(name, name)

    @property
    def host(self) -> str:
        """Where its API is."""
        if self.api is None:
            return "host:443"
        if self.held:
            return "{}:{}".format(*owner.place_of(keys.base_url(self.config, self.api)))
        return self.api.host


def _judged(case: _Case, result: Mapping[str, Any], events: list[Event], log: _Output) -> tuple[Lack, ...]:
    """What is missing after a start; nothing: it has answered."""
    raw = result.get("outcome_raw") or {}
    if raw.get("exit_code") == 0 and any(usage.output for usage in bill(events).values()):
        return ()  # errors on the way (it has tried again) do not matter
    preset = PRESETS[str(case.agent.preset)]
    output, host, key = log.text(), case.host, case.key
    said = last_words(events, output.splitlines())
    if trouble(said) is Trouble.OTHER:  # the box has seen what it was refused
        said = log.about(host.partition(":")[0]) or said
    if raw.get("timed_out"):
        said = f"it did not answer within {SECONDS:.0f} s. {said}".strip()
    elif not said:
        said = f"it ended with {raw.get('exit_code')} and said nothing"
    far = f"does the server itself reach {host}?"
    if not {OPEN, host} & set(case.agent.network):
        far = f'network = ["{host}"]'
    whole = f"{said}\n{output[-4000:]}" if trouble(said) is Trouble.OTHER else said
    field_, line = {
        Trouble.KEY: ("secrets", f"is the key right? `gastown secret set {key}`"),
        Trouble.LOGIN: ("secrets", f'secrets = ["{key}"], and `gastown secret set {key}`: it cannot log in by itself'),
        Trouble.MODEL: ("model", 'model = "…", one that this key may use'),
        Trouble.RATE: ("model", "the API is busy, or the key has no quota left: try again, or another model"),
        Trouble.CONTEXT: ("model", "a model with a larger context"),
        Trouble.NETWORK: ("network", far),
        Trouble.PROGRAM: ("preset", f"{preset.install}, and [sandbox] read_only for what it lies in"),
        Trouble.OTHER: ("preset", "see its output: gastown agents check --json"),
    }[trouble(whole)]
    return (Lack(f"agents.{case.role}.{field_}", f"{preset.name} has not answered: {said}", line),)


def check_named(name: str) -> str:
    """A preset's name. Raises Invalid for another word."""
    if name not in PRESETS:
        raise Invalid(f"{name[:60]!r} is no preset: {', '.join(PRESETS)}", field="preset")
    return name
