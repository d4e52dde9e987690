"""How rows go after their time: exactly those that are named, and what refers to them makes the transaction fail.

`QuerySet.delete` would look for whatever refers to a row, and take it along. Writers use this for what retention names
(`refinery.executor.retention`), which has been archived; a reference that is newer than that look is a foreign key of
the database, and keeps its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet


def delete(rows: QuerySet[Any]) -> int:
    """Delete these rows and nothing else; returns how many there were."""
    return rows._raw_delete(rows.db)


def some(rows: QuerySet[Any], keys: Sequence[Any]) -> int:
    """Delete those of `rows` with these primary keys."""
    return delete(rows.filter(pk__any=list(keys)))
