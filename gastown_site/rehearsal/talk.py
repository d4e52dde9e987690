"""What every API's requests and answers come down to: who asks with which tools, and what the model does next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHELLS = ("Bash", "bash", "exec_command", "shell_command", "shell", "run_shell_command", "local_shell", "execute")


@dataclass(frozen=True)
class Tokens:
    """Of one answer. `fresh`: input that was not cached."""

    fresh: int = 800
    cached: int = 500
    output: int = 40

    @property
    def input(self) -> int:
        """All of the input."""
        return self.fresh + self.cached


@dataclass(frozen=True)
class Asked:
    """One request. `prompt`: what the user has said; `results`: what tools have answered so far, in order."""

    model: str
    stream: bool
    prompt: str
    results: Sequence[str] = ()
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name → JSON Schema of its arguments

    @property
    def shell(self) -> str:
        """The tool that runs a command; an empty string: there is none, as where a title is asked for."""
        return next((name for name in SHELLS if name in self.tools), "")

    def arguments(self, command: str) -> dict[str, Any]:
        """The arguments of its shell for this command."""
        known: Mapping[str, Any] = self.tools[self.shell].get("properties") or {"command": {"type": "string"}}
        given: dict[str, Any] = {}
        for name in ("command", "cmd"):
            if name in known:
                words = known[name].get("type") == "array"
                given[name] = ["bash", "-lc", command] if words else command
                break
        if "description" in known:
            given["description"] = "One step of the task"
        return given


@dataclass(frozen=True)
class Turn:
    """What the model does next: says something, calls its shell, or a tool by name. `tokens`: what it has cost."""

    text: str = ""
    command: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tokens: Tokens = Tokens()

    def call(self, asked: Asked) -> tuple[str, dict[str, Any]] | None:
        """(tool, arguments) of its call; None when it has only words."""
        if self.command and asked.shell:
            return asked.shell, asked.arguments(self.command)
        return (self.tool, dict(self.arguments)) if self.tool in asked.tools and self.tool else None


def texts(value: object) -> Iterator[str]:
    """All text in a part of a request: a string, or blocks in lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in ("text", "content", "output"):
            yield from texts(value.get(key))
    elif isinstance(value, Sequence):
        for one in value:
            yield from texts(one)


def joined(value: object) -> str:
    """All text in a part of a request, a line each."""
    return "\n".join(texts(value))


def sse(data: Mapping[str, Any] | str, event: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()
