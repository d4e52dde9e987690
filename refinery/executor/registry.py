"""Who does which work outside the database: each kind of effect has its handler beside it.

A handler looks before it acts, for it may be run twice, and gives the fact that came of it, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from refinery.core.effects import Effect

Result = tuple[str, str, dict[str, Any]]  # fact kind, subject, payload
Handler = Callable[[Any], Result | None]
E = TypeVar("E", bound=Effect)
HANDLERS: dict[str, Handler] = {}


def does(kind: type[E]) -> Callable[[Callable[[E], Result | None]], Callable[[E], Result | None]]:
    """Register who does a kind of work."""

    def register(handler: Callable[[E], Result | None]) -> Callable[[E], Result | None]:
        if kind.name in HANDLERS:
            raise AssertionError(f"two handlers do {kind.name}")
        HANDLERS[kind.name] = handler
        return handler

    return register
