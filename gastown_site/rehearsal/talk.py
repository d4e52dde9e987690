"""What every API's requests and answers come down to: who asks with which tools, and what the model does next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROMPT = re.compile("How to talk to Gastown|in this very session of Gastown")  # each prompt of a run says one of them
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
    """One request. `prompt`: what the user has said since the last prompt of a run; `results`: what tools have answered
    since, in order; `earlier`: how many prompts of runs came before it, in a session that goes on."""

    model: str
    stream: bool
    prompt: str
    results: Sequence[str] = ()
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name → JSON Schema of its arguments
    earlier: int = 0

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


class Heard:
    """A conversation as it is read: what was said and answered since the last prompt of a run."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.results: list[str] = []
        self.prompts = 0

    def say(self, text: str) -> None:
        """The user says something."""
        if PROMPT.search(text):
            self.said, self.results, self.prompts = [], [], self.prompts + 1
        self.said.append(text)

    def result(self, text: str) -> None:
        """A tool has answered."""
        self.results.append(text)

    def asked(self, model: str, stream: bool, tools: Mapping[str, Mapping[str, Any]]) -> Asked:
        """What it comes down to."""
        return Asked(model, stream, "\n".join(self.said), tuple(self.results), tools, max(self.prompts - 1, 0))


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
