"""What a repository needs of its rig's secrets: asked for only when it is used, for pages read without."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agents import access
from beads.models import Rig


@dataclass(frozen=True)
class Access:
    """`env`: the variables that open the remote; `signing_key`: the file of the key that signs what is built. Both may
    raise as `agents.access` does. Without a rig: none."""

    env: Callable[[], Mapping[str, str]] = dict
    signing_key: Callable[[], Path | None] = lambda: None


def access_of(rig: Rig) -> Access:
    """A rig's own credential and signing key, each read once by whoever holds this."""
    return Access(functools.cache(lambda: access.access_of(rig)), functools.cache(lambda: access.signing_key(rig)))
