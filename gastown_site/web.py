"""The web process of `up`: uvicorn that lets the live pages' streams go when it is told to stop.

A stream has no end of its own, and uvicorn waits for what is under way: without this, a browser that looks at a page
would hold up the shutdown.
"""

from __future__ import annotations

import argparse
import gc
from types import FrameType

import uvicorn

GRACE_SECONDS = 5  # for requests under way


class Server(uvicorn.Server):
    """Uvicorn's server, which tells the hub first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        from refinery.live import hub

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


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    from gastown_site.asgi import application

    config = uvicorn.Config(
        application,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    settle()
    Server(config).run()


if __name__ == "__main__":
    main()
