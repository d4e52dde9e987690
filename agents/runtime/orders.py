"""What a run is told while it is at work, and where it tells. Stdlib only."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol


class Log(Protocol):
    """Where output goes."""

    def write(self, data: bytes) -> None:
        """Append."""

    def say(self, text: str) -> None:
        """A line of the shim's own."""


@dataclass
class Orders:
    """What the run was told meanwhile. Whoever waits has an event of its own among `listeners`."""

    stop: str = ""
    fenced: bool = False
    finish_at: float | None = None
    listeners: list[threading.Event] = field(default_factory=list)

    def stopped(self) -> bool:
        """True when the run is to end."""
        return bool(self.stop)

    def tell(self) -> None:
        """Set every listener's event: something here has changed."""
        for event in tuple(self.listeners):
            event.set()
