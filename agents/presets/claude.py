"""Claude Code. Measured with @anthropic-ai/claude-code 2.1.197.

Its last line carries the bill, by model, and comes after `gt_done`: a run that is stopped before has none. Its lines
`assistant` repeat one message and count output as 1: `parse` takes no usage from them. A reader counts each message
once, so that something is known before the bill is there: input rightly, output too low. Sessions are kept by working
directory.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

from agents.presets.base import (
    ANTHROPIC,
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
    rows,
    table,
    usage,
    words,
)


def _start(start: Start) -> Launch:
    argv = [*start.program, "-p", "--dangerously-skip-permissions", "--output-format", "stream-json", "--verbose"]
    if start.model:
        argv += ["--model", start.model]
    if start.session:
        argv += ["--resume", start.session]
    if start.tools:
        server = {
            "type": "http",
            "url": mcp_url(start),
            "headers": {"Authorization": "Bearer ${GASTOWN_TOKEN}"},
        }
        argv += ["--mcp-config", json.dumps({"mcpServers": {"gastown": server}})]
    return Launch(
        by_stdin(*argv),
        {
            "IS_SANDBOX": "1",  # as root it refuses its permission mode otherwise
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    )


_EDITS = {"Edit": "file_path", "MultiEdit": "file_path", "Write": "file_path", "NotebookEdit": "notebook_path"}


def _parse(line: str) -> tuple[Event, ...]:
    return _events(record(line))


class _Reader:
    """As `_parse`, with what each message has taken as a piece of the bill, until the bill itself is there."""

    def __init__(self) -> None:
        self.seen: deque[str] = deque(maxlen=64)

    def __call__(self, line: str) -> tuple[Event, ...]:
        """The events of the next line."""
        told = record(line)
        if told.get("type") != "assistant":
            return _events(told)
        return (*_events(told), *self._taken(table(told.get("message"))))

    def _taken(self, message: dict[str, Any]) -> tuple[Event, ...]:
        name, one = str(message.get("id") or "")[:200], table(message.get("usage"))
        if not name or name in self.seen:
            return ()
        self.seen.append(name)
        fresh = _with_written(one, "input_tokens", "cache_creation_input_tokens")
        given = (fresh, one.get("cache_read_input_tokens", 0), one.get("output_tokens"))
        return usage(given, model=str(message.get("model") or ""))


def _events(told: dict[str, Any]) -> tuple[Event, ...]:
    match told.get("type"):
        case "system" if told.get("subtype") == "init":
            return (Event(EventKind.SESSION, session=str(told.get("session_id") or "")),)
        case "assistant":
            return tuple(event for block in rows(table(told.get("message")).get("content")) for event in _said(block))
        case "user":
            blocks = rows(table(told.get("message")).get("content"))
            return tuple(
                Event(
                    EventKind.RESULT,
                    words(b.get("content")),
                    call=str(b.get("tool_use_id") or ""),
                    failed=b.get("is_error") is True,
                )
                for b in blocks
                if b.get("type") == "tool_result"
            )
        case "result":
            return _ended(told)
    return ()


def _said(block: dict[str, Any]) -> tuple[Event, ...]:
    if block.get("type") == "text":
        return (Event(EventKind.TEXT, str(block.get("text") or "")),)
    if block.get("type") == "tool_use":
        name, call, arguments = str(block.get("name") or ""), str(block.get("id") or ""), table(block.get("input"))
        paths = edits(arguments, _EDITS.get(name, ""))
        return (Event(EventKind.CALL, tool=name, call=call, arguments=arguments, paths=paths),)
    return ()


def _ended(told: dict[str, Any]) -> tuple[Event, ...]:
    events: list[Event] = []
    if told.get("is_error"):
        events.append(Event(EventKind.ERROR, str(told.get("result") or told.get("subtype") or "")))
    models = table(told.get("modelUsage"))
    for name, one in models.items():
        fresh = _with_written(one, "inputTokens", "cacheCreationInputTokens")
        given = (fresh, table(one).get("cacheReadInputTokens"), table(one).get("outputTokens"))
        events += usage(given, cost=money(table(one).get("costUSD")), model=_plain(name), total=True)
    if not models:
        one = table(told.get("usage"))
        fresh = _with_written(one, "input_tokens", "cache_creation_input_tokens")
        given = (fresh, one.get("cache_read_input_tokens", 0), one.get("output_tokens"))
        events += usage(given, cost=money(told.get("total_cost_usd")), total=True)
    return tuple(events)


def _plain(name: str) -> str:
    """A model's name as messages say it: the bill adds its context's size, such as `claude-opus-4-6[1m]`."""
    return re.sub(r"\[\w+\]$", "", name)


def _with_written(one: object, fresh: str, written: str) -> object:
    """Input from no cache, with what was written into one."""
    return both(table(one).get(fresh), table(one).get(written, 0))


PRESET = Preset(
    name="claude",
    program="claude",
    install="npm install -g @anthropic-ai/claude-code",
    start=_start,
    parse=_parse,
    models=ANTHROPIC,
    sessions=(".claude/projects",),
    lost=r"No conversation found with session ID",
    reader=_Reader,
)
