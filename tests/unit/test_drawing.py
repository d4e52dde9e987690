"""What the pages draw has a place for everything and nothing on top of anything."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinery.pages import charts
from refinery.pages.live import Shelf, Topic


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 5), max_size=60))
def test_no_two_boxes_of_a_graph_overlap_and_all_are_inside(wave_of: dict[str, int]) -> None:
    made = charts.graph(wave_of, {})
    assert {b.id for b in made.boxes} == set(wave_of)
    for a, b in itertools.combinations(made.boxes, 2):
        apart = abs(a.x - b.x) >= charts.NODE_WIDTH or abs(a.y - b.y) >= charts.NODE_HEIGHT
        assert apart, (a, b)
    for box in made.boxes:
        assert 0 <= box.x <= made.width - charts.NODE_WIDTH
        assert 0 <= box.y <= made.height - charts.NODE_HEIGHT


def test_lines_run_from_a_blocker_to_what_waits_for_it() -> None:
    made = charts.graph({"a": 1, "b": 2}, {"b": ["a", "not in the plan"]})
    assert [(e.start, e.end) for e in made.edges] == [("a", "b")]
    assert {b.id: b.x for b in made.boxes}["a"] < {b.id: b.x for b in made.boxes}["b"]


def points(path: str) -> Iterator[tuple[float, float]]:
    """Points along a path of M, C and H."""
    x = y = 0.0
    for command, rest in re.findall(r"([MCH])([^MCH]*)", path):
        numbers = [float(n) for n in rest.split()]
        if command == "C":
            (ax, ay, bx, by, cx, cy) = numbers
            for t in (n / 20 for n in range(21)):
                u = 1 - t
                yield (
                    u**3 * x + 3 * u * u * t * ax + 3 * u * t * t * bx + t**3 * cx,
                    u**3 * y + 3 * u * u * t * ay + 3 * u * t * t * by + t**3 * cy,
                )
            x, y = cx, cy
        elif command == "H":
            yield from ((x + (numbers[0] - x) * n / 20, y) for n in range(21))
            x = numbers[0]
        else:
            x, y = numbers
            yield x, y


@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 30), max_size=3)), max_size=30))
def test_no_line_runs_behind_a_box_or_outside(rows: list[tuple[int, set[int]]]) -> None:
    wave_of = {str(n): wave for n, (wave, _) in enumerate(rows)}
    after = {str(n): [str(m) for m in on if m < len(rows) and rows[m][0] < wave] for n, (wave, on) in enumerate(rows)}
    made = charts.graph(wave_of, after)
    for edge in made.edges:
        for x, y in points(edge.path):
            assert 0 <= y < made.height
            inside = [
                b.id
                for b in made.boxes
                if b.x < x < b.x + charts.NODE_WIDTH and b.y - 1 < y < b.y + charts.NODE_HEIGHT + 1
            ]
            assert not inside, (edge, inside)


def test_a_progress_bar_is_full_and_in_order() -> None:
    made = charts.parts({"closed": 1, "working": 0, "waiting": 3})
    assert [(p.name, p.count, p.x, p.width) for p in made] == [("closed", 1, 0.0, 25.0), ("waiting", 3, 25.0, 75.0)]
    assert charts.parts({}) == []


def test_a_chart_reaches_its_top_and_an_empty_one_is_flat() -> None:
    made = charts.chart([("mon", 2.0), ("tue", 4.0)])
    assert (made.top, made.total, [b.height for b in made.bars]) == (4.0, 6.0, [40.0, 80.0])
    assert [b.height for b in charts.chart([("mon", 0.0)]).bars] == [0.0]


@pytest.mark.parametrize(
    ("topic", "told", "hears"),
    [
        (Topic("a"), {"a"}, True),
        (Topic("a"), {"b"}, False),
        (Topic("a"), {"run:a"}, False),
        (Topic(), {"b"}, True),
        (Topic(), {"run:x"}, False),
        (Topic("a", "x"), {"run:x"}, True),
        (Topic("a", "x"), {"run:y"}, False),
        (Topic("a", "x"), {"a"}, True),
    ],
)
def test_a_page_hears_of_what_it_shows(topic: Topic, told: set[str], hears: bool) -> None:
    assert topic.hears(told) is hears


def test_a_page_that_many_ask_for_at_once_is_made_once_and_a_failure_is_not_kept() -> None:
    shelf, made, gate = Shelf(size=2), [], threading.Event()

    def make() -> bytes:
        gate.wait(10)
        made.append(1)
        return b"page"

    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(shelf.get(("k",), make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(10)
    assert (answers, len(made)) == ([b"page"] * 8, 1)
    with pytest.raises(ZeroDivisionError):
        shelf.get(("bad",), lambda: bytes(1 // 0))
    assert shelf.get(("bad",), lambda: b"mended") == b"mended"
