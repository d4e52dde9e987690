"""Beads as lines of JSON, as `bd` (github.com/steveyegge/beads) writes and reads them. Pure.

Its fields are those of bd's `Issue`; what only Gastown knows is in the field `gastown`, which bd leaves alone.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beads.errors import Invalid
from beads.ledger import MAX_BODY, MAX_TITLE
from beads.lifecycle import BeadStatus, Resolution
from beads.models import Bead

MAX_LINES = 10_000
MAX_LINE = 1 << 20  # bytes
BLOCKS = "blocks"  # the one kind of dependency that orders work
EPIC = "epic"
OVER = ("closed", "tombstone")
_STATUS = {
    BeadStatus.OPEN: "open",
    BeadStatus.IN_PROGRESS: "in_progress",
    BeadStatus.IN_REVIEW: "in_progress",
    BeadStatus.CLOSED: "closed",
    BeadStatus.FAILED: "blocked",  # it waits for a person; bd has no word for it
}
_SECTIONS = (("design", "Design"), ("acceptance_criteria", "Acceptance criteria"), ("notes", "Notes"))


def line(bead: Bead, blockers: Sequence[str]) -> str:
    """A bead as a line, without its end. `blockers`: the beads that it waits for."""
    status = _STATUS[BeadStatus(bead.status)]
    if bead.resolution == Resolution.CANCELLED:
        status = "closed"
    told: dict[str, Any] = {
        "id": bead.pk,
        "title": bead.title,
        "description": bead.body,
        "status": status,
        "priority": bead.priority,
        "issue_type": "task",
        "created_at": _when(bead.created_at),
        "updated_at": _when(bead.updated_at),
    }
    if status == "closed":  # bd wants the time exactly then
        told |= {"closed_at": _when(bead.closed_at or bead.updated_at), "close_reason": bead.reason or bead.resolution}
    if blockers:
        edge = {"issue_id": bead.pk, "type": BLOCKS, "created_at": told["created_at"], "created_by": bead.created_by}
        told["dependencies"] = [edge | {"depends_on_id": key} for key in blockers]
    told["gastown"] = {
        "rig": bead.rig.slug if bead.rig else "",
        "convoy": bead.convoy_id or "",
        "status": bead.status,
        "resolution": bead.resolution,
        "merge_sha": bead.merge_sha,
        "reason": bead.reason,
        "model": bead.model,
    }
    return json.dumps(told, ensure_ascii=False)


def _when(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


# -- reading ----------------------------------------------------------------------------------------------------------

_Text = Annotated[str, Field(max_length=MAX_BODY)]


class _Edge(BaseModel):
    model_config = ConfigDict(strict=True)

    depends_on_id: Annotated[str, Field(min_length=1, max_length=200)]
    type: str = BLOCKS


class _Own(BaseModel):
    rig: Annotated[str, Field(max_length=50)] = ""
    model: Annotated[str, Field(max_length=200)] = ""


class _Issue(BaseModel):
    model_config = ConfigDict(strict=True)

    id: Annotated[str, Field(min_length=1, max_length=200)]
    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)]
    description: _Text = ""
    design: _Text = ""
    acceptance_criteria: _Text = ""
    notes: _Text = ""
    status: str = "open"
    priority: Annotated[int, Field(ge=0, le=4)] = 2
    issue_type: str = "task"
    external_ref: Annotated[str, Field(max_length=200)] | None = None
    dependencies: Annotated[list[_Edge], Field(max_length=1000)] = []
    gastown: _Own = _Own()


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work that a file holds. `over`: nothing is left to do. `after`: ids of the same file. `rig`: its
    slug where the file names one; `model`: the one that it is to be worked on with, likewise."""

    id: str
    title: str
    body: str
    priority: int
    over: bool
    after: tuple[str, ...]
    rig: str = ""
    model: str = ""


def read(source: str, lines: Iterable[bytes]) -> list[Item]:
    """The work in a file, blockers before what waits for them. Epics, which only hold others, are no work.

    Raises Invalid naming the file's line and the field: nothing of such a file is taken.
    """
    found: dict[str, Item] = {}
    epics = set()
    for number, raw in enumerate(lines, 1):
        where = f"{source}: line {number}"
        if number > MAX_LINES:
            raise Invalid(f"{source}: at most {MAX_LINES} lines: take it in by parts", field="file")
        if not raw.strip():
            continue
        if len(raw) > MAX_LINE:
            raise Invalid(f"{where}: longer than {MAX_LINE >> 20} MiB", field="file")
        issue = _issue(where, raw)
        if issue.id in found or issue.id in epics:
            raise Invalid(f"{where}: id {issue.id!r} is there twice", field="id")
        if issue.issue_type == EPIC:
            epics.add(issue.id)
            continue
        after = [edge.depends_on_id for edge in issue.dependencies if edge.type == BLOCKS]
        said = (issue.id, issue.title, _body(where, issue), issue.priority)
        found[issue.id] = Item(*said, issue.status in OVER, tuple(after), issue.gastown.rig, issue.gastown.model)
    return list(_in_order(source, found))


def _issue(where: str, raw: bytes) -> _Issue:
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{where}: no JSON: {str(error)[:200]}", field="file") from error
    if not isinstance(told, dict):
        raise Invalid(f"{where}: a JSON object is wanted: one issue a line", field="file")
    try:
        return _Issue.model_validate({name: value for name, value in told.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{where}: {field}: {first['msg']}", field=field) from error


def _body(where: str, issue: _Issue) -> str:
    parts = [issue.description]
    parts += [f"## {title}\n\n{text}" for name, title in _SECTIONS if (text := getattr(issue, name))]
    if issue.external_ref:
        parts.append(f"(From {issue.external_ref}.)")
    whole = "\n\n".join(part for part in parts if part)
    if len(whole) > MAX_BODY:
        raise Invalid(f"{where}: longer than {MAX_BODY} characters with its design and notes", field="description")
    return whole


def _in_order(source: str, items: dict[str, Item]) -> Iterator[Item]:
    """Every item after those that it waits for. Raises Invalid with the path of a cycle."""
    done: set[str] = set()
    for start in items:
        way: dict[str, None] = {}  # from the start to here, in order
        waiting = [(start, False)]
        while waiting:
            key, seen = waiting.pop()
            if seen:
                way.popitem()
                done.add(key)
                yield items[key]
            elif key in way:
                circle = list(way)[list(way).index(key) :]
                raise Invalid(f"{source}: dependency cycle: {' → '.join([*circle, key])}", field="dependencies")
            elif key not in done:
                way[key] = None
                waiting.append((key, True))
                waiting += [(one, False) for one in reversed(items[key].after) if one in items]
