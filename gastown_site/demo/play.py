"""What the scripted model plays in the demo: real agents ask it, and each of its answers is a command for their shell.

The work itself is done by the demo's own scripts, which know their six tasks and two honest mistakes.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from gastown_site.rehearsal import Play, Turn
from gastown_site.rehearsal.plays import is_refinery, script
from gastown_site.rehearsal.talk import Asked

HERE = Path(__file__).resolve().parent


def play(pace: str) -> Play:
    """The play. `pace`: the seconds for which the scripts let each of their steps be seen."""

    def turn(asked: Asked) -> Turn:
        name = "polecat.py"
        if is_refinery(asked):
            name = "refinery.py"
        act = f"DEMO_PACE={shlex.quote(pace)} {shlex.quote(sys.executable)} {shlex.quote(str(HERE / name))}"
        return script(asked, ["gt prime | head -c 2000", act], "That is all that I was asked for.")

    return turn
