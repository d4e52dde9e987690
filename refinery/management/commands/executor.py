"""The executor process (one of the processes of `up`)."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from refinery.executor.worker import Executor


class Command(BaseCommand):
    help = "Do what is to be done outside the database: build, push, look at remotes, tell people."

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGTERM; what is at work ends first."""
        executor = Executor()

        def stop(*_: object) -> None:
            executor.stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        executor.serve()
