"""Coding agents that Gastown knows how to start, one file each. Pure but for `find`; standard library only.

PRESETS["claude"].start(Start(…))       how a run of it is started: command, variables, files
PRESETS["claude"].parse(line)           what a line of its output means: events, usage among them
PRESETS["claude"].reading()             the same for one run's output from its first line on, where lines hang together
PRESETS["claude"].api(model)            the model's API: key, base URL's variable, host
find.find(PRESETS["claude"], PATH)      where it is on this machine, and what the sandbox has to show of it
"""

from agents.presets import claude, codex, gemini, kilo, mini, opencode
from agents.presets.base import Api, Bill, Event, EventKind, Launch, Preset, Start, Usage, bill

PRESETS: dict[str, Preset] = {one.PRESET.name: one.PRESET for one in (claude, codex, kilo, opencode, gemini, mini)}

__all__ = ["PRESETS", "Api", "Bill", "Event", "EventKind", "Launch", "Preset", "Start", "Usage", "bill"]
