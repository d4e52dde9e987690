"""GASTOWN_HOME: where an installation keeps its state, and the secret in it. Stdlib only."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import IO

from beads import private
from beads.errors import Refused

# Folders of ours in the home: sources, logs, caches and keys, for nobody else's eyes.
OURS = (
    "repos", "worktrees", "workspaces", "gates", "runs", "caches", "keys", "secrets", "stage", "logs", "salvage",
    "archive", "sessions",
)  # fmt: skip
RESTORING = "restoring"  # is there while a home is half-made: see `gastown_site.backups.restore`
restoring = False  # this process makes it
_closed: set[Path] = set()  # homes that this process has looked at
_held: IO[str] | None = None  # the lock of a running `up`


def path() -> Path:
    """The home directory as configured (not created): `GASTOWN_HOME`, or a per-user default."""
    given = os.environ.get("GASTOWN_HOME")
    if given:
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/gastown")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "gastown"


def be_private() -> None:
    """From now on this process and what it starts make files for their owner only (umask 077).

    What others are to see says so where it is made: commands of agents and gates, checked-out trees and pushes to a
    remote of this machine have umask 022 (`agents.runtime.steps`, `agents.runtime.gitcmd`).
    """
    os.umask(0o077)


def ensure() -> Path:
    """Create the home, for its owner only; raises Refused with one line when it cannot be written.

    The home of an older installation is closed to others here, and the folders of ours in it (0700). As root the
    embedded PostgreSQL runs as a user without rights, whose group may pass through the home, and see nothing in it
    (0710): see `gastown_site.database`.
    """
    home = path()
    refuse_half_made()
    try:
        if not home.is_dir():
            _make_parents(home.parent)
            home.mkdir(mode=0o700, exist_ok=True)
        if home not in _closed:
            _close(home)
            _closed.add(home)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise Refused(
            f"GASTOWN_HOME {home} is not writable ({error.strerror}): set GASTOWN_HOME to a directory of yours"
        ) from error
    return home


def refuse_half_made() -> None:
    """Raise Refused for a home into which a restore is going on, or was cut off."""
    if not restoring and (path() / RESTORING).exists():
        raise Refused(
            f"a restore into GASTOWN_HOME {path()} is not finished: run `gastown restore FILE` again, it begins anew",
            code="half_restored",
        )


def _make_parents(directory: Path) -> None:
    """What is missing above the home. It is not ours: as root others may pass, as they may through /var/lib."""
    mode = 0o700
    if os.geteuid() == 0:
        mode = 0o755
    for parent in [*reversed(directory.parents), directory]:
        if not parent.exists():
            parent.mkdir(mode=mode, exist_ok=True)
            parent.chmod(mode)  # whatever the umask


def _close(home: Path) -> None:
    """Take from others what an older release, or whoever made the home, has given them."""
    for place, passable in ((home, True), *((home / name, False) for name in OURS)):
        try:
            found = place.stat(follow_symlinks=place == home)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            continue
        keeps = 0o710 if passable and os.geteuid() == 0 else 0o700  # the group's bit: given by the database alone
        if found.st_mode & 0o777 & ~keeps:
            place.chmod(found.st_mode & keeps | 0o700)


def hold(told: str) -> None:
    """As `up`: have the home for oneself until this process ends. Raises Refused with what the other `up` told."""
    global _held
    lock = (ensure() / "up.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        said = lock.read().strip()
        lock.close()
        which = ""
        if said:
            which = f" ({said})"
        raise Refused(f"gastown up runs already for {path()}{which}: stop that one first", code="conflict") from None
    lock.truncate(0)
    lock.write(told)
    lock.flush()
    _held = lock


def leave_to_parent() -> None:
    """In a fork: it is the parent that holds the home."""
    global _held
    if _held is not None:
        _held.close()  # the parent's lock stays
        _held = None


def let_through(group: int) -> None:
    """As root: let the processes of this group pass through the home, and nothing else."""
    home = ensure()
    found = home.stat()
    if found.st_uid != os.geteuid() or (found.st_gid, found.st_mode & 0o777) == (group, 0o710):
        return
    os.chown(home, -1, group)
    home.chmod(0o710)


def secret_key() -> str:
    """The installation's secret, generated once (0600). Two first starts at once agree on one."""
    return made_once(ensure() / "secret_key", secrets.token_urlsafe(50))


def metrics_token() -> str:
    """What a scraper shows at `/metrics` and `/readyz` when GASTOWN_METRICS_TOKEN is not set; made once (0600)."""
    keys = ensure() / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    return made_once(keys / "metrics_token", secrets.token_urlsafe(32))


def made_once(file: Path, content: str) -> str:
    """The file's content; `content` is put there when it is missing. Two first starts at once agree on one."""
    private.write_once(file, content)
    return file.read_text().strip()
