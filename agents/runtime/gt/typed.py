"""What was typed after `gt`: a command's arguments, by the table that the server has written."""

from __future__ import annotations

import json
import sys

from .wire import Failed

TYPE_CHECKING = False  # the module that has it takes as long to import as all of this
if TYPE_CHECKING:
    from typing import Any

    Tool = dict[str, Any]  # of the table: name, words, roles, reads, doc, args, text
    Field = dict[str, Any]  # of `args`: name, kind, required, choices

ASK_SECONDS = 600.0


class Wrong(Exception):
    """Wrong use: exit code 2."""


def chosen(table: list[Tool], words: list[str]) -> tuple[Tool, list[str]]:
    """The tool that the first words name, and the rest of them. `mail send`, `mail-send` and `mail_send` are one."""
    names = {tool["name"]: tool for tool in table}
    for count in range(min(3, len(words)), 0, -1):
        tool = names.get("gt_" + "_".join(words[:count]).replace("-", "_").replace("gt_", ""))
        if tool is not None:
            return tool, words[count:]
    told = "".join(words[:1])
    group = [tool["words"] for tool in table if tool["words"].startswith(f"{told} ")]
    if told and group:
        raise Wrong(f"gt {told}: say which: {', '.join(group)}")
    raise Wrong(f"there is no command {told!r}: see gt help")


def text_of(place: str) -> str:
    """A file's text; `-`: the standard input's."""
    try:
        if place == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        with open(place, encoding="utf-8") as handle:
            return handle.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{place} cannot be read: {error}") from None


def value_of(field: Field, given: str) -> Any:
    """A typed word as a value of the field's kind; `-`: the standard input. Raises Wrong, which names the option."""
    kind = field["kind"]
    if given == "-" and kind in ("text", "json"):
        given = text_of("-")
    if kind == "number":
        try:
            return int(given)
        except ValueError:
            raise Wrong(f"--{flag(field)} is a number, not {given!r}") from None
    if kind == "json":
        try:
            return json.loads(given)
        except ValueError as error:
            raise Wrong(f"--{flag(field)} is no JSON: {error}") from None
    if field["choices"] and given not in field["choices"]:
        raise Wrong(f"--{flag(field)} is one of {', '.join(field['choices'])}")
    return given


def flag(field: Field) -> str:
    """A field's name as an option has it."""
    return str(field["name"]).replace("_", "-")


class Typed:
    """What was typed after a command: the tool's arguments, and our own options."""

    def __init__(self, tool: Tool, words: list[str]) -> None:
        self.tool = tool
        self.fields = {flag(field): field for field in tool["args"]}
        self.arguments: dict[str, Any] = {}
        self.json = self.help = False
        self.wait = 0.0
        ordered = [field for field in tool["args"] if field["required"]]
        ordered += [field for field in tool["args"] if field["name"] == tool["text"] and field not in ordered]
        self.places = [field for field in ordered if field["kind"] != "flag"]
        words = list(words)
        while words:
            self.take(words.pop(0), words)
        missing = [field for field in tool["args"] if field["required"] and field["name"] not in self.arguments]
        if missing and not self.help:
            raise Wrong(f"gt {tool['words']}: {missing[0]['name']} is missing; see gt help {tool['words']}")

    def take(self, word: str, words: list[str]) -> None:
        """One word, and of `words` what belongs to it."""
        if word == "--":
            while words:
                self.put(words.pop(0))
        elif not word.startswith("-") or word == "-":
            self.put(word)
        elif word in ("-h", "--help"):
            self.help = True
        elif word == "--json":
            self.json = True
        elif word.partition("=")[0] == "--wait" and self.tool["name"] == "gt_ask":
            self.wait = ASK_SECONDS
            told = word.partition("=")[2]
            if not told and words and words[0].isdigit():
                told = words.pop(0)
            if told:
                self.wait = float(value_of({"name": "wait", "kind": "number"}, told))
        elif word.partition("=")[0] == "--file":
            self.read(text_of(self.after(word, words)))
        else:
            self.option(word, words)

    def option(self, word: str, words: list[str]) -> None:
        """An option that is a field of the tool."""
        field = self.fields.get(word.partition("=")[0].lstrip("-"))
        if field is None:
            words_of = self.tool["words"]
            raise Wrong(f"gt {words_of}: there is no {word.partition('=')[0]}; see gt help {words_of}")
        if field["kind"] == "flag":
            self.arguments[field["name"]] = True
            return
        value = value_of(field, self.after(word, words))
        if field["kind"] == "words":
            self.arguments.setdefault(field["name"], []).append(value)
        else:
            self.arguments[field["name"]] = value

    def after(self, word: str, words: list[str]) -> str:
        """The value that an option has."""
        name, equals, value = word.partition("=")
        if equals:
            return value
        if not words:
            raise Wrong(f"{name} needs a value")
        return words.pop(0)

    def put(self, word: str) -> None:
        """A word without an option: the next field that has none yet."""
        field = next((one for one in self.places if one["name"] not in self.arguments), None)
        if field is None:
            raise Wrong(f"gt {self.tool['words']}: what is {word!r} for? Put quotes around a text of several words")
        self.arguments[field["name"]] = value_of(field, word)
        if field["kind"] == "words":
            self.arguments[field["name"]] = [value_of(field, word)]

    def read(self, text: str) -> None:
        """A file's content: a JSON object of arguments, or the text."""
        told = None
        if text.lstrip().startswith("{"):
            try:
                told = json.loads(text)
            except ValueError as error:
                raise Wrong(f"--file: it begins like a JSON object and is none: {error}") from None
        if told is not None:
            self.arguments.update(told)
        elif self.tool["text"]:
            self.arguments[self.tool["text"]] = text
        else:
            raise Wrong(f"gt {self.tool['words']}: --file is to be a JSON object")
