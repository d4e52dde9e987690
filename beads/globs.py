"""Path patterns as in `.gitignore`: does a list of them match any of some paths? Pure.

A pattern without `/` (but for a trailing one) matches at any depth, any other from the root. `*` and `?` stop at `/`,
`**` does not; a trailing `/` means directories; what matches a directory matches all below it. The last pattern that
matches a path decides; `!` takes paths out again, wherever they are. A list of nothing but `!` patterns means all
paths but those. Brackets are ordinary characters: paths have them.

By hand: to pathspec `[id]` is a set of characters, a list of only `!` matches nothing, `!` takes out nothing below a
chosen directory, and `a/**/` is not what it is to git (the oracle of our test). And the shim, which has nothing but the
standard library, matches reports with it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    directory = pattern.endswith("/")
    body = pattern.strip("/")
    anchored = "/" in pattern.rstrip("/")
    words = re.sub(r"(\*\*/)+", "**/", body)
    found = "(?:.*/)?"
    if anchored:
        found = ""
    at = 0
    while at < len(words):
        if words.startswith("**/", at) and (at == 0 or words[at - 1] == "/"):
            found, at = found + "(?:.*/)?", at + 3
        elif words[at:] == "**" and (at == 0 or words[at - 1] == "/"):
            found, at = found + ".+", at + 2
        elif words[at] == "*":
            run = len(words[at:]) - len(words[at:].lstrip("*"))
            found, at = found + "[^/]*", at + run
        elif words[at] == "?":
            found, at = found + "[^/]", at + 1
        else:
            found, at = found + re.escape(words[at]), at + 1
    return re.compile(found + ("/.*" if directory else "(?:/.*)?"), re.DOTALL)


def matches(patterns: Sequence[str], path: str) -> bool:
    """True when the last pattern that matches `path` (relative, with `/`) does not take it out."""
    chosen = bool(patterns) and all(pattern.startswith("!") for pattern in patterns)
    for pattern in patterns:
        out = pattern.startswith("!")
        if chosen is out and _compiled(pattern[out:]).fullmatch(path):
            chosen = not out
    return chosen


def touches(patterns: Sequence[str], paths: Iterable[str]) -> bool:
    """True when any of `paths` is matched."""
    return any(matches(patterns, path) for path in paths)


def problem(pattern: str) -> str:
    """Why a text is no pattern, or an empty string."""
    body = pattern.removeprefix("!")
    if not body.strip("/"):
        return "is empty"
    if "\\" in body or any(ord(c) < 32 for c in body):
        return "holds a backslash or a control character"
    if any(part in ("", ".", "..") for part in body.strip("/").split("/")) or body.startswith("//"):
        return "has an empty part, '.' or '..'"
    return ""
