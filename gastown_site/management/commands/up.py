"""`up`: the whole installation in one command."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from beads.errors import GastownError
from beads.replies import refuse
from gastown_site import database, entrance, home, supervisor


class Command(BaseCommand):
    help = "Database, migrations, web, cluster, reconciler, executor, runner; stops them all on SIGTERM."
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
        supervisor.check_port(host, port)
        home.ensure()
        database.ensure_running()
        database.ensure_migrated()
        for line in entrance.first_account():
            self._say(line)
        supervisor.Supervisor(supervisor.parts(host, port), supervisor.local_url(host, port), self._say).run()
        database.stop()

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
