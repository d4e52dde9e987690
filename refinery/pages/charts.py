"""Geometry of what the pages draw as inline SVG: dependency graphs, progress bars, charts. Pure; no colours here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 212, 58
GAP_X, GAP_Y, MARGIN, HEAD = 56, 16, 8, 24
MIN_ROWS = 6


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node is: its upper left corner."""

    id: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a blocker to what waits for it, as an SVG path."""

    start: str
    end: str
    path: str


@dataclass(frozen=True, slots=True)
class Column:
    """A wave's heading."""

    wave: int
    x: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A laid-out dependency graph."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    columns: tuple[Column, ...]


def graph(wave_of: Mapping[str, int], after: Mapping[str, Sequence[str]]) -> Graph:
    """Lay out nodes in waves from left to right; a large wave takes several columns.

    In a wave, a node stands near the middle of what it waits for, so that few lines cross. No line runs behind a box.
    """
    rows = max(MIN_ROWS, math.isqrt(len(wave_of)) + 1)
    place: dict[str, tuple[int, float]] = {}
    columns: list[Column] = []
    column = 0
    for wave in sorted(set(wave_of.values())):
        members = [key for key, number in wave_of.items() if number == wave]
        members.sort(key=lambda key: _pull(place, after.get(key, ())))
        columns.append(Column(wave, MARGIN + column * (NODE_WIDTH + GAP_X)))
        wide = math.ceil(len(members) / rows)
        tall = math.ceil(len(members) / wide)
        for number, key in enumerate(members):
            place[key] = (column + number // tall, number % tall)
        column += wide
    height = max((row for _, row in place.values()), default=0) + 1
    boxes = tuple(
        Box(key, MARGIN + col * (NODE_WIDTH + GAP_X), round(HEAD + MARGIN + row * (NODE_HEIGHT + GAP_Y)))
        for key, (col, row) in place.items()
    )
    at = {box.id: box for box in boxes}
    taken = set(place.values())
    edges = tuple(
        Edge(blocker, key, _line(at[blocker], at[key], place[blocker], place[key], taken))
        for key in place
        for blocker in after.get(key, ())
        if blocker in at
    )
    return Graph(
        width=2 * MARGIN + max(column, 1) * (NODE_WIDTH + GAP_X) - GAP_X,
        height=round(HEAD + 2 * MARGIN + height * (NODE_HEIGHT + GAP_Y) - GAP_Y),
        boxes=boxes,
        edges=edges,
        columns=tuple(columns),
    )


def _pull(place: Mapping[str, tuple[int, float]], blockers: Sequence[str]) -> float:
    rows = [place[b][1] for b in blockers if b in place]
    if rows:
        return sum(rows) / len(rows)
    return 0.0


Cell = tuple[int, float]  # column and row


def _line(start: Box, end: Box, first: Cell, last: Cell, taken: set[Cell]) -> str:
    """A curve; where boxes are in its way, one through the gap between two rows that is the shortest detour."""
    rows = range(int(min(first[1], last[1])), int(max(first[1], last[1])) + 1)
    if not any((column, row) in taken for column in range(first[0] + 1, last[0]) for row in rows):
        return _curve(start, end)
    x1, y1 = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2
    x2, y2 = end.x, end.y + NODE_HEIGHT // 2
    gaps = [HEAD + MARGIN + row * (NODE_HEIGHT + GAP_Y) - GAP_Y // 2 for row in rows]
    y = min(gaps, key=lambda gap: abs(gap - y1) + abs(gap - y2))
    bend = GAP_X // 2
    return (
        f"M{x1} {y1}C{x1 + bend} {y1} {x1 + bend} {y} {x1 + GAP_X} {y}"
        f"H{x2 - GAP_X}C{x2 - bend} {y} {x2 - bend} {y2} {x2} {y2}"
    )


def _curve(start: Box, end: Box) -> str:
    x1, y1 = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2
    x2, y2 = end.x, end.y + NODE_HEIGHT // 2
    bend = max((x2 - x1) // 2, 20)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a progress bar, in hundredths of its width."""

    name: str
    count: int
    x: float
    width: float


def parts(counts: Mapping[str, int]) -> list[Part]:
    """A progress bar: one part for each name with a count, in the mapping's order."""
    total = max(sum(counts.values()), 1)
    made, x = [], 0.0
    for name, count in counts.items():
        if count:
            width = 100 * count / total
            made.append(Part(name, count, round(x, 2), round(width, 2)))
            x += width
    return made


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart."""

    label: str
    value: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart of `WIDTH` × `HEIGHT`; `top` is the value at its upper edge."""

    bars: tuple[Bar, ...]
    top: float
    total: float


CHART_WIDTH, CHART_HEIGHT = 320, 80


def chart(values: Sequence[tuple[str, float]]) -> Chart:
    """Bars for labelled values, oldest first."""
    top = max((value for _, value in values), default=0.0)
    step = CHART_WIDTH / max(len(values), 1)
    bars = tuple(
        Bar(
            label=label,
            value=value,
            x=round(number * step + step * 0.1, 2),
            y=round(CHART_HEIGHT - _share(value, top), 2),
            width=round(step * 0.8, 2),
            height=round(_share(value, top), 2),
        )
        for number, (label, value) in enumerate(values)
    )
    return Chart(bars, top, sum(value for _, value in values))


def _share(value: float, top: float) -> float:
    if top:
        return CHART_HEIGHT * value / top
    return 0.0
