"""What everybody in the model stands on: the town, its remote in memory, and a clock that is ours."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

from django.db import connection, transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from beads.actors import Actor
from beads.errors import GastownError
from beads.models import Rig, Town
from refinery.core.rules import Decision
from refinery.decisions import guards, merge_queue, towns
from refinery.executor import branches as on_remote
from refinery.executor import build, foresee, land, perform
from tests.machine.remote import Remote

FILES = ("a", "b", "c", "d", "e", "f")  # of a dozen changes some are rivals; with three files all were, for ever
WHO = Actor("test", "alice")
COUNTS: Counter[str] = Counter()  # steps and faults, over all examples of a session

picks = st.integers(min_value=0, max_value=7)
branches = st.sampled_from(["one", "two", "three"])


def choose(rows: list[Any], pick: int) -> Any:
    """One of the rows."""
    return rows[pick % len(rows)]


class Ground(RuleBasedStateMachine):
    """One town, one rig, one remote; what several kinds of people and programs do with them."""

    town: Town
    rig: Rig
    gated: bool

    def __init__(self) -> None:
        super().__init__()
        self.clock = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.random = random.Random(7)
        self.remote = Remote()
        self.stack = contextlib.ExitStack()
        enter = self.stack.enter_context
        enter(transaction.atomic())
        enter(mock.patch("django.utils.timezone.now", self.now))
        enter(mock.patch("secrets.choice", self.random.choice))
        for module in (perform, foresee, build, land, on_remote, guards, merge_queue, towns):
            enter(mock.patch.object(module, "repo_of", lambda rig: self.remote))
        self.tokens: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.heads: dict[str, str] = {}
        self.stale: list[Decision] = []
        self.kept: list[dict[str, Any]] = []  # facts that are late
        self.outside: set[str] = set()
        self.dirty = True  # something was written since `holds` last looked
        self.seen: dict[str, str] = {}  # branch → head, as it was when all its commits were found in order
        enter(connection.execute_wrapper(self._watch))
        self.number = 0
        self.away = False  # what the gates need

    def now(self) -> dt.datetime:
        """The clock: never the same moment twice."""
        self.clock += dt.timedelta(microseconds=100)
        return self.clock

    def _watch(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.dirty = self.dirty or sql.startswith(("INSERT", "UPDATE", "DELETE"))
        return execute(sql, params, many, context)

    @contextlib.contextmanager
    def refusable(self) -> Iterator[None]:
        """What a door may refuse, in one clear error; nothing half-done is left."""
        try:
            with transaction.atomic():
                yield
        except GastownError as error:
            assert error.message
            COUNTS["refused"] += 1

    def reload(self) -> None:
        self.town.refresh_from_db()
        self.rig.refresh_from_db()

    def change(self, pick: int) -> dict[str, str]:
        """A change of one file; one in five breaks the gate."""
        self.number += 1
        bad = "bad" if pick % 5 == 4 else ""
        return {FILES[(pick + self.number) % len(FILES)]: f"{bad}{self.number}"}
