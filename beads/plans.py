"""Convoy plans: text or JSON → a checked list of beads. A cycle is refused with its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from beads import globs
from beads.config import parse_toml
from beads.errors import Invalid
from beads.ledger import MAX_BODY, MAX_TITLE, check_model, check_text
from beads.models import Rig

KEYS = {"key", "title", "body", "priority", "after", "rig", "files", "estimate", "model"}
MAX_BEADS = 200
MAX_FILES = 500  # patterns of a whole plan


def parse_text(text: str, source: str, home: Rig, find_rig: Callable[[str], Rig]) -> list[dict[str, Any]]:
    """Parse a TOML plan (`[[beads]]`)."""
    data = parse_toml(text, source)
    unknown = set(data) - {"beads"}
    if unknown:
        raise Invalid(f"{source}: unknown key {sorted(unknown)[0]}", field=sorted(unknown)[0])
    return parse(data.get("beads"), source, home, find_rig)


def parse(beads: object, source: str, home: Rig, find_rig: Callable[[str], Rig]) -> list[dict[str, Any]]:
    """Check a plan's beads; returns items of key, title, body, priority, after, rig (default `home`), model, files and
    estimate."""
    if not isinstance(beads, list) or not beads:
        raise Invalid(f"{source}: beads: a plan needs at least one bead", field="beads")
    if len(beads) > MAX_BEADS:
        raise Invalid(f"{source}: beads: at most {MAX_BEADS} beads, not {len(beads)}", field="beads")
    items = [_item(bead, f"{source}: beads[{number}]", home, find_rig) for number, bead in enumerate(beads)]
    keys = [item["key"] for item in items]
    for item in items:
        if keys.count(item["key"]) > 1:
            raise Invalid(f"{source}: key {item['key']!r} is used twice", field="key")
        for after in item["after"]:
            if after not in keys:
                raise Invalid(f"{source}: {item['key']}: after names no bead {after!r}", field="after")
    if (named := sum(len(item["files"]) for item in items)) > MAX_FILES:
        raise Invalid(f"{source}: files: at most {MAX_FILES} in a plan, not {named}", field="files")
    _refuse_cycle(items, source)
    return items


def _item(bead: object, where: str, home: Rig, find_rig: Callable[[str], Rig]) -> dict[str, Any]:
    if not isinstance(bead, Mapping):
        raise Invalid(f"{where}: expected a table", field="beads")
    unknown = sorted(set(bead) - KEYS)
    if unknown:
        raise Invalid(f"{where}: unknown key {unknown[0]}", field=unknown[0])
    for name in ("key", "title"):
        if not isinstance(bead.get(name), str):
            raise Invalid(f"{where}: {name} is missing or not text", field=name)
    priority, after = bead.get("priority", 2), bead.get("after", [])
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 4:
        raise Invalid(f"{where}: priority must be 0 to 4", field="priority")
    if not isinstance(after, Sequence) or isinstance(after, str) or not all(isinstance(a, str) for a in after):
        raise Invalid(f"{where}: after must be a list of keys", field="after")
    for name in ("body", "rig", "model"):
        if not isinstance(bead.get(name, ""), str):
            raise Invalid(f"{where}: {name} must be text", field=name)
    rig = home
    if bead.get("rig"):
        rig = find_rig(bead["rig"])
    if rig.town_id != home.town_id:
        raise Invalid(f"{where}: rig {rig.slug} belongs to another town", field="rig")
    return {
        "key": check_text(f"{where}: key", bead["key"], 100, required=True),
        "title": check_text(f"{where}: title", bead["title"], MAX_TITLE, required=True),
        "body": check_text(f"{where}: body", bead.get("body", ""), MAX_BODY),
        "priority": priority,
        "after": list(dict.fromkeys(after)),
        "rig": rig,
        "model": _model(where, bead.get("model", "")),
        **_foreseen(bead, where),
    }


def _model(where: str, name: str) -> str:
    try:
        return check_model(name)
    except Invalid as error:
        raise Invalid(f"{where}: {error.message}", field="model") from None


def _foreseen(bead: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a plan says of a bead's work beforehand: which files it changes, and how much it is."""
    files = bead.get("files", [])
    if not isinstance(files, Sequence) or isinstance(files, str) or not all(isinstance(one, str) for one in files):
        raise Invalid(f"{where}: files must be a list of paths or patterns", field="files")
    if not isinstance(bead.get("estimate", ""), str):
        raise Invalid(f"{where}: estimate must be text", field="estimate")
    return {
        "files": [check_text(f"{where}: files", one, 500, required=True) for one in dict.fromkeys(files)],
        "estimate": check_text(f"{where}: estimate", bead.get("estimate", ""), 100),
    }


def _refuse_cycle(items: Sequence[Mapping[str, Any]], source: str) -> None:
    after = {item["key"]: item["after"] for item in items}
    done: set[str] = set()
    for start in after:
        path: list[str] = []

        def walk(key: str, path: list[str] = path) -> None:
            if key in path:
                cycle = [*path[path.index(key) :], key]
                raise Invalid(
                    f"{source}: dependency cycle: {' → '.join(cycle)}", field="after", details={"path": cycle}
                )
            if key in done:
                return
            path.append(key)
            for other in after[key]:
                walk(other)
            path.pop()
            done.add(key)

        walk(start)


def waves(after: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Keys by wave: each wave depends only on earlier ones."""
    left = dict(after)
    result: list[list[str]] = []
    done: set[str] = set()
    while left:
        wave = [key for key, blockers in left.items() if all(b in done or b not in after for b in blockers)]
        if not wave:
            return [*result, list(left)]
        result.append(wave)
        done.update(wave)
        for key in wave:
            del left[key]
    return result


@dataclass(frozen=True, slots=True)
class Touches:
    """What a bead of a plan will change: patterns of files in a rig, and the beads that it comes after."""

    rig: int | None
    files: tuple[str, ...]
    after: tuple[str, ...]


def clashes(beads: Mapping[str, Touches]) -> list[tuple[str, str, list[str]]]:
    """Pairs of beads that may be worked on at once and will change the same files: (one, other, patterns).

    Foreseen from what the plan says, so a hint: what really conflicts is shown by git.
    """
    before: dict[str, set[str]] = {}

    def ahead(key: str) -> set[str]:
        """All beads that come before one."""
        if key not in before:
            before[key] = set()  # a circle ends here
            near = [b for b in beads[key].after if b in beads]
            before[key] = set(near).union(*(ahead(b) for b in near))
        return before[key]

    found = []
    for one, other in combinations((key for key, bead in beads.items() if bead.files), 2):
        if beads[one].rig != beads[other].rig or one in ahead(other) or other in ahead(one):
            continue
        pairs = ((a, b) for a in beads[one].files for b in beads[other].files)
        if same := [a for a, b in pairs if globs.matches([a], b) or globs.matches([b], a)]:
            found.append((one, other, list(dict.fromkeys(same))))
    return found
