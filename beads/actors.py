"""Who acts: a person or an agent by name, and the channel through which they came. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Actor:
    """Who decides something. `str()` of it is what facts, history and rows store: `web:ann`, `cli:ann`, `admin:ann`.

    `channel` is empty for who comes through none, such as an agent. `mail`: the person's own address where the channel
    knows it; it is compared with the authors of commits, and is no part of who the actor is.
    """

    channel: str
    name: str
    mail: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.channel:
            return f"{self.channel}:{self.name}"
        return self.name
