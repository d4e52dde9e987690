"""`agents list|check`"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agents import launches, trials
from agents.presets import PRESETS, Usage
from agents.trials import Trial
from beads import config as configs
from beads import ledger, secrets
from beads.command import ExitWith, GastownCommand, Said, table
from beads.config import AgentCommand, Config
from beads.errors import Invalid
from beads.finders import rig_of, town_of
from beads.models import Town


class Command(GastownCommand):
    help = "Coding agents: which presets there are, what is here of each, whether one works."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        self.sub(verbs, "list", self.list, "the presets, and what is found of each on this machine")
        check = self.sub(
            verbs, "check", self.try_out, "start one in the sandbox: 0 it works, 1 what is missing is said"
        )
        check.add_argument("preset", metavar="PRESET", nargs="?", help="default: those that the config names")
        check.add_argument("--rig", help="with this rig's config; default: the town's")

    def list(self, **_: Any) -> Any:
        """All presets."""
        rows = [_row(name) for name in PRESETS]
        return Said(rows, table(rows, ["preset", "version", "program", "key", "install"]))

    def try_out(self, preset: str | None, rig: str | None, **_: Any) -> Any:
        """Start one, or each that the config names."""
        if preset is not None:
            trials.check_named(preset)
        town, config = _config(rig)
        made = [trials.attempt(config, role, agent, town) for role, agent in _asked(config, preset, town)]
        ok = not any(trial.lacks for trial in made)
        data = {"ok": ok, "checks": [_data(trial) for trial in made]}
        said = Said(data, "\n".join(line for trial in made for line in _lines(trial)))
        return said if ok else ExitWith(said, 1)


def _row(name: str) -> dict[str, Any]:
    preset = PRESETS[name]
    try:
        place = launches.found(Config(), preset)
        program = place.path if place else ""
    except Invalid as error:
        program = f"({error.message})"
    return {
        "preset": name,
        "program": program,
        "version": trials.version(Config(), name) if program.startswith("/") else "not found",
        "key": preset.models.key if preset.models else "by the model's provider",
        "install": preset.install,
    }


def _config(rig: str | None) -> tuple[Town, Config]:
    """(the town, the config) to check with; on an empty installation the default town is made, as by `secret set`."""
    if rig is not None:
        found = rig_of(rig)
        return found.town, configs.effective(found.town.config, found.config)
    town = town_of(None) if Town.objects.exists() else ledger.create_town("main", {})
    return town, configs.effective(town.config, {})


def _asked(config: Config, preset: str | None, town: Town) -> list[tuple[str, AgentCommand]]:
    """The roles to check: those that are (this) preset; where none is, a polecat that would be."""
    roles = [(role, agent) for role, agent in launches.roles(config) if preset in (None, agent.preset)]
    if preset is None and not roles:
        raise Invalid(f"no role has a preset: name one of {', '.join(PRESETS)}", field="preset")
    if preset is None or roles:
        return roles
    api, have = PRESETS[preset].models, secrets.names(town)
    keys = [key for key in (api.keys if api else ()) if key in have][:1]
    return [("polecat", AgentCommand(preset=configs.Preset(preset), secrets=tuple(keys)))]


def _data(trial: Trial) -> dict[str, Any]:
    return {
        **{name: getattr(trial, name) for name in ("role", "preset", "program", "version", "seconds", "output")},
        "works": not trial.lacks,
        "lacks": [asdict(lack) for lack in trial.lacks],
        "usage": {model: asdict(usage) for model, usage in trial.bill.items()},
    }


def _lines(trial: Trial) -> list[str]:
    name = f"{trial.role}: {trial.preset} {trial.version}".rstrip()
    if trial.lacks:
        return [f"{name} does not work yet", *(f"  {lack}" for lack in trial.lacks)]
    return [f"{name} works: it answered in {trial.seconds:.1f} s ({_taken(trial.bill)})"]


def _taken(bill: Mapping[str, Usage]) -> str:
    whole = sum(u.input + u.cached for u in bill.values()), sum(u.output for u in bill.values())
    models = ", ".join(filter(None, bill))
    return f"{whole[0]} tokens in, {whole[1]} out{f'; {models}' if models else ''}"
