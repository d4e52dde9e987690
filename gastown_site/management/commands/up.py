"""`up`: the whole installation in one command."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from beads import installations
from beads.errors import GastownError
from beads.replies import refuse
from gastown_site import database, entrance, home
from gastown_site.parts import supervisor


class Command(BaseCommand):
    help = "Database, migrations and all parts of an installation, until SIGTERM or Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Arguments."""
        supervisor.arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or Ctrl-C."""
        try:
            self._up(options["host"], options["port"])
        except GastownError as error:
            refuse(error, as_json=False)

    def _up(self, host: str, port: int) -> None:
        url = supervisor.local_url(host, port)
        home.ensure()
        home.hold(f"process {os.getpid()}, {url}/, since {timezone.now():%Y-%m-%d %H:%M:%S} UTC")
        supervisor.check_port(host, port)
        database.ensure_running()
        database.ensure_migrated()
        me = installations.identity()
        installations.take(me, say=self._say)
        for line in entrance.first_account():
            self._say(line)
        supervisor.Supervisor(supervisor.parts(host, port), url, self._say, me).run()
        database.stop()

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
