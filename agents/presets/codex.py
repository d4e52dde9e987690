"""Codex. Measured with @openai/codex 0.169.0.

Its own sandbox would make `.git` read-only and cut off the network: it is inside ours, and goes without. The API is
said as a provider of its own, for `OPENAI_API_KEY` alone is no log-in to it. `CODEX_HOME` stays `~/.codex`: it wants
none below /tmp. Usage includes what was cached, names no model and no cost, and comes once a turn.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from agents.presets.base import (
    OPENAI,
    Event,
    EventKind,
    Launch,
    Preset,
    Start,
    by_stdin,
    less,
    mcp_url,
    record,
    rows,
    table,
    usage,
)


def _start(start: Start) -> Launch:
    argv = [*start.program, "exec", *(["resume", start.session] if start.session else [])]
    argv += ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    if start.model:
        argv += ["-m", start.model]
    base = start.env.get(OPENAI.base_url_env, "")
    if base or start.has(OPENAI.key):
        told = {
            "name": "OpenAI",
            "base_url": base or OPENAI.url,
            "env_key": OPENAI.key,
            "wire_api": "responses",
        }
        argv += ["-c", "model_provider=gastown"]
        argv += [word for key, value in told.items() for word in _set(f"model_providers.gastown.{key}", value)]
    if start.tools:
        argv += _set("mcp_servers.gastown.url", mcp_url(start))
        argv += _set("mcp_servers.gastown.bearer_token_env_var", "GASTOWN_TOKEN")
    argv += ["-c", "check_for_update_on_startup=false", "-"]
    return Launch(by_stdin(*argv))


def _set(key: str, value: str) -> list[str]:
    """One key of its config; a JSON string is one of TOML."""
    return ["-c", f"{key}={json.dumps(value)}"]


def _parse(line: str) -> tuple[Event, ...]:
    told = record(line)
    match told.get("type"):
        case "thread.started":
            return (Event(EventKind.SESSION, session=str(told.get("thread_id") or "")),)
        case "item.started" | "item.completed":
            return _item(table(told.get("item")), told["type"] == "item.completed")
        case "turn.completed":
            one = table(told.get("usage"))
            cached = one.get("cached_input_tokens", 0)
            return usage((less(one.get("input_tokens"), cached), cached, one.get("output_tokens")))
        case "turn.failed":
            return (Event(EventKind.ERROR, str(table(told.get("error")).get("message") or "")),)
        case "error":
            return (Event(EventKind.ERROR, str(told.get("message") or "")),)
    return ()


def _item(item: dict[str, Any], done: bool) -> tuple[Event, ...]:
    call = str(item.get("id") or "")
    match item.get("type"):
        case "agent_message" if done:
            return (Event(EventKind.TEXT, str(item.get("text") or "")),)
        case "command_execution" if done:
            text, failed = str(item.get("aggregated_output") or ""), item.get("status") == "failed"
            return (Event(EventKind.RESULT, text, call=call, failed=failed),)
        case "command_execution":
            arguments = {"command": str(item.get("command") or "")}
            return (Event(EventKind.CALL, tool="exec_command", call=call, arguments=arguments),)
        case "mcp_tool_call" if done:
            text, failed = str(item.get("result") or item.get("error") or ""), item.get("status") == "failed"
            return (Event(EventKind.RESULT, text, call=call, failed=failed),)
        case "file_change" if done:
            status = str(item.get("status") or "")
            return (Event(EventKind.RESULT, status, call=call, failed=status == "failed"),)
        case "file_change":
            changed = {str(one.get("path") or ""): str(one.get("kind") or "") for one in rows(item.get("changes"))}
            return (Event(EventKind.CALL, tool="apply_patch", call=call, arguments=changed, paths=tuple(changed)),)
        case "mcp_tool_call":
            arguments = table(item.get("arguments"))
            return (Event(EventKind.CALL, tool=str(item.get("tool") or ""), call=call, arguments=arguments),)
    return ()  # an item `error` is a remark: what ends the turn says so itself


PRESET = Preset(
    name="codex",
    program="codex",
    install="npm install -g @openai/codex",
    start=_start,
    parse=_parse,
    models=dataclasses.replace(OPENAI, also=("CODEX_API_KEY",)),
    adds_up=True,
    sessions=(".codex/sessions",),
    lost=r"no rollout found for thread id|thread/resume failed",
    anywhere=True,
)
