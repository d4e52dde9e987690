"""Which session of its coding agent a run goes on with, and where sessions are kept: `GASTOWN_HOME/sessions`.

One for each piece of work and part in it: the bead whose change it is (`Run.account`), who is at it (a worker; a
refinery's review, triage or conflict; the mayor), and the preset. Never shared beyond that. Nothing of it is in a
backup, and all of it goes with its bead. What is kept is copied by `agents.runtime.sessions`, and read by nobody here:
the name of a session is what the run's output has said (`Run.session`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from agents import boxes
from agents.lifecycle import RunKind, RunOutcome
from agents.models import Run
from agents.presets import PRESETS, Preset
from agents.runtime import sessions
from beads import config as configs
from beads.config import AgentCommand, Sessions
from beads.models import Bead

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # it becomes an argument of a command
_TRIED = 3  # runs that are looked at: one that got nowhere names none


@dataclass(frozen=True)
class Going:
    """Where a run's session is kept, and what of HOME it is. `name`: the one that it goes on with; empty: a fresh one.
    `because`: why a fresh one, where an earlier run had one."""

    place: Path
    parts: tuple[str, ...]
    name: str = ""
    because: str = ""

    def spec(self) -> dict[str, Any]:
        """For the shim, which keeps it when the run has ended."""
        return {"place": str(self.place), "parts": list(self.parts)}


def root() -> Path:
    """Where sessions are kept: a folder for each bead."""
    return Path(settings.GASTOWN_HOME) / "sessions"


def part_of(kind: str, purpose: str) -> str:
    """Whose session it is among those of a piece of work: a worker goes on from work to rework and conflicts; each
    thing that a refinery does is another conversation."""
    if kind == RunKind.REFINERY:
        return f"{kind}-{purpose}"
    return str(kind)


def going(run: Run) -> Going | None:
    """With what a run's session begins; None: its agent keeps none."""
    config = configs.usable(run.rig.town.config, run.rig.config)[0]
    agent = boxes.agent_of(config, run)
    preset = _preset(agent)
    if agent is None or preset is None or not preset.sessions:
        return None
    part = part_of(run.kind, run.purpose)
    place = root() / (run.account_id or run.bead_id) / part / preset.name
    name, because = "", "sessions = fresh"
    if agent.sessions == Sessions.RESUME:
        name, because = _earlier(run, part, preset, boxed=not boxes.is_off(config))
    if name and not sessions.is_kept(place):
        name, because = "", "its session was not kept"
    return Going(place, preset.sessions, name, because)


def _preset(agent: AgentCommand | None) -> Preset | None:
    if agent is None or agent.preset is None:
        return None
    return PRESETS[str(agent.preset)]


def _earlier(run: Run, part: str, preset: Preset, *, boxed: bool) -> tuple[str, str]:
    """The session of the latest run of this part that named one: (its name, why it is not gone on with)."""
    ended = Run.objects.ended().filter(account=run.account_id or run.bead_id, kind=run.kind, claimed_at__isnull=False)
    recent = ended.defer("brief", "step_results").order_by("-created_at")[:20]
    latest = [one for one in recent if part_of(one.kind, one.purpose) == part]
    if not latest:
        return "", ""
    step = _step(run)
    if _step(latest[0]) != step:
        return "", "another preset or model"
    if not boxed and not preset.anywhere:
        return "", f"without a sandbox {preset.name} does not find it again"
    for one in latest[:_TRIED]:
        if one.resumed and one.outcome == RunOutcome.FAILED:
            return "", f"run {one.pk} has failed going on with it"
        if _step(one) == step and _NAME.fullmatch(one.session):
            return one.session, ""
    return "", "it has named none"


def _step(run: Run) -> tuple[str, str]:
    """Preset and model of a run's agent."""
    found = run.preset_step
    return str(found.get("preset") or ""), str(found.get("model") or "")


def keep(run: Run, home: Path) -> None:
    """Keep the session of an ended run whose shim could not."""
    if (told := going(run)) is not None:
        sessions.keep(home, told.place, told.parts)


def forget(beads: Iterable[str]) -> None:
    """Drop the sessions of these beads: they are archived."""
    for bead in beads:
        sessions.forget(root(), bead)


def forget_strays() -> int:
    """Drop the sessions of beads that are not here (any more); returns how many beads' that were."""
    if not root().is_dir():
        return 0
    names = {path.name for path in root().iterdir()}
    strays = names - set(Bead.objects.filter(pk__in=names).values_list("pk", flat=True))
    forget(strays)
    return len(strays)
