"""Lexers made fast give the very tokens that Pygments gives, whatever they are fed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygments.lexers import find_lexer_class_for_filename

from refinery.review import lexers

ROOT = Path(__file__).parents[2]
NAMES = (
    "a.py", "a.js", "a.ts", "a.css", "a.html", "a.md", "a.toml", "a.yaml", "a.json", "a.sql", "a.sh", "a.rs", "a.go",
    "a.java", "a.c", "a.cpp", "a.cs", "a.rb", "a.php", "a.kt", "a.swift", "a.hs", "a.pl", "a.lua", "a.xml", "a.ex",
    "Makefile", "Dockerfile", "a.diff",
)  # fmt: skip
OURS = ("refinery/core/text.py", "static/gastown/live.js", "static/gastown/gastown.css", "pyproject.toml", "README.md")
TRICKY = (
    'cat <<EOF\n$x\nEOF\nR"x(a)x"; r##"b"## [==[ c ]==] q{a{b}} %w(d e)\n`t${a}` ${x:-y} /re/g \'it\'\'s\' "a\\"b"\n'
    'f"{a!r:>{w}} {{" rb\'\\x00\' 0x_ff 1e5j """never closed\n§ é ⟨ \t\x00\r\n@a.b[]:;=<>-->*/ <?php ?> {% x %}\n#{'
)
SCRAPS = st.lists(
    st.sampled_from(
        [*"abf01 \n\t(){}[]<>\"'`$@#%&*-+=/\\|!?:;.,_é⟨", '"""', "def ", "class ", "<<E\n", "*/", "/*", "${"]
    ),
    max_size=60,
).map("".join)


def both(name: str, text: str) -> tuple[list[object], list[object]]:
    """The tokens as Pygments gives them, and ours."""
    kind, ours = find_lexer_class_for_filename(name), lexers.for_file(name)
    assert kind is not None and ours is not None
    plain = kind(stripnl=False, ensurenl=False)
    return list(plain.get_tokens_unprocessed(text)), list(ours.get_tokens_unprocessed(text))


@pytest.mark.parametrize("name", NAMES)
def test_every_language_reads_code_of_every_other_as_before(name: str) -> None:
    for text in (*((ROOT / path).read_text()[:5000] for path in OURS), TRICKY):
        plain, ours = both(name, text)
        assert ours == plain


@given(name=st.sampled_from(NAMES), text=SCRAPS)
@settings(max_examples=150, deadline=None)
def test_so_do_scraps(name: str, text: str) -> None:
    plain, ours = both(name, text)
    assert ours == plain


def test_most_lexers_are_the_fast_kind_and_those_with_rules_of_their_instances_are_not() -> None:
    assert isinstance(lexers.for_file("a.py"), lexers._Quick)
    assert not isinstance(lexers.for_file("a.cs"), lexers._Quick)


def test_of_a_name_that_says_nothing_there_is_none() -> None:
    assert lexers.for_file("a.txt") is None
    assert lexers.for_file("no-such-kind.zzzz") is None
    assert lexers.for_file(f"{'x' * 300}.py") is None
