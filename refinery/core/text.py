"""Hostile text made harmless and visible. Pure."""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
# Characters of the categories Cc (but tab and newline), Cf, Cs, Zl, Zp, and the fillers that show as nothing.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)


def reveal_hidden(text: str) -> str:
    """Control, zero-width and direction-changing characters shown as ⟨U+XXXX⟩; newlines and tabs stay."""
    if text.isascii() and text.isprintable():  # most of what there is; pages ask this for every cell
        return text
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def sanitize(text: str) -> str:
    """As `reveal_hidden`, without ANSI sequences and with plain line ends: for logs and messages."""
    return reveal_hidden(_ANSI.sub("", text).replace("\r\n", "\n"))
