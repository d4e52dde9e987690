"""A port for a server that a test starts, and starts again."""

from __future__ import annotations

import random
import socket

LOWEST, ABOVE = 15_000, 32_000  # the system gives none of these to outgoing connections, not even between two starts


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(LOWEST, ABOVE)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
