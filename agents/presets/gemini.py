"""Gemini CLI. Measured with @google/gemini-cli 0.61.0.

Without a settled way to log in, another base URL makes it choose one that it then refuses (exit 41); and it works only
in folders that it is told to trust.
"""

from __future__ import annotations

import json
from typing import Any

from agents.presets.base import (
    GOOGLE,
    Event,
    EventKind,
    Launch,
    Preset,
    Start,
    by_stdin,
    edits,
    less,
    mcp_url,
    record,
    table,
    usage,
)


def _start(start: Start) -> Launch:
    argv = [*start.program, "--skip-trust", "--approval-mode", "yolo", "--output-format", "stream-json"]
    if start.model:
        argv += ["--model", start.model]
    if start.session:
        argv += ["--resume", start.session]
    settings: dict[str, Any] = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    if start.tools:
        headers = {"Authorization": "Bearer $GASTOWN_TOKEN"}
        settings["mcpServers"] = {"gastown": {"httpUrl": mcp_url(start), "headers": headers, "trust": True}}
    return Launch(by_stdin(*argv), {}, {".gemini/settings.json": json.dumps(settings, indent=1)})


_EDITS = {"write_file": "file_path", "replace": "file_path"}


def _parse(line: str) -> tuple[Event, ...]:
    told = record(line)
    match told.get("type"):
        case "init":
            return (Event(EventKind.SESSION, session=str(told.get("session_id") or "")),)
        case "message" if told.get("role") == "assistant":
            return (Event(EventKind.TEXT, str(told.get("content") or ""), more=told.get("delta") is True),)
        case "tool_use":
            tool, call = str(told.get("tool_name") or ""), str(told.get("tool_id") or "")
            arguments = table(told.get("parameters"))
            paths = edits(arguments, _EDITS.get(tool, ""))
            return (Event(EventKind.CALL, tool=tool, call=call, arguments=arguments, paths=paths),)
        case "tool_result":
            text = told.get("output") or table(told.get("error")).get("message")
            call, failed = str(told.get("tool_id") or ""), told.get("status") == "error"
            return (Event(EventKind.RESULT, str(text or ""), call=call, failed=failed),)
        case "error":
            return (Event(EventKind.ERROR, str(told.get("message") or "")),)
        case "result":
            return _ended(told)
    return ()


def _ended(told: dict[str, Any]) -> tuple[Event, ...]:
    events: list[Event] = []
    if told.get("status") == "error":
        events.append(Event(EventKind.ERROR, str(table(told.get("error")).get("message") or "")))
    for name, one in table(table(told.get("stats")).get("models")).items():
        cached = table(one).get("cached", 0)
        given = (less(table(one).get("input_tokens"), cached), cached, table(one).get("output_tokens"))
        events += usage(given, model=str(name), total=True)
    return tuple(events)


PRESET = Preset(
    name="gemini",
    program="gemini",
    install="npm install -g @google/gemini-cli",
    start=_start,
    parse=_parse,
    models=GOOGLE,
    sessions=(".gemini/tmp",),
    lost=r"Error resuming session",
)
