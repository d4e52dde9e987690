"""What others have written is shown on a pull request as words, and does nothing there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from beads.models import Rig
from refinery.executor import pulltexts


@pytest.mark.parametrize(
    "text",
    [
        "@everyone look",
        "Fixes #12",
        "<img src=x>",
        "[a](http://evil)",
        "`code`",
        "<!-- gastown:proj -->",
        "a\n# b\n- [x] c",
    ],
)
def test_a_sentence_is_no_markup(text: str) -> None:
    shown = pulltexts.words(text)
    assert not re.search(r"[@<>\[\]`*\n]|#(?!\d+;)", shown)


def test_many_lines_stay_in_their_fence() -> None:
    shown = pulltexts.quoted("a\n```\n````text\n@everyone\n\x1b[31mred\u202e")
    fence = shown.split("text\n", 1)[0]
    assert len(fence) == 5 and shown.endswith(f"\n{fence}")
    assert shown.count(fence) == 2 and "\x1b" not in shown and "\u202e" not in shown
    assert len(pulltexts.quoted("x" * 100_000)) < pulltexts.LONG + 20


def test_a_title_is_one_line() -> None:
    assert pulltexts.plain("a\r\nb\x00\tc") == "a b⟨U+0000⟩ c"


def test_the_mark_of_our_comment_cannot_be_guessed_and_is_of_one_pull_request(settings: Any) -> None:
    first = pulltexts.mark(Rig(pk=1, slug="proj"), 7)
    assert re.fullmatch("<!-- gastown:[0-9a-f]{32} -->", first) and first == pulltexts.mark(Rig(pk=1), 7)
    settings.SECRET_KEY = "another"
    others = {pulltexts.mark(Rig(pk=1), 7), pulltexts.mark(Rig(pk=1), 8), pulltexts.mark(Rig(pk=2), 7)}
    assert len(others | {first}) == 4
