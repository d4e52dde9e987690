"""Parts of a transcript for people: pages and searches in bounded work, whatever stands in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from refinery.pages import transcripts
from refinery.pages.transcripts import Look
from tests.unit.test_transcripts import Desk, call, text
from tests.unit.test_transcripts import desk as desk


def written(desk: Desk, *chunks: bytes) -> Path:
    made = desk.open()
    for chunk in chunks:
        made.feed(chunk)
    made.end()
    return desk.path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes of files were read."""
    sizes: list[int] = []
    lines = transcripts._lines

    def noted(data: bytes, at: int, cut: bool) -> Iterator[tuple[int, bytes]]:
        sizes.append(len(data))
        return lines(data, at, cut)

    monkeypatch.setattr(transcripts, "_lines", noted)
    return lambda: sum(sizes)


def test_pages_lead_from_the_end_to_the_beginning_and_back_and_miss_nothing(
    desk: Desk, counted: Callable[[], int]
) -> None:
    path = written(desk, *(text(f"line {n} " + "y" * (n % 50) * 200) for n in range(1000)))
    back: list[str] = []
    part = transcripts.part(path, Look())
    assert part.end == part.size
    pages = 1
    while True:
        back = [row.text.split(" y")[0] for row in part.rows] + back
        if not part.start:
            break
        pages += 1
        part = transcripts.part(path, Look(before=part.start))
    assert [words.split()[1] for words in back] == [str(n) for n in range(1000)]
    forth: list[str] = []
    part = transcripts.part(path, Look(after=0))
    while part.rows:
        forth += [row.text.split()[1] for row in part.rows]
        part = transcripts.part(path, Look(after=part.end)) if part.end < part.size else replace(part, rows=())
    assert forth == [str(n) for n in range(1000)]
    assert counted() <= 2 * (pages + 1) * transcripts.WINDOW


def test_a_search_finds_what_stands_in_texts_calls_and_results_and_not_the_files_own_words(desk: Desk) -> None:
    path = written(desk, text('He said "Straße"'), call({"command": "grep NEEDLE"}, output="found it"), text("no more"))
    for question, hits in {"straße": 1, 'said "S': 1, "needle": 1, "found": 1, "kind": 0, "bash": 2, "zzz": 0}.items():
        assert len(transcripts.part(path, Look(question=question)).rows) == hits, question


@pytest.mark.parametrize("place", ["-1", "x", "9" * 20, "1e3", "", "٣"])
def test_a_place_that_is_none_is_the_end(place: str) -> None:
    assert Look.of({"before": place, "after": place}) == Look()


def test_lines_that_are_no_events_are_passed_over(desk: Desk) -> None:
    path = written(desk, text("one"))
    with path.open("ab") as handle:
        handle.write(b'\xff\n[]\n{"kind":7}\n{"kind":"text","paths":7,"arguments":[],"usage":"x"}\n' + b'{"a":' * 9999)
        handle.write(b'\n{"kind":"usage","sum":{"input":"x","cost":"NaN"}}\n{"kind":"te')
    found = transcripts.part(path, Look()).rows
    assert [row.kind for row in found] == ["text", "text", "usage"]
    assert list(transcripts.entries(found, ended=True))
    assert all(transcripts.plain(row) is not None for row in found)


def test_a_call_and_its_result_are_one_and_pieces_of_a_text_are_one() -> None:
    rows = [
        transcripts.Row(0, "text", text="Hel", more=True),
        transcripts.Row(1, "text", text="lo", more=True),
        transcripts.Row(2, "call", tool="sh", call="a", arguments={"command": "ls"}),
        transcripts.Row(3, "call", tool="sh", call="b"),
        transcripts.Row(4, "result", text="x", call="a", failed=True),
        transcripts.Row(5, "result", text="of an earlier one", call="z", tool="sh"),
    ]
    said, one, two, other = transcripts.entries(rows, ended=False)
    assert "".join(span.text for span in said["text"]) == "Hello"
    assert one["failed"] and one["answered"] and not one["running"] and one["hint"] == "ls"
    assert two["running"] and "answered" not in two
    assert other["kind"] == "result" and other["tool"] == "sh"
    assert not list(transcripts.entries(rows, ended=True))[2]["running"]
