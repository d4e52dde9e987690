"""What is said of time while real gates run."""

from __future__ import annotations

import re

import pytest

from refinery.models import ReviewEntry
from refinery.pages import boards
from tests.acceptance.conftest import Stage

WORDS = re.compile(r"in \d+ .*|within \d+ s|longer than usual: (gating|its landing) was to take .*, at it for \d+ s"
                   r"|after gt-\w+, which takes longer than usual")  # fmt: skip


@pytest.mark.long
def test_p10_four_cars_with_two_gates_are_told_honest_ranges_all_the_way(stage: Stage) -> None:
    stage.open(agents=False, gates=["sleep 0.5", "sleep 1"])
    for n in range(3):
        stage.commit(f"old{n}", {f"old{n}.txt": "x"})
        entry = stage.submit(f"old{n}")
        told = boards.Board(stage.town).expected[entry.pk]
        assert told.words == f"unknown: gate 'sleep 0.5' was timed {n} of 3 times"
        stage.await_phase(entry, "merged")
    for n in range(4):
        stage.commit(f"car{n}", {f"car{n}.txt": "x"})
    cars = [stage.submit(f"car{n}") for n in range(4)]
    first = boards.Board(stage.town).expected
    assert all((first[e.pk].low or 0) >= 1.0 for e in cars)  # two gates of 1.5 s together, and no less than that
    seen: list[str] = []

    def honest() -> bool:
        """One look at the queue: true once it is empty."""
        board = boards.Board(stage.town)
        for told in board.expected.values():
            seen.append(told.words)
            assert WORDS.fullmatch(told.words), told.words
            assert told.at is None or told.at > board.world.now
            assert (told.at is None) is (told.seconds is None)
        return not board.expected

    stage.until(honest)
    assert len(seen) > 8
    assert ReviewEntry.objects.filter(state="merged").count() == 7
