"""Lines of code as coloured pieces, by Pygments. Pure: the same lines give the same pieces; nothing is raised.

Colours are class names only (the page's policy allows no inline style). What is too long to be worth the time, of no
known language, or lexed into something else than it was, stays uncoloured.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Sequence
from typing import Any

from pygments.token import STANDARD_TYPES, Token

from refinery.review import lexers

MAX_TEXT = 100_000
MAX_LINE = 600

Piece = tuple[str, str]
_PLAIN = frozenset(
    {"", "n", "p", "w", "x", "err", "nx", "g", "esc", "l", "ld", "py", "ge", "fm", "pm", "o", "vi", "ni", "nl", "nv"}
)


def colour(path: str, lines: Sequence[str]) -> Sequence[Sequence[Piece]]:
    """Each line as (class or "", text) pieces whose texts add up to the line. What was coloured lately is kept."""
    return _colour(posixpath.basename(path), tuple(lines))


@functools.lru_cache(maxsize=256)
def _colour(name: str, lines: tuple[str, ...]) -> list[list[Piece]]:
    plain: list[list[Piece]] = [[("", line)] for line in lines]
    if sum(map(len, lines)) > MAX_TEXT or any(len(line) > MAX_LINE for line in lines):
        return plain
    lexer = lexers.for_file(name)
    if lexer is None:
        return plain
    try:
        found = _lexed(lexer, "\n".join(lines))
    except Exception:  # a lexer's bug must not take the page down
        return plain
    # a lexer may have added a line end or lost a character: then its answer is not used
    if len(found) == len(lines) + 1 and not found[-1]:
        found.pop()
    if ["".join(text for _, text in pieces) for pieces in found] != list(lines):
        return plain
    return found


def _lexed(lexer: Any, code: str) -> list[list[Piece]]:
    """What a lexer makes of a text, by lines; neighbours of one colour are one piece."""
    found: list[list[Piece]] = [[]]
    run, css = "", ""
    for _, kind, text in lexer.get_tokens_unprocessed(code):
        own = _CSS.get(kind)
        if own is None:
            own = _css(kind)
        if own != css:
            if run:
                found[-1].append((css, run))
            run, css = "", own
        if "\n" not in text:
            run += text
            continue
        first, *more = text.split("\n")
        if run or first:
            found[-1].append((css, run + first))
        found += [[(css, part)] if part else [] for part in more[:-1]] + [[]]
        run = more[-1]
    if run:
        found[-1].append((css, run))
    return found


_CSS: dict[Any, str] = {}


def _css(kind: Any) -> str:
    """A token's class, or "" for what stays as it is."""
    known = kind
    while known is not Token and known not in STANDARD_TYPES:
        known = known.parent
    name = STANDARD_TYPES.get(known, "")
    _CSS[kind] = "" if name in _PLAIN else name
    return _CSS[kind]


def forget() -> None:
    """Drop what was coloured lately."""
    _colour.cache_clear()
