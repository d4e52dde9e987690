"""The web process (one of the processes of `up`)."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from gastown_site.parts import supervisor, web


class Command(BaseCommand):
    help = "Serve pages, the console and tool calls."

    def add_arguments(self, parser: CommandParser) -> None:
        """Arguments."""
        supervisor.arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGTERM."""
        web.serve(options["host"], options["port"])
