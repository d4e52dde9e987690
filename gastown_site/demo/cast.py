"""Who plays in the demo: scripts of ours, or a coding agent with a real model, or one whose model plays a script.

That is settled before anything is made, from the words that were typed and the keys in the environment.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from agents import keys, launches
from agents.presets import PRESETS, Preset
from agents.presets.base import PROVIDERS, Api
from agents.runtime import sandbox
from agents.trials import check_named
from beads.config import Config
from beads.errors import Invalid, Refused
from gastown_site.demo.play import play
from gastown_site.rehearsal import ModelServer

BUDGET = "5M tokens"  # of a day, for real calls
SCRIPTED = "scripted"  # what the scripted model calls itself, and so what is booked
_NAMES = {
    "claude": "sonnet",
    "codex": SCRIPTED,
    "gemini": "gemini-2.5-pro",
}  # what is asked for, by those who know names
_ANY = "openai/scripted"  # for those that want provider/model


@dataclass(frozen=True)
class Cast:
    """The agents of a demo. `preset`: empty for our scripts. `model`: as its `--model` takes it; `secret`: the name of
    its key, and so of the variable that has it; `real`: that key opens a real model, and calls are charged.

    `provider`: whose API it asks, as `[providers.…]` has it, empty where the model door does not speak it; `boxed`: a
    sandbox can be had; `place`: where the scripted model is.
    """

    preset: str = ""
    model: str = ""
    secret: str = ""
    provider: str = ""
    real: bool = False
    boxed: bool = False
    place: str = ""

    @property
    def scripted(self) -> bool:
        """True when real agents ask a model that plays a script."""
        return bool(self.preset) and not self.real

    def lines(self) -> list[str]:
        """What to say of it before it begins."""
        if not self.preset:
            return ["its agents and gates are scripts of ours: they run without a sandbox, here only"]
        if self.real:
            where = "and enters no sandbox"
            if not self.provider:
                where = "and is handed to its agents"
            return [
                f"its agents are {self.preset} with your {self.secret}: real calls, which are charged, up to {BUDGET} "
                f"a day; the key is the town's secret, {where}"
            ]
        said = [
            f"its agents are {self.preset}; {self.secret} is not set, so their model is scripted: no call leaves this "
            "machine, and nothing is charged"
        ]
        if not self.boxed:
            said.append("no sandbox can be started here, so they run without one: what they do is our own scripts")
        return said


def choose(preset: str, model: str, env: Mapping[str, str]) -> Cast:
    """The cast for a preset (empty: our scripts) and what is in the environment. Raises Invalid or Refused, in one
    sentence that says what to do, and has made nothing."""
    if not preset:
        if model:
            raise Invalid("--model is for --agents PRESET", field="model")
        return Cast()
    check_named(preset)
    made = PRESETS[preset]
    if wrong := made.refuses(model):
        raise Invalid(f"--model: {wrong}", field="model")
    if launches.found(Config(), made) is None:
        raise Refused(f"there is no {made.program} on this machine: {made.install} (or, in a checkout: make agents)")
    api = _api(made, model, env)
    names = keys.wanted(Config(), api) or (api.key,)
    key = next((name for name in names if env.get(name)), "")
    boxed = sandbox.available() != sandbox.UNSANDBOXED
    if key:
        if not boxed:
            raise Refused(f"an agent with a real model runs in a sandbox, or not at all: {sandbox.status().reason}")
        return Cast(preset, model, key, api.provider, real=True, boxed=True)
    if not api.provider:
        raise Refused(f"{names[0]} is not set, and the scripted model does not speak the API of {model}")
    return Cast(preset, model or _NAMES.get(preset, _ANY), names[0], api.provider, boxed=boxed)


def _api(made: Preset, model: str, env: Mapping[str, str]) -> Api:
    """The API that is asked. Raises Invalid where only a model's name could tell it, and there is a key."""
    if made.models is None and not model:
        if found := next((one.key for one in PROVIDERS.values() if env.get(one.key)), ""):
            raise Invalid(
                f"{found} is set, and {made.name} needs to know whose model: --model provider/…", field="model"
            )
        model = _ANY
    api = made.api(model)
    if api is None:
        raise Invalid(f"--model: {model} is of no provider that is known: {', '.join(PROVIDERS)}", field="model")
    return api


@contextmanager
def on_stage(cast: Cast, pace: str) -> Iterator[Cast]:
    """The cast with its scripted model, where it has one: served by this process, and named to the owner's file of the
    demo's installation, for its address is this machine's."""
    if not cast.scripted:
        yield cast
        return
    with ModelServer(play(pace), name=SCRIPTED) as model, tempfile.TemporaryDirectory(prefix="gastown-demo-") as place:
        file = Path(place) / "owner.toml"
        file.write_text(f'[allow]\nnetworks = ["127.0.0.1:{model.port}"]\n')
        before, settings.GASTOWN_OWNER_CONFIG = settings.GASTOWN_OWNER_CONFIG, str(file)
        os.environ["GASTOWN_OWNER_CONFIG"] = str(file)  # the server is our child
        try:
            yield dataclasses.replace(cast, place=model.url)
        finally:
            settings.GASTOWN_OWNER_CONFIG = before


def base_url(cast: Cast) -> str:
    """Where the scripted model is, as CLIs take its API's base URL."""
    path = next(api.path for api in PROVIDERS.values() if api.provider == cast.provider)
    return f"{cast.place}{path}"
