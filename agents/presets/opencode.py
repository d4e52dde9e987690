"""opencode, and what it shares with kilo, which comes from it. Measured with opencode-ai 1.18.33.

Usage is said step by step, without what was cached, and names no model. It would ask another model for a title, which
is not in the usage: with a title given it does not. What it tries again and again (a model that does not exist) stands
in its log alone, so its errors are printed.
"""

from __future__ import annotations

import json
from typing import Any

from agents.presets.base import (
    ANTHROPIC,
    PROVIDERS,
    Event,
    EventKind,
    Launch,
    Preset,
    Start,
    both,
    by_stdin,
    edits,
    mcp_url,
    money,
    record,
    table,
    usage,
)


def config(start: Start) -> dict[str, Any]:
    """Its config file: everything is allowed in here; the model's API, where it is elsewhere; our tools."""
    told: dict[str, Any] = {"permission": "allow", "autoupdate": False, "share": "disabled"}
    provider, _, model = start.model.partition("/")
    api = PROVIDERS.get(provider)
    if api is not None and model:
        options = {}
        if base := start.env.get(api.base_url_env, "").rstrip("/"):
            versioned = api.base_url_env != ANTHROPIC.base_url_env or base.endswith("/v1")
            options = {"baseURL": base if versioned else f"{base}/v1", "apiKey": f"{{env:{api.key}}}"}
        told["provider"] = {provider: {"options": options, "models": {model: {}}}}
    if start.tools:
        headers = {"Authorization": "Bearer {env:GASTOWN_TOKEN}"}
        told["mcp"] = {"gastown": {"type": "remote", "url": mcp_url(start), "enabled": True, "headers": headers}}
    return told


def launch(start: Start, name: str, place: str, *off: str) -> Launch:
    """The start of either. `name`: how its variables begin; `place`: its config file below HOME; `off`: what is
    switched off beside the list of models, updates and downloads of language servers."""
    argv = [*start.program, "run", "--format", "json", "--auto", "--title", "gastown"]
    argv += ["--print-logs", "--log-level", "ERROR"]
    if start.model:
        argv += ["--model", start.model]
    if start.session:
        argv += ["--session", start.session]
    env = {
        f"{name}_CONFIG": f"{start.home}/{place}",
        # without the internet it would wait for the list of models
        **{f"{name}_DISABLE_{what}": "1" for what in ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", *off)},
    }
    return Launch(by_stdin(*argv), env, {place: json.dumps(config(start), indent=1)})


_EDITS = {
    "edit": "filePath",
    "write": "filePath",
    "multiedit": "filePath",
    "apply_patch": "patchText",
    "patch": "patchText",
}


def parse(line: str) -> tuple[Event, ...]:
    """What a line of either says."""
    told = record(line)
    part = table(told.get("part"))
    match told.get("type"):
        case "step_start":
            return (Event(EventKind.SESSION, session=str(told.get("sessionID") or "")),)
        case "text":
            return (Event(EventKind.TEXT, str(part.get("text") or "")),)
        case "tool_use":
            state, call = table(part.get("state")), str(part.get("callID") or "")
            arguments = table(state.get("input"))
            tool, failed = str(part.get("tool") or ""), state.get("status") == "error"
            paths = edits(arguments, _EDITS.get(tool, ""))
            text = str(state.get("output") or state.get("error") or "")
            return (
                Event(EventKind.CALL, tool=tool, call=call, arguments=arguments, paths=paths),
                Event(EventKind.RESULT, text, call=call, failed=failed),
            )
        case "step_finish":
            one = table(part.get("tokens"))
            cache = table(one.get("cache"))
            output = both(one.get("output"), one.get("reasoning", 0))
            given = (both(one.get("input"), cache.get("write", 0)), cache.get("read", 0), output)
            return usage(given, cost=money(part.get("cost")) or None)  # 0: a model whose price it does not know
        case "error":
            error = table(told.get("error"))
            why = table(error.get("data")).get("message") or error.get("message") or error.get("name")
            return (Event(EventKind.ERROR, str(why or "")),)
    return ()


PRESET = Preset(
    name="opencode",
    program="opencode",
    install="npm install -g opencode-ai",
    start=lambda start: launch(start, "OPENCODE", ".config/gastown/opencode.json"),
    parse=parse,
    sessions=(".local/share/opencode/opencode.db", ".local/share/opencode/opencode.db-wal"),  # beside them: log-ins
    lost=r"Session not found|NotFoundError",
)
