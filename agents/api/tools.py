"""The tool registry: one definition serves HTTP, `GET /api/tools`, OpenAPI, MCP and `gt` (ADR 26).

A call runs in one transaction that locks its run first, so it is ordered with the run's exit report: what comes after
the end is refused and changes nothing. Tools record facts, write observations, or make new rows; none moves a status.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from django.db import transaction
from django.db.models import QuerySet
from pydantic import BaseModel, ConfigDict

from agents import mail, runs
from agents.lifecycle import Role, RunState
from agents.models import Run, ToolCall
from beads import inbox, prune
from beads.errors import Conflict, Forbidden, GastownError, Invalid, NotFound
from beads.models import Town

ALL = frozenset({Role.POLECAT, Role.REFINERY, Role.MAYOR})
CALLS_PER_MINUTE = 300
MAX_DEPTH = 50


class Args(BaseModel):
    """Base of a tool's arguments: unknown ones are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoArgs(Args):
    """A tool without arguments."""


@dataclass(frozen=True)
class Call:
    """One call: who, and when. The arguments are passed beside it."""

    run: Run
    now: dt.datetime


Handler = Callable[[Call, Any], dict[str, Any]]


@dataclass(frozen=True)
class Tool:
    """A tool's one definition. `reads`: it changes nothing, so asking again does no harm."""

    name: str
    roles: frozenset[Role]
    args: type[Args]
    handler: Handler
    doc: str
    reads: bool = False


REGISTRY: dict[str, Tool] = {}


def tool(
    name: str, roles: frozenset[Role], args: type[Args] = NoArgs, *, reads: bool = False
) -> Callable[[Handler], Handler]:
    """Register the decorated handler; its docstring is the tool's description. From this one definition come the HTTP
    endpoint, its entry in OpenAPI, the tool of MCP (`agents.api.mcp`) and the command of `gt` (`agents.api.commands`).
    """

    def register(handler: Handler) -> Handler:
        REGISTRY[name] = Tool(name, roles, args, handler, inspect.cleandoc(handler.__doc__ or ""), reads)
        return handler

    return register


def describe() -> list[dict[str, Any]]:
    """All tools with their JSON Schema."""
    return [
        {
            "name": t.name,
            "description": t.doc,
            "roles": sorted(t.roles),
            "input_schema": t.args.model_json_schema(),
        }
        for t in sorted(REGISTRY.values(), key=lambda t: t.name)
    ]


def call(name: str, run: Run, body: object, now: dt.datetime, key: str | None = None) -> tuple[int, dict[str, Any]]:
    """Run one tool for a live run; returns HTTP status and data. Raises GastownError.

    With an idempotency key the first answer is kept and given again; the key with another body is a conflict. What is
    refused for a limit changes nothing, but a person hears of it, once for each run and limit.
    """
    try:
        return _call(name, run, body, now, key)
    except LimitReached as error:
        told = {"limit": error.limit, "message": error.message}
        inbox.record(run.town, "limit.reached", run.pk, told, actor="gastown", dedupe_key=f"{run.pk}:{error.limit}")
        raise


def _call(name: str, run: Run, body: object, now: dt.datetime, key: str | None) -> tuple[int, dict[str, Any]]:
    found = REGISTRY.get(name)
    if found is None:
        raise NotFound(f"no tool {name}", details={"tools": sorted(REGISTRY)})
    if run.kind not in found.roles:
        raise Forbidden(f"{name} is not a tool of a {run.kind}", details={"roles": sorted(found.roles)})
    args = parse(found.args, body)
    with transaction.atomic():
        held = runs.hold(run.pk)
        mark = hashlib.sha256(json.dumps([name, body], sort_keys=True).encode()).hexdigest()
        if key is not None:
            earlier = ToolCall.objects.filter(run=held, key=key).first()
            if earlier is not None:
                if earlier.request_hash != mark:
                    raise Conflict(
                        "this Idempotency-Key was used for another call", details={"field": "Idempotency-Key"}
                    )
                return earlier.status, dict(earlier.response)
        data = found.handler(Call(held, now), args)
        runs.touch(held, now)
        if held.agent is not None:
            nudges = mail.take_nudges(held, now)
            if nudges:
                data = {**data, "nudges": nudges}
        kept = {} if key is None else data
        ToolCall.objects.create(run=held, key=key, tool=name, request_hash=mark, status=200, response=kept)
    return 200, data


def parse(model: type[BaseModel], body: object) -> Any:
    """Check a JSON object against a model. Raises Invalid naming the field."""
    if not isinstance(body, Mapping):
        raise Invalid("the body must be a JSON object", field="body")
    _refuse_unstorable(body, "")
    try:
        return model.model_validate(dict(body))
    except pydantic.ValidationError as error:
        problems = [
            {"field": ".".join(str(p) for p in e["loc"]), "why": str(e["msg"]).removeprefix("Value error, ")}
            for e in error.errors(include_url=False)
        ]
        first = problems[0]
        details = {"field": first["field"], "problems": problems[:20]}
        raise Invalid(f"{first['field'] or 'body'}: {first['why']}", details=details) from None


def _refuse_unstorable(value: object, where: str, depth: int = 0) -> None:
    """PostgreSQL stores no NUL bytes, lone surrogates or infinite numbers: refuse them by field."""
    if isinstance(value, str):
        if "\x00" in value:
            raise Invalid(f"{where or 'body'}: contains a NUL byte", field=where)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{where or 'body'}: contains a lone surrogate", field=where) from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(f"{where or 'body'}: a number out of range", field=where)
    elif isinstance(value, Mapping | list):
        if depth >= MAX_DEPTH:
            raise Invalid(f"{where[:100]}: nested deeper than {MAX_DEPTH} levels", field=where[:100])
        items = value.items() if isinstance(value, Mapping) else ((f"[{n}]", item) for n, item in enumerate(value))
        for key, item in items:
            if isinstance(value, Mapping):
                _refuse_unstorable(key, where or "body")
            dot = "." if where and isinstance(value, Mapping) else ""
            _refuse_unstorable(item, f"{where}{dot}{key}", depth + 1)


class Throttled(GastownError):
    """Too many calls."""

    code = "throttled"


class LimitReached(Throttled):
    """More than `[limits]` allows. `limit` is the config's key, such as `limits.beads_per_run`."""

    code = "limit_reached"

    def __init__(self, limit: str, value: int, message: str) -> None:
        super().__init__(message, details={"limit": limit, "value": value})
        self.limit = limit


def past(town: Town, before: dt.datetime) -> QuerySet[ToolCall]:
    """The answered calls of runs that ended before then: nobody asks for these answers again."""
    return ToolCall.objects.filter(run__town=town, run__state=RunState.ENDED, run__ended_at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these calls: they have been archived."""
    return prune.some(ToolCall.objects.all(), keys)
