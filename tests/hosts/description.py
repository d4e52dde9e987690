"""GitHub's own description of its API (`make hosts`): each request of ours and each answer of the tests' GitHub is held
against it. Without the file nothing is judged, and the tests that are about it are skipped."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

FOLDER = Path(__file__).parents[2] / ".hosts"
DESCRIPTION, EXAMPLES = FOLDER / "api.github.com.json", FOLDER / "webhooks.json"
needed = pytest.mark.skipif(not DESCRIPTION.exists(), reason="GitHub's description is not here: make hosts")
examples_needed = pytest.mark.skipif(not EXAMPLES.exists(), reason="GitHub's examples are not here: make hosts")


@functools.cache
def described() -> dict[str, Any] | None:
    """The whole description, its OpenAPI 3.0 `nullable` put as JSON Schema says it; None when it is not here."""
    if not DESCRIPTION.exists():
        return None
    whole: dict[str, Any] = json.loads(DESCRIPTION.read_text())
    return {"paths": _plain(whole["paths"]), "components": _plain(whole["components"])}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {key: _plain(one) for key, one in value.items() if key not in ("example", "examples")}
    if told.pop("nullable", None) is not True:
        return told
    if isinstance(told.get("type"), str) and "enum" not in told:
        return told | {"type": [told["type"], "null"]}
    return {"anyOf": [told, {"type": "null"}]}


@functools.cache
def _registry() -> Registry[Any]:
    known = described()
    assert known is not None
    registry: Registry[Any] = Registry()
    made: Registry[Any] = registry.with_resource("github", DRAFT202012.create_resource(known))
    return made


@functools.cache
def _routes() -> list[tuple[re.Pattern[str], str]]:
    known = described()
    assert known is not None
    found = []
    for path in sorted(known["paths"], key=lambda p: p.count("{")):
        found.append((re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(path))), path))
    return found


def _operation(method: str, path: str) -> dict[str, Any] | None:
    known = described()
    assert known is not None
    for pattern, name in _routes():
        if pattern.fullmatch(path) and method.lower() in known["paths"][name]:
            found: dict[str, Any] = known["paths"][name][method.lower()]
            return found
    return None


def _wrong(schema: dict[str, Any], value: Any) -> list[str]:
    schema = json.loads(json.dumps(schema).replace('"#/components/', '"github#/components/'))
    errors = Draft202012Validator(schema, registry=_registry()).iter_errors(value)
    return [f"{'.'.join(map(str, e.absolute_path)) or 'it'}: {e.message[:200]}" for e in list(errors)[:5]]


def _schema(holder: Any) -> dict[str, Any] | None:
    content = (holder or {}).get("content") or {}
    found: dict[str, Any] | None = (content.get("application/json") or {}).get("schema")
    return found


def wrong_request(method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
    """What of a request GitHub does not know: its route, a parameter, its body."""
    if described() is None:
        return []
    operation = _operation(method, path)
    if operation is None:
        return [f"there is no {method} {path}"]
    known = described() or {}
    names = set()
    for parameter in operation.get("parameters", []):
        if "$ref" in parameter:
            parameter = known["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
        if parameter["in"] == "query":
            names.add(parameter["name"])
    found = [f"{method} {path}: it knows no parameter {name}" for name in query if name not in names]
    schema = _schema(operation.get("requestBody"))
    if schema is not None and body is not None:
        found += [f"{method} {path}: {line}" for line in _wrong(schema, body)]
        unknown = set(body) - set(schema.get("properties", body))
        found += [f"{method} {path}: it knows no field {name}" for name in sorted(unknown)]
    return found


def wrong_answer(method: str, path: str, status: int, body: Any) -> list[str]:
    """What of an answer is not as GitHub describes it."""
    if described() is None or status == 304:
        return []
    operation = _operation(method, path)
    if operation is None:
        return []
    answer = operation["responses"].get(str(status))
    if answer is None:
        return []  # errors are told of any route
    if "$ref" in answer:
        answer = (described() or {})["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = _schema(answer)
    return [f"{method} {path} {status}: {line}" for line in _wrong(schema, body)] if schema is not None else []
