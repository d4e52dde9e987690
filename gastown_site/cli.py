"""The command line's entry: brings the database up for commands that need it, then hands over to Django.

Exit 0 done, 1 refused or failed (one clear line on stderr), 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys

NO_DATABASE = {"help", "version", "--help", "--version", "-h", "collectstatic", "check", "test"}
OWN_DATABASE = {"up", "demo"}
WITHOUT_SETTINGS = {"restore"}  # no management commands: settings would make the keys that are to be restored
SERVERS = {"up", "web"}
HELP = """usage: gastown COMMAND ...        (gastown COMMAND --help says more; --json on all that answer)

the installation
  up            database, web, reconciler, runner: all of it, until Ctrl-C (--port, --host)
  backup        all of it into one file, from a town at work
  restore       a backup into an empty GASTOWN_HOME
  doctor        check it; try to break out of the sandbox
  demo          two convoys of scripted agents on a clone of this project
  person        accounts and their roles: create, grant, list, password, unlock
  town          tenants: create, config, pause, resume, webhook-secret
  agents        coding agents: list (what is here of each), check (does it work?)
  secret        secrets for runs, and for the server's own git: set, list, remove, rotate

work
  rig           git repositories: add, list, config, park, host-key
  sling         give one bead to a rig's agents
  mayor         ask for a plan: a staged convoy, a question, or an answer
  convoy        batches of beads: create, start, list, show, close
  bead          the ledger of work: show, list, retry, confirm, release, cancel, block
  mq            the merge queue: submit, list, show, approve, retry, freeze, land-now
  runs          processes of agents and gates: list, show, log, stop
  wait          until a bead, an entry or a convoy has ended
  escalations   what needs a person: list, ack, close
  mail          between agents and people
  usage         what models were used, and what that cost

looking closer
  tick          one step of the plan; --explain --dry-run says why each thing stands where it stands
  replay        what past facts would do again, rolled back
  simulate      the queue under a load, in virtual time
  housekeeping  remove what is past its retention

gastown migrate brings a database of DATABASE_URL up to this release.
gastown help --commands lists the server's parts and Django's own commands, too."""
UNMIGRATED = {"migrate", "makemigrations", "dbshell", "shell", "qcluster"}


def main() -> None:
    """Run one command of `sys.argv`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")
    from beads.errors import GastownError
    from gastown_site import home

    home.be_private()  # and all that it forks: the supervisor's parts, shims

    argv = sys.argv
    if argv[1:] in ([], ["help"], ["--help"], ["-h"]):
        sys.stdout.write(f"{HELP}\n")
        return
    command = "help"
    if len(argv) > 1:
        command = argv[1]
    if command in WITHOUT_SETTINGS:
        from gastown_site.backups import restore

        restore.main(argv[2:])
        return
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
    home.refuse_half_made()
    if {"-h", "--help"} & set(argv):
        return
    if command in SERVERS:
        _tell_url(command, argv[2:])
    if command in NO_DATABASE | OWN_DATABASE:
        return
    from beads.errors import GastownError
    from gastown_site import database

    database.ensure_running()
    if command not in UNMIGRATED:
        import django

        django.setup()
        try:
            database.ensure_migrated()
        except GastownError as error:
            if command != "doctor" or error.code != "unmigrated":  # which says it among what else it finds
                raise


def _tell_url(command: str, words: list[str]) -> None:
    """Where we shall serve, before the settings ask for it."""
    from gastown_site.parts import supervisor

    parser = argparse.ArgumentParser(prog=command, add_help=False)
    supervisor.arguments(parser)
    where, _ = parser.parse_known_args(words)
    os.environ["GASTOWN_URL"] = os.environ.get("GASTOWN_URL") or supervisor.local_url(where.host, where.port)


if __name__ == "__main__":
    main()
