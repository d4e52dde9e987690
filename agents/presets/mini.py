"""mini-swe-agent. Measured with 2.4.6 from PyPI.

It takes its task as an argument only, has no sessions and no MCP, and prints decorated text. What it has used stands in
the trajectory that it leaves: the start ends with a line of JSON from there, which `parse` reads.
"""

from __future__ import annotations

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


PRESET = Preset(
    name="mini",
    program="mini",
    install="pipx install mini-swe-agent",
    start=_start,
    parse=_parse,
    needs_model=True,
    version="--help",
)
