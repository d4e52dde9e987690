"""A terminal's output → spans with class names: colours for the run page, harmless whatever was printed. Pure.

Only "select graphic rendition" is understood, and only as class names (`a-red`, `b-blue`, `a-bold`), so that a strict
Content-Security-Policy holds. Everything else that a terminal would obey (cursor moves, titles, links, clipboard) is
dropped; what is invisible or changes direction is shown by its code point. Escaping HTML is the template's part.

By hand, for what agents print is hostile: rich's decoder needs 84 s for 40 kB of opened titles, raises on a number of
5,000 digits, and keeps hidden characters; ansi2html writes the HTML itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from refinery.core.text import reveal_hidden

MAX_LINE = 2000
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_FLAGS = {1: "a-bold", 2: "a-dim", 3: "a-italic", 4: "a-underline", 7: "a-inverse", 9: "a-strike"}
_ENDS = {22: ("a-bold", "a-dim"), 23: ("a-italic",), 24: ("a-underline",), 27: ("a-inverse",), 29: ("a-strike",)}
# A string sequence (OSC, DCS, APC, PM, SOS) ends with its line at the latest: an open one must not eat the log.
_SEQUENCE = re.compile(
    r"\x1b(?:\[(?P<sgr>[0-9;:]*)m|\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one look. `classes`: space-separated, from a fixed set."""

    classes: str
    text: str


@dataclass
class _Pen:
    """What a terminal would draw with now."""

    flags: set[str] = field(default_factory=set)
    fore: str = ""
    back: str = ""

    def classes(self) -> str:
        """Its look as class names."""
        return " ".join(filter(None, (*sorted(self.flags), self.fore, self.back)))

    def obey(self, parameters: str) -> None:
        """One SGR sequence; what is not known is passed over."""
        codes = [_number(word) for word in re.split("[;:]", parameters)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.flags, self.fore, self.back = set(), "", ""
            elif code in _FLAGS:
                self.flags.add(_FLAGS[code])
            elif code in _ENDS:
                self.flags.difference_update(_ENDS[code])
            elif code in (38, 48):
                name = _extended(codes)
                if code == 38:
                    self.fore = name and f"a-{name}"
                else:
                    self.back = name and f"b-{name}"
            elif code == 39:
                self.fore = ""
            elif code == 49:
                self.back = ""
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.fore = f"a-{_COLOURS[code % 10]}"
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self.back = f"b-{_COLOURS[code % 10]}"


def _number(word: str) -> int:
    """A parameter; 0 where it is none, as terminals take it."""
    if word.isdigit() and len(word) < 4:
        return int(word)
    return 0


def _extended(codes: list[int]) -> str:
    """The nearest of the eight colours for `5;n` or `2;r;g;b`, taken off `codes`."""
    kind = 0
    if codes:
        kind = codes.pop(0)
    if kind == 2:
        rgb, codes[:] = codes[:3], codes[3:]
    elif kind == 5 and codes:
        n = min(codes.pop(0), 255)
        if n < 16:
            return _COLOURS[n % 8]
        if n >= 232:
            rgb = [(n - 232) * 11] * 3
        else:
            rgb = [(n - 16) // 36 * 51, (n - 16) // 6 % 6 * 51, (n - 16) % 6 * 51]
    else:
        return ""
    if len(rgb) < 3:
        return ""
    bright = max(rgb)
    if bright < 50:
        return "black"
    return _COLOURS[sum(1 << i for i, part in enumerate(rgb) if part > bright / 2)]


def spans(text: str, max_line: int = MAX_LINE) -> list[Span]:
    """`text` as a terminal would show it, line by line; lines longer than `max_line` characters are cut, saying so."""
    pen = _Pen()
    out: list[Span] = []
    lines = text.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines):
        room = max_line
        left_out = 0
        for classes, piece in _pieces(_overwritten(line), pen):
            shown = piece[:room]
            room -= len(shown)
            left_out += len(piece) - len(shown)
            if shown:
                out.append(Span(classes, reveal_hidden(shown)))
        if left_out:
            out.append(Span("a-dim", f" …({left_out} more characters)"))
        if number < len(lines) - 1:
            out.append(Span("", "\n"))
    return _joined(out)


def _overwritten(line: str) -> str:
    """What is left of a line that returns to its start: progress bars show their last state."""
    parts = [p for p in line.split("\r") if p]
    if parts:
        return parts[-1]
    return ""


def _pieces(line: str, pen: _Pen) -> Iterator[tuple[str, str]]:
    at = 0
    for found in _SEQUENCE.finditer(line):
        if found.start() > at:
            yield pen.classes(), line[at : found.start()]
        if found["sgr"] is not None:
            pen.obey(found["sgr"])
        at = found.end()
    if at < len(line):
        yield pen.classes(), line[at:]


def _joined(parts: list[Span]) -> list[Span]:
    """Neighbours of one look as one span."""
    out: list[Span] = []
    texts: list[str] = []
    for part in parts:
        if out and out[-1].classes == part.classes:
            texts.append(part.text)
            continue
        if out:
            out[-1] = Span(out[-1].classes, "".join(texts))
        out.append(part)
        texts = [part.text]
    if out:
        out[-1] = Span(out[-1].classes, "".join(texts))
    return out
