"""The hunks of one file as an HTML table, unified or side by side. Pure; every text is escaped here.

Rows are joined as strings, not through a template: a page shows thousands of them. `Notes` brings what a template has
made already (comments and the form for a new one) and says which line numbers are links.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from refinery.git.diffs import Hunk, Line, Pair, Patch, changed_spans, pairs
from refinery.review.highlight import Piece, colour

_MARKED = re.compile(r"⟨U\+[0-9A-F]{4,6}⟩")
_SIGN = {"add": "+", "del": "-", "same": " "}

Side = str  # "old" or "new"


@dataclass(frozen=True)
class Notes:
    """What stands between the lines: safe HTML by (side, line), and the start of a line number's link ("" for none)."""

    between: Mapping[tuple[Side, int], str] = field(default_factory=dict)
    link: str = ""


NOTHING = Notes()


def table(path: str, patch: Patch, *, split: bool, notes: Notes = NOTHING, coloured: bool = True) -> str:
    """One file's hunks. `path` chooses the language."""
    rows: list[str] = []
    for hunk in patch.hunks:
        painted = _paint(path, hunk, coloured)
        if split:
            _split(rows, hunk, painted, notes)
        else:
            _unified(rows, hunk, painted, notes)
    kind, columns = "unified", ""
    if split:
        kind = "split"
        columns = '<colgroup><col class="n"><col><col class="n"><col></colgroup>'
    return f'<table class="rv-code {kind}">{columns}<tbody>{"".join(rows)}</tbody></table>'


class _Painted:
    """The HTML of each line, by side and number."""

    def __init__(self) -> None:
        self.html: dict[tuple[Side, int], str] = {}

    def of(self, line: Line, side: Side) -> str:
        """A line as one side has it."""
        return self.html.get((side, line.at(side)), "")


def _paint(path: str, hunk: Hunk, coloured: bool) -> _Painted:
    """Colour both sides, each lexed as the text it is, and mark what changed within a line."""
    painted = _Painted()
    marks = _marks(hunk.lines)
    for side in ("old", "new"):
        lines = [line for line in hunk.lines if line.at(side)]
        own = "del"
        if side == "new":
            own = "add"
        if side == "old" and not any(line.kind == own for line in lines):
            continue  # unchanged lines are shown as the new side has them
        texts = [line.text for line in lines]
        pieces: Sequence[Sequence[Piece]]
        if coloured:
            pieces = colour(path, texts)
        else:
            pieces = [[("", text)] for text in texts]
        for line, row in zip(lines, pieces, strict=True):
            if line.kind == own or side == "new":
                number = line.at(side)
                painted.html[side, number] = _code(line, row, marks.get((side, number)))
    return painted


def _marks(lines: Sequence[Line]) -> dict[tuple[Side, int], tuple[int, int]]:
    """Where paired removed and added lines differ."""
    found: dict[tuple[Side, int], tuple[int, int]] = {}
    for pair in pairs(lines):
        left, right = pair.left, pair.right
        if left is not None and right is not None and left.kind == "del" and right.kind == "add":
            spans = changed_spans(left.text, right.text)
            if spans is not None:
                found["old", left.old], found["new", right.new] = spans
    return found


def _code(line: Line, pieces: Sequence[Piece], mark: tuple[int, int] | None) -> str:
    if mark is None:
        out = [_piece(css, text) for css, text in pieces]
    else:
        out = _marked(pieces, *mark)
    if line.cut:
        out.append(f'<i class="rv-cut">… {line.cut} more characters</i>')
    if line.bare:
        out.append('<i class="rv-cut">no newline at the end of the file</i>')
    return "".join(out)


def _marked(pieces: Sequence[Piece], start: int, end: int) -> list[str]:
    """The pieces, with `start` to `end` of their text marked."""
    out: list[str] = []
    at = 0
    for css, text in pieces:
        low, high = max(start - at, 0), min(end - at, len(text))
        at += len(text)
        if low >= high:
            out.append(_piece(css, text))
        else:
            out += [_piece(css, text[:low]), f"<b>{_piece(css, text[low:high])}</b>", _piece(css, text[high:])]
    return out


def _piece(css: str, text: str) -> str:
    if not text:
        return ""
    html = escape(text, quote=False)
    if "⟨" in html:
        html = _MARKED.sub(lambda found: f'<i class="rv-hid">{found[0]}</i>', html)
    if css:
        return f'<span class="{css}">{html}</span>'
    return html


def _number(side: Side, number: int, notes: Notes) -> str:
    if not number:
        return '<td class="n">'
    if not notes.link:
        return f'<td class="n">{number}'
    return f'<td class="n"><a href="{notes.link}{side[0]}{number}#at">{number}</a>'


def _between(rows: list[str], line: Line, notes: Notes, columns: int) -> None:
    """What belongs below a line. A comment on an unchanged line may name it by either side."""
    if not notes.between:
        return
    for side, number in (("old", line.old), ("new", line.new)):
        html = None
        if number:
            html = notes.between.get((side, number))
        if html:
            rows.append(f'<tr class="rv-between"><td colspan="{columns}">{html}')


def _unified(rows: list[str], hunk: Hunk, painted: _Painted, notes: Notes) -> None:
    rows.append(f'<tr class="h"><td class="n"><td class="n"><td class="g"><td>{escape(hunk.header, quote=False)}')
    for line in hunk.lines:
        side = "new"
        if line.kind == "del":
            side = "old"
        rows.append(
            f'<tr class="{line.kind}">{_number("old", line.old, notes)}{_number("new", line.new, notes)}'
            f'<td class="g">{_SIGN[line.kind]}<td class="c">{painted.of(line, side)}'
        )
        _between(rows, line, notes, 4)


def _split(rows: list[str], hunk: Hunk, painted: _Painted, notes: Notes) -> None:
    rows.append(f'<tr class="h"><td class="n"><td colspan="3">{escape(hunk.header, quote=False)}')
    for pair in pairs(hunk.lines):
        rows.append("<tr>" + _half("old", pair.left, painted, notes) + _half("new", pair.right, painted, notes))
        _beside(rows, pair, notes)


def _half(side: Side, line: Line | None, painted: _Painted, notes: Notes) -> str:
    if line is None:
        return '<td class="n none"><td class="c none">'
    number = line.at(side)
    if line.kind == "same":
        side_shown = "new"
    else:
        side_shown = side
    shown = painted.of(line, side_shown)
    sign = f'<span class="g">{_SIGN[line.kind]}</span>'
    return f'{_number(side, number, notes)}<td class="c {line.kind}">{sign}{shown}'


def _beside(rows: list[str], pair: Pair, notes: Notes) -> None:
    for line in dict.fromkeys(x for x in (pair.left, pair.right) if x is not None):
        _between(rows, line, notes, 4)
