"""Queries whose SQL is made once for each process, and run with other parameters ever after.

The reconciler looks at the same rows hundreds of times a minute: making a queryset and its SQL takes Django longer
than PostgreSQL takes to answer. Only fit where the parameters change no part of the SQL: comparisons with a value
that is not None, and `__any` (an `__in` has a placeholder for each value).
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet

Row = TypeVar("Row", covariant=True)


class Prepared(Generic[Row]):
    """`Prepared(lambda town: Rig.objects.filter(town=town))`: call it with the parameters, get the rows."""

    def __init__(self, make: Callable[..., QuerySet[Any, Row]]) -> None:
        self._make = make
        self._made: tuple[QuerySet[Any, Row], Any, str, list[Any], dict[int, int]] | None = None

    def __call__(self, *values: Any) -> list[Row]:
        """The rows, as the queryset gives them that `make` returns."""
        queryset, compiler, sql, parameters, slots = self._made = self._made or self._prepare(values)
        given = [values[slots[at]] if at in slots else value for at, value in enumerate(parameters)]
        run = copy.copy(compiler)
        run.connection = connections[DEFAULT_DB_ALIAS]
        run.as_sql = lambda *_, **__: (sql, given)
        found = queryset.all()
        found.query.get_compiler = lambda *_, **__: run  # type: ignore[method-assign]
        return list(found)

    def _prepare(self, values: tuple[Any, ...]) -> tuple[QuerySet[Any, Row], Any, str, list[Any], dict[int, int]]:
        marks = [_mark(number, value) for number, value in enumerate(values)]
        queryset = self._make(*marks)
        compiler = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        sql, parameters = compiler.as_sql()
        slots = {at: marks.index(p) for at, p in enumerate(parameters) if p in marks}
        if lost := set(range(len(marks))) - set(slots.values()):
            raise TypeError(f"parameters {sorted(lost)} are not to be found in {sql}")
        return queryset, compiler, sql, list(parameters), slots


def _mark(number: int, value: Any) -> Any:
    """A value of the same type that occurs nowhere else in a query."""
    match value:
        case bool():
            raise TypeError("a truth value can be no parameter")
        case int():
            return 2_000_000_000 + number
        case str():
            return f"parameter {number}"
        case dt.datetime():
            return dt.datetime(1815, 12, 10, tzinfo=dt.UTC) + dt.timedelta(seconds=number)
        case list():
            return [f"parameter {number}"]
    raise TypeError(f"{type(value).__name__} can be no parameter")
