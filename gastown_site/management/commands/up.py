"""`up`: the whole installation in one command."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from beads.errors import GastownError
from beads.replies import refuse
from gastown_site import database, home, supervisor


class Command(BaseCommand):
    help = "Database, migrations, web, cluster, reconciler, runner; stops them all on SIGTERM."
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
        self._first_operator()
        supervisor.Supervisor(supervisor.parts(host, port), supervisor.local_url(host, port), self._say).run()
        database.stop()

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _first_operator(self) -> None:
        """Make the account `admin` when there is no user at all; its password is shown this once."""
        from django.contrib.auth import get_user_model

        users = get_user_model().objects
        if users.exists():
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser("admin", "", password)
        file = home.path() / "admin_password"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(password + "\n")
        self._say(f"first start: log in as admin with the password {password} (kept in {file})")
        self._say(f"change it: {Path(sys.executable).with_name('gastown')} person password admin")
