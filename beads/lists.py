"""Lists that are cut say so: how many of how many are shown, and how to see the rest."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

MOST = 200  # rows that a command shows unless it is told


@dataclass(frozen=True)
class Shown:
    """The first rows of a list, and how many there are in all."""

    rows: list[Any]
    total: int

    @property
    def cut(self) -> bool:
        """True when there are more."""
        return self.total > len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        """The rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many are shown."""
        return len(self.rows)

    @property
    def note(self) -> str:
        """What a command says of it; empty when nothing is missing."""
        if self.cut:
            return f"{len(self.rows)} of {self.total} shown; --limit 0 shows all"
        return ""


def first(found: QuerySet[Any] | Sequence[Any], most: int) -> Shown:
    """The first of these; 0: all. They are counted only when there are more."""
    if not most:
        rows = list(found)
        return Shown(rows, len(rows))
    rows = list(found[: most + 1])
    if len(rows) <= most:
        return Shown(rows, len(rows))
    return Shown(rows[:most], found.count() if isinstance(found, QuerySet) else len(found))


def limit_argument(parser: ArgumentParser, most: int = MOST) -> None:
    """`--limit`."""
    parser.add_argument(
        "--limit", type=_limit, default=most, metavar="N", help=f"at most so many (default {most}; 0: all)"
    )


def _limit(word: str) -> int:
    if not word.isdecimal():
        raise ArgumentTypeError(f"{word!r} is no number")
    return int(word)
