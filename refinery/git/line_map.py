"""Where a line of a part of a change (one commit, or since an older head) is in the whole change. Reads git only.

Remarks are kept on lines of the whole change. A line of a part has its place there when later commits, or the target,
have left it as it is and the whole change shows it; otherwise it has none, and nothing is guessed.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from refinery.git import diffs
from refinery.git.ranges import Span
from refinery.git.repo import Repo

Spot = tuple[str, str, int]  # file as it is shown, side, line


class Shift:
    """How the lines of a file moved from one commit to another. `path`: what it is called in the second one."""

    def __init__(self, path: str, hunks: Sequence[diffs.Hunk] = ()) -> None:
        self.path = path
        self._told = {line.old: line.new for hunk in hunks for line in hunk.lines if line.old}
        self._starts = [hunk.old for hunk in hunks]
        grown = (sum((line.kind == "add") - (line.kind == "del") for line in hunk.lines) for hunk in hunks)
        self._moved = [0, *accumulate(grown)]

    def of(self, line: int) -> int | None:
        """The line's number in the second commit; None when it was changed or removed."""
        if line in self._told:
            return self._told[line] or None
        return line + self._moved[bisect(self._starts, line)]


class Bridge:
    """From the lines of `part` to those of `whole`, which is asked for each file once."""

    def __init__(self, repo: Repo, part: Span, whole: Span) -> None:
        self._repo, self._part, self._whole = repo, part, whole
        self._shifts: dict[tuple[str, str], Shift | None] = {}
        self._shown: dict[str, dict[tuple[str, int], str]] = {}

    def across(self, change: diffs.Change, side: str, line: int) -> Spot | None:
        """A line of a file of the part → its place in the whole change, or None."""
        shift = self._shift(side, change.path_at(side))
        number = None
        if shift is not None:
            number = shift.of(line)
        if shift is None or number is None:
            return None
        target = next((c for c in self._changes if shift.path == c.path_at(side)), None)
        if target is None or (side, number) not in self._lines(target):
            return None
        return diffs.shown_path(target.path), side, number

    def back(self, change: diffs.Change, patch: diffs.Patch, spot: Spot, quote: str) -> tuple[str, int] | None:
        """A place of the whole change → the line of this file's patch that is there and reads like `quote`."""
        side = spot[1]
        for line in (line for hunk in patch.hunks for line in hunk.lines):
            number = line.at(side)
            if number and line.text[:300] == quote and self.across(change, side, number) == spot:
                return side, number
        return None

    @cached_property
    def _changes(self) -> list[diffs.Change]:
        return self._repo.changes(self._whole.base, self._whole.sha)

    def _lines(self, change: diffs.Change) -> dict[tuple[str, int], str]:
        """Every line that the whole change shows of a file."""
        if change.path not in self._shown:
            (patch,) = self._repo.patches(self._whole.base, self._whole.sha, [change])
            lines = [line for hunk in patch.hunks for line in hunk.lines]
            found = {("old", line.old): line.text for line in lines if line.old}
            self._shown[change.path] = found | {("new", line.new): line.text for line in lines if line.new}
        return self._shown[change.path]

    def _shift(self, side: str, path: str) -> Shift | None:
        """How a file moved between the part's end of this side and the whole's; None when it is not there, or huge."""
        if (side, path) not in self._shifts:
            self._shifts[side, path] = self._moved(side, path)
        return self._shifts[side, path]

    def _moved(self, side: str, path: str) -> Shift | None:
        first, last = self._part.base, self._whole.base
        if side == "new":
            first, last = self._part.sha, self._whole.sha
        if first == last:
            return Shift(path)
        change = next((c for c in self._repo.changes(first, last) if c.old_path == path), None)
        if change is None or change.status == "A":
            return Shift(path)
        if change.status not in "MR" or change.binary:
            return None
        (patch,) = self._repo.patches(first, last, [change])
        if patch.hunks or not change.lines:
            return Shift(change.path, patch.hunks)
        return None
