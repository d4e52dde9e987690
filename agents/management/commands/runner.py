"""The runner process (one of the processes of `up`)."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from agents.runner import Runner


class Command(BaseCommand):
    help = "Pick queued runs, prepare their workspaces, start their shims."

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGTERM; shims go on without us."""
        runner = Runner()

        def stop(*_: object) -> None:
            runner.stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        runner.serve()
