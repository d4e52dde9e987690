"""mini-swe-agent. Measured with 2.4.6 from PyPI.

It takes its task as an argument only, has no sessions and no MCP, and prints decorated text, wrapped at 80 columns.
What it has used stands in the trajectory that it leaves: the start ends with a line of JSON from there, which `parse`
reads. The text is read by its headings and fences, one step after the other: words, a command, its result.
"""

from __future__ import annotations

import re
from dataclasses import replace

from agents.presets.base import (
    Event,
    EventKind,
    Launch,
    Preset,
    Start,
    less,
    money,
    record,
    table,
    usage,
)

_PLACE = ".mini/trajectory.json"
# the kernel takes no argument of more than 128 KiB: a longer task is read from its file. The trajectory is told of by
# mini's own Python, which is its interpreter.
_RUN = r"""
out=$1; shift
if [ "$(wc -c < "$GASTOWN_PROMPT_FILE")" -lt 100000 ]; then task=$(cat "$GASTOWN_PROMPT_FILE")
else task="Your task is in the file $GASTOWN_PROMPT_FILE: read it in parts, and do what it says."; fi
"$@" --task "$task" < /dev/null; code=$?
python=$(sed -n '1s/^#!//p' "$1")
case $python in */python*) ;; *) python="${1%/*}/python" ;; esac
"$python" "$HOME/.mini/tell.py" "$out"
exit $code
"""
_TELL = '''"""One line of JSON from mini-swe-agent's trajectory: what its model has taken."""
import json, sys
try:
    told = json.load(open(sys.argv[1]))
except (OSError, ValueError):
    sys.exit()
taken = {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
for message in told.get("messages", []):
    used = ((message.get("extra") or {}).get("response") or {}).get("usage") or {}
    taken["prompt_tokens"] += used.get("prompt_tokens") or 0
    taken["completion_tokens"] += used.get("completion_tokens") or 0
    taken["cached_tokens"] += (used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
info = told.get("info", {})
model = ((info.get("config") or {}).get("model") or {}).get("model_name", "")
said = {"type": "mini.ended", "exit_status": info.get("exit_status", ""), "model": model}
print("\\n" + json.dumps({**said, "stats": info.get("model_stats") or {}, "usage": taken}))
'''
_GOOD = ("", "Submitted")


def _start(start: Start) -> Launch:
    out = f"{start.home}/{_PLACE}"
    argv = [*start.program, "--yolo", "--exit-immediately", "--cost-limit", "0", "--output", out]
    if start.model:
        argv += ["--model", start.model]
    env = {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_COST_TRACKING": "ignore_errors",  # it would end at a model whose price it does not know
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return Launch(("sh", "-c", _RUN, "mini", out, *argv), env, {".mini/tell.py": _TELL})


def _parse(line: str) -> tuple[Event, ...]:
    told = record(line)
    if told.get("type") != "mini.ended":
        return ()
    one, model = table(told.get("usage")), str(told.get("model") or "")
    cached = one.get("cached_tokens", 0)
    given = (less(one.get("prompt_tokens"), cached), cached, one.get("completion_tokens"))
    cost = money(table(told.get("stats")).get("instance_cost")) or None  # 0: a model whose price it does not know
    events = usage(given, cost=cost, model=model, total=True)
    status = str(told.get("exit_status") or "")
    return events if status in _GOOD else (Event(EventKind.ERROR, status), *events)


_STEP = re.compile(r"mini-swe-agent \(step \d+, \$[\d.]+\):")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOST = 64 << 10  # characters of one part that are kept


class _Reader:
    """What its screen shows, as events. The part that is open is told of when the next one begins."""

    def __init__(self) -> None:
        self.part = ""  # text, command, result; empty: what lies between them, which is not the agent's
        self.lines: list[str] = []
        self.room = _MOST
        self.outside: list[str] = []  # the last paragraph that is nobody's: why it has ended, where it ended badly
        self.fresh = True
        self.steps = 0
        self.quoted = False  # inside a fence that is a part of the text

    def __call__(self, line: str) -> tuple[Event, ...]:
        """The events of the next line: of the part that it ends."""
        shown = _COLOUR.sub("", line).rstrip()
        if _STEP.fullmatch(shown.strip()):
            told = self._turn("text")
            self.steps += 1
            return told
        if told := _parse(line):
            return (*self._turn(""), *(self._with_why(event) for event in told))
        if self.part == "text" and shown.startswith("```"):
            if shown == "```" and not self.quoted:
                return self._turn("command")
            self.quoted = shown != "```"
        elif self.part == "command" and shown == "```":
            return self._turn("")
        elif shown == "Tool:" and self.steps:
            return self._turn("result")
        elif self.part == "result" and (shown == "Exit:" or (shown and not shown.strip("─"))):
            return self._turn("")
        if self.part and self.room > 0:
            self.lines.append(shown[: self.room])
            self.room -= len(shown) + 1
        if not self.part:
            self._note(shown)
        return ()

    def _note(self, shown: str) -> None:
        """A line of nobody's."""
        if not shown or shown[0] in "╭│╰":
            self.fresh = True
        elif self.fresh:
            self.outside, self.fresh = [shown[:500]], False
        elif len(self.outside) < 20:
            self.outside.append(shown[:500])

    def _with_why(self, event: Event) -> Event:
        """Its last word is one name of an error: with what was printed of it."""
        why = " ".join(self.outside)
        if event.kind is EventKind.ERROR and why.startswith(event.text):
            return replace(event, text=why)
        return event

    def _turn(self, part: str) -> tuple[Event, ...]:
        """End the open part, and begin this one."""
        ended, text, call = self.part, "\n".join(self.lines).strip(), f"step-{self.steps}"
        self.part, self.lines, self.room, self.quoted = part, [], _MOST, False
        match ended:
            case "text" if text:
                return (Event(EventKind.TEXT, text),)
            case "command":
                return (Event(EventKind.CALL, tool="bash", call=call, arguments={"command": text}),)
            case "result":
                code, _, output = text.removeprefix("<returncode>").strip().partition("\n")
                output = output.strip().removeprefix("<output>").strip()
                return (Event(EventKind.RESULT, output, call=call, failed=code.strip() not in ("0", "-1")),)
        return ()


PRESET = Preset(
    name="mini",
    program="mini",
    install="pipx install mini-swe-agent",
    start=_start,
    parse=_parse,
    needs_model=True,
    version="--help",
    reader=_Reader,
)
