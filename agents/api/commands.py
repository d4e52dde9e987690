"""The registry as `gt` knows it: each tool a command, with the arguments of its schema. JSON-able."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agents.api import tools

OURS = frozenset({"json", "file", "wait", "help"})  # options of `gt` itself: no tool has an argument of that name


def table() -> list[dict[str, Any]]:
    """All tools, by name: `words` is the command, `text` the argument that a file or the last bare word is for."""
    names = sorted(tools.REGISTRY)
    groups = {word for word, count in Counter(name.split("_")[1] for name in names).items() if count > 1}
    return [_command(tools.REGISTRY[name], groups) for name in names]


def _command(tool: tools.Tool, groups: set[str]) -> dict[str, Any]:
    first, *rest = tool.name.split("_")[1:]
    words = f"{first} {'-'.join(rest)}" if first in groups else "-".join([first, *rest])
    schema = tool.args.model_json_schema()
    needed = set(schema.get("required") or ())
    fields = [_field(name, part, name in needed) for name, part in (schema.get("properties") or {}).items()]
    assert not OURS & {field["name"] for field in fields}, tool.name
    return {
        "name": tool.name,
        "words": words,
        "roles": sorted(tool.roles),
        "reads": tool.reads,
        "doc": tool.doc,
        "args": fields,
        "text": _text(schema.get("properties") or {}),
    }


def _field(name: str, part: dict[str, Any], needed: bool) -> dict[str, Any]:
    """One argument. What may be null has the kind of what it is otherwise."""
    given = next((one for one in part.get("anyOf") or [part] if one.get("type") != "null"), part)
    return {"name": name, "kind": _kind(given), "required": needed, "choices": list(given.get("enum") or ())}


def _kind(given: dict[str, Any]) -> str:
    kind = given.get("type")
    if kind == "array" and given.get("items", {}).get("type") == "string":
        return "words"
    return {"string": "text", "integer": "number", "boolean": "flag"}.get(str(kind), "json")


def _text(properties: dict[str, Any]) -> str:
    """Of the texts the one that may be longest; empty where there is none."""
    texts = {name: part for name, part in properties.items() if part.get("type") == "string"}
    longest = {name: int(part.get("maxLength") or 0) for name, part in texts.items()}
    return max(longest, key=lambda name: longest[name]) if any(longest.values()) else ""
