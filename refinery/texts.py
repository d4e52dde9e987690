"""Hostile text made harmless and visible, and a diff as classified lines. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
MAX_LINE = 2000


class _Shown(dict[int, str]):
    """Code point → how it is shown, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        c = chr(code)
        plain = c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        self[code] = c if plain else f"⟨U+{code:04X}⟩"
        return self[code]


_SHOWN = _Shown()


def visible(text: str) -> str:
    """Control, zero-width and direction-changing characters are shown as U+XXXX."""
    return text.translate(_SHOWN)


def tame(text: str) -> str:
    """Without ANSI sequences; what is left is made `visible`."""
    return visible(_ANSI.sub("", text).replace("\r\n", "\n"))


def diff_lines(text: str) -> list[dict[str, Any]]:
    """A unified diff as `{kind, text, old, new}`: kinds file, meta, hunk, add, del, same."""
    rows: list[dict[str, Any]] = []
    old = new = 0
    in_hunk = False
    for raw in tame(text).split("\n"):
        line = raw if len(raw) <= MAX_LINE else raw[:MAX_LINE] + " …(cut)"
        hunk = re.match(r"@@ -(\d+)(?:,\d+)? \+(\d+)", line)
        if line.startswith("diff --git "):
            in_hunk = False
            rows.append({"kind": "file", "text": line.removeprefix("diff --git "), "old": "", "new": ""})
        elif hunk:
            in_hunk = True
            old, new = int(hunk[1]), int(hunk[2])
            rows.append({"kind": "hunk", "text": line, "old": "", "new": ""})
        elif not in_hunk:
            rows.append({"kind": "meta", "text": line, "old": "", "new": ""})
        elif line.startswith("+"):
            rows.append({"kind": "add", "text": line, "old": "", "new": new})
            new += 1
        elif line.startswith("-"):
            rows.append({"kind": "del", "text": line, "old": old, "new": ""})
            old += 1
        else:
            rows.append({"kind": "same", "text": line, "old": old if line else "", "new": new if line else ""})
            old, new = old + 1, new + 1
    return rows
