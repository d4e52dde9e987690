"""PostgreSQL's own programs for dumps, at the installation's database, embedded or not. Nothing of Django is needed.

The dump is pg_dump's custom format: compressed, of one snapshot, and read by any later PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import psycopg
from psycopg import conninfo

from beads.errors import Refused
from gastown_site import database, pgplaces

CHUNK = 1 << 20


def url() -> str:
    """The installation's database, as libpq understands it."""
    given = os.environ.get("DATABASE_URL") or database.url()
    scheme, _, rest = given.partition("://")
    if scheme not in ("postgres", "postgresql", "psql", "pgsql"):
        raise Refused(f"DATABASE_URL names no PostgreSQL database, but one of {scheme}")
    return f"postgresql://{rest}"


def connect() -> psycopg.Connection[Any]:
    """A connection of one's own. Raises Refused with what the server said."""
    try:
        return psycopg.connect(url(), autocommit=True, connect_timeout=30)
    except psycopg.Error as error:
        raise Refused(f"the database cannot be reached: {_line(str(error))}", code="database") from None


def described() -> tuple[str, int]:
    """The server's version, and the bytes that the database takes on its disk."""
    with connect() as connection:
        row = connection.execute(
            "select current_setting('server_version'), pg_database_size(current_database())"
        ).fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


def is_empty() -> bool:
    """True when the database has no table."""
    with connect() as connection:
        found = connection.execute(
            "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema') limit 1"
        ).fetchone()
    return found is None


@contextlib.contextmanager
def dumping() -> Iterator[IO[bytes]]:
    """The dump, to be read to its end inside the block. Raises Refused when it was not made whole."""
    with tempfile.TemporaryFile() as said, _started("pg_dump", ["--format=custom"], said, out=True) as process:
        assert process.stdout is not None
        yield process.stdout
        if process.wait():
            raise _failure("pg_dump", said)


def load(dump: IO[bytes]) -> None:
    """Fill the empty database with a dump: all of it, or (when it fails, or we are killed) nothing."""
    words = ["--format=custom", "--single-transaction", "--exit-on-error"]
    with tempfile.TemporaryFile() as said, _started("pg_restore", words, said, out=False) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has failed, and says why
            while data := dump.read(CHUNK):
                process.stdin.write(data)
            process.stdin.close()
        if process.wait():
            raise _failure("pg_restore", said)
    with connect() as connection:
        connection.execute("analyze")  # the planner knows nothing yet


@contextlib.contextmanager
def _started(name: str, words: list[str], said: IO[bytes], *, out: bool) -> Iterator[subprocess.Popen[bytes]]:
    """One of the programs at work on the database, and ended with the block. The password is in no argument."""
    try:
        known = conninfo.conninfo_to_dict(url())
    except psycopg.ProgrammingError as error:
        raise Refused(f"DATABASE_URL: {_line(str(error))}") from None
    password = known.pop("password", None)
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or name.startswith("PG")}
    env |= {"LC_ALL": "C.UTF-8", **({"PGPASSWORD": str(password)} if password else {})}
    target = ["--dbname", conninfo.make_conninfo("", **known)]
    command = [pgplaces.program(name), "--no-password", "--no-owner", "--no-privileges", *words, *target]
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL if out else subprocess.PIPE,
        stdout=subprocess.PIPE if out else subprocess.DEVNULL,
        stderr=said,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate() if out else process.wait()


def _failure(name: str, said: IO[bytes]) -> Refused:
    """Why one of them failed, in its own words."""
    said.seek(0)
    text = said.read(1 << 16).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if "error:" in line] or text.strip().splitlines() or ["no reason given"]
    remedy = ""
    if "version mismatch" in text or "unsupported version" in text:
        remedy = (
            ": name the folder of PostgreSQL's programs of that version, as in "
            "GASTOWN_POSTGRES_BIN=/usr/lib/postgresql/18/bin"
        )
        detail = [line for line in text.splitlines() if "server version" in line]
        lines = detail or lines
    return Refused(f"{name} failed: {_line(lines[0])}{remedy}", code="database")


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
