"""The runner process (one of the processes of `up`)."""

from __future__ import annotations

import signal
import time
from typing import Any

import structlog
from django.core.management.base import BaseCommand
from django.db import OperationalError

from agents.api import commands
from agents.runner import Runner
from beads import installations

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Pick queued runs, prepare their workspaces, start their shims."

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGTERM; shims go on without us. Raises Refused when another installation works here."""
        runner = Runner(commands.table())

        def stop(*_: object) -> None:
            runner.stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        while not runner.stopping:
            try:
                installations.check(installations.identity())
                break
            except OperationalError as error:  # its database is waited for
                log.warning("runner.database", error=str(error))
                time.sleep(1)
        runner.serve()
