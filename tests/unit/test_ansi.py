"""A terminal's output is coloured by classes and cannot do harm."""

from __future__ import annotations

import time

import pytest
from django.utils.html import escape

from refinery.pages.ansi import Span, spans


def text(parts: list[Span]) -> str:
    return "".join(p.text for p in parts)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain", [("", "plain")]),
        ("\x1b[31mred\x1b[0m no", [("a-red", "red"), ("", " no")]),
        ("\x1b[1;32mok\x1b[22m still", [("a-bold a-green", "ok"), ("a-green", " still")]),
        ("\x1b[38;5;196mx\x1b[39my", [("a-red", "x"), ("", "y")]),
        ("\x1b[38;2;10;200;30mx", [("a-green", "x")]),
        ("\x1b[48;5;21mx\x1b[49m.", [("b-blue", "x"), ("", ".")]),
        ("\x1b[94;41mx", [("a-blue b-red", "x")]),
        ("\x1b[31ma\nb\x1b[mc", [("a-red", "a"), ("", "\n"), ("a-red", "b"), ("", "c")]),
        ("\x1b[38;5mx", [("", "x")]),
        ("\x1b[38;2;1mx", [("", "x")]),
        ("\x1b[999999999999999999mx", [("", "x")]),
    ],
)
def test_colours_become_classes(raw: str, expected: list[tuple[str, str]]) -> None:
    assert [(s.classes, s.text) for s in spans(raw)] == expected


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07x", "x"),
        ("\x1b]0;never closed\nnext", "\nnext"),
        ("\x1bPsixel\x1b\\x\x1b_apc\x1b\\y", "xy"),
        ("\x1b[2J\x1b[1;1Hx\x1b[?25l", "x"),
        ("10 %\r50 %\r100 %\nend", "100 %\nend"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("\u202egnp.exe \u200b\x9b31m\x07\x00", "⟨U+202E⟩gnp.exe ⟨U+200B⟩⟨U+009B⟩31m⟨U+0007⟩⟨U+0000⟩"),
        ("lonely \x1b", "lonely ⟨U+001B⟩"),
    ],
)
def test_everything_else_a_terminal_obeys_is_dropped_or_shown(raw: str, shown: str) -> None:
    assert text(spans(raw)) == shown


def test_html_is_left_for_the_template_to_escape_and_never_gets_into_a_class() -> None:
    made = spans('<script>alert(1)</script>\x1b[31"><b>m<img onerror=x>')
    assert "<script>alert(1)</script>" in text(made)
    assert all(set(s.classes) <= set("abcdefghijklmnopqrstuvwxyz- ") for s in made)
    assert "&lt;script&gt;" in escape(text(made))


def test_a_line_of_a_megabyte_is_cut_and_says_so_quickly() -> None:
    began = time.perf_counter()
    made = spans("x" * 1_000_000 + "\n" + "\x1b[31m" * 200_000 + "\n" + "\x1b[" * 500_000 + "\nend")
    assert time.perf_counter() - began < 5
    assert "…(998000 more characters)" in text(made)
    assert text(made).endswith("\nend")
    assert len(text(made)) < 10_000
