"""The command line's entry: brings the database up for commands that need it, then hands over to Django.

Exit 0 done, 1 refused or failed (one clear line on stderr), 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys

NO_DATABASE = {"help", "version", "--help", "--version", "-h", "collectstatic", "check", "test"}
OWN_DATABASE = {"up", "demo"}
SERVERS = {"up", "web"}
UNMIGRATED = {"migrate", "makemigrations", "dbshell", "shell", "qcluster"}


def main() -> None:
    """Run one command of `sys.argv`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")
    from beads.errors import GastownError
    from gastown_site import home

    home.be_private()  # and all that it forks: the supervisor's parts, shims

    argv = sys.argv
    command = argv[1] if len(argv) > 1 else "help"
    try:
        _prepare(command, argv)
        from django.core.management import execute_from_command_line

        execute_from_command_line(argv)
    except GastownError as error:
        from beads.replies import refuse

        refuse(error, as_json="--json" in argv)


def _prepare(command: str, argv: list[str]) -> None:
    """Start the embedded database for the length of this process, and bring its tables up to date."""
    from gastown_site import home

    if command == "demo":
        os.environ["GASTOWN_HOME"] = os.environ.get("DEMO_HOME") or str(home.path() / "demo")
    if {"-h", "--help"} & set(argv):
        return
    if command in SERVERS:
        _tell_url(command, argv[2:])
    if command in NO_DATABASE | OWN_DATABASE:
        return
    from gastown_site import database

    database.ensure_running()
    if command not in UNMIGRATED:
        import django

        django.setup()
        database.ensure_migrated()


def _tell_url(command: str, words: list[str]) -> None:
    """Where we shall serve, before the settings ask for it."""
    from gastown_site import supervisor

    parser = argparse.ArgumentParser(prog=command, add_help=False)
    supervisor.arguments(parser)
    where, _ = parser.parse_known_args(words)
    os.environ["GASTOWN_URL"] = os.environ.get("GASTOWN_URL") or supervisor.local_url(where.host, where.port)
