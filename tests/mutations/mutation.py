"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass

RACES, RECOVERY = "tests/db/test_races.py", "tests/db/test_recovery.py"


@dataclass(frozen=True)
class Mutation:
    """What is removed: in `file`, `old` becomes `new`. `tests`: where it should be noticed."""

    what: str
    file: str
    old: str
    new: str
    tests: str
