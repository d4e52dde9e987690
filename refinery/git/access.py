"""What a repository needs of its rig's secrets: asked for only when it is used, for pages read without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """`env`: the variables that open the remote; `signing_key`: the file of the key that signs what is built. Both may
    raise as `agents.access` does. Without a rig: none."""

    env: Callable[[], Mapping[str, str]] = dict
    signing_key: Callable[[], Path | None] = lambda: None
