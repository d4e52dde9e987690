"""The web process of `up`: uvicorn that lets the live pages' streams go when it is told to stop, and that bears only so
much of its clients (`gastown_site.parts.guard`).

A stream has no end of its own, and uvicorn waits for what is under way: without this, a browser that looks at a page
would hold up the shutdown.
"""

from __future__ import annotations

import gc
from types import FrameType
from typing import cast

import uvicorn

from gastown_site.parts import guard

GRACE_SECONDS = 5  # for requests under way
# Who asks while the database is away is told soon; an attempt that was given up is made anew by the next who asks, and
# does not back off for minutes after the database is there again.
POOL = {"min_size": 2, "max_size": 20, "timeout": 5, "reconnect_timeout": 10}


class Server(uvicorn.Server):
    """Uvicorn's server, which tells the hub first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        from refinery.pages.live import hub

        hub.close()
        super().handle_exit(sig, frame)


def settle() -> None:
    """Call it once all is imported: the garbage collector then leaves the code alone, and lets a page be made in peace.

    A page makes ten thousands of objects that all go with it; looking through a whole Django for each few hundred of
    them takes longer than some of the pages.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def share_connections() -> None:
    """Threads come and go here: they take their connections to the database from a pool."""
    from django.db import connections

    ours = connections.settings["default"]
    ours["CONN_MAX_AGE"] = 0
    ours["OPTIONS"] = {**ours["OPTIONS"], "pool": POOL}


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM."""
    from django.conf import settings

    from gastown_site.asgi import application

    share_connections()
    guard.Protocol.most_connections = guard.make_room()
    guard.Protocol.per_address = None if settings.BEHIND_PROXY else guard.PER_ADDRESS
    config = uvicorn.Config(
        guard.bounded(cast(guard.App, application)),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http=guard.Protocol,
        ws="none",
        proxy_headers=False,  # else anybody on this machine says where he comes from: see lockout.client_address
        server_header=False,
        timeout_keep_alive=int(guard.KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    settle()
    Server(config).run()
