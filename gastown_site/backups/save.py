"""`backup`: all of an installation that cannot be fetched or computed again, in one file, from a town at work.

In it: the database, each mirror's refs with their objects (so unlanded work survives without the remote), the keys,
work that was saved outside of git, the archive. Not in it: caches, logs of runs, agents' sessions,
workspaces of runs that are going on.

The order matters: *the refs are read before and after the database's snapshot, and packed together*. Work arrives in
the mirror before a row names it, so the refs of afterwards have all that the snapshot names, unless one was moved on or
dropped in between: that one is among those of before. What is dropped is dropped by housekeeping alone, which is kept
off meanwhile (`beads.upkeep`), as is `git gc`. More than the snapshot names does no harm: nothing acts on a ref that no
row names. Keys are read after the snapshot: they are only added to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from agents.models import Run
from agents.runtime.crashpoints import crashpoint
from agents.work import mirror_of
from beads import private, upkeep
from beads.errors import Refused
from beads.models import Rig
from gastown_site.backups import archive, pgtools
from gastown_site.backups.archive import Writer
from refinery.git import copies


def make(target: Path) -> dict[str, Any]:
    """Write a backup to `target`, whole or not at all; returns its manifest with `file` and `bytes`, and `notes`.

    A file that is there is replaced only when it is an older backup, or empty.
    """
    target = Path(os.path.abspath(target))
    if target.is_dir() or not target.parent.is_dir():
        raise Refused(f"{target} is no place for a file", details={"field": "file"})
    if target.exists() and target.stat().st_size:
        with contextlib.closing(_another(target)):
            pass
    with _partial(target) as file:
        version, database = pgtools.described()
        _check_space(target, database)
        with upkeep.undisturbed():
            manifest = _fill(Writer(file), version, database)
    return {**manifest, "file": str(target), "bytes": target.stat().st_size, "notes": _notes()}


def _another(target: Path) -> archive.Reader:
    try:
        return archive.Reader(target)
    except Refused:
        raise Refused(f"{target} exists and is no backup: give another name", details={"field": "file"}) from None


def _fill(writer: Writer, version: str, database: int) -> dict[str, Any]:
    """All parts, in the order that the module's text explains."""
    made_at = timezone.now()
    before = {rig.pk: _refs(rig) for rig in Rig.objects.all()}
    crashpoint("backup.refs")
    with writer.part(archive.DATABASE) as part, pgtools.dumping() as dump:
        part.copy(dump)
    crashpoint("backup.database")
    rigs = [_mirror(writer, rig, before.get(rig.pk, {})) for rig in Rig.objects.order_by("pk")]
    for path in _files():
        with writer.part(f"home/{path.relative_to(settings.GASTOWN_HOME)}") as part, path.open("rb") as source:
            part.copy(source)
    told = {
        "gastown": importlib.metadata.version("gastown"),
        "postgresql": version,
        "made_at": made_at.isoformat(),
        "home": settings.GASTOWN_HOME,
        "key_given": bool(os.environ.get("GASTOWN_SECRET_KEY")),
        "database_bytes": database,
        "migrations": _migrations(),
        "rigs": rigs,
    }
    writer.finish(told)
    return {**told, "parts": writer.parts}


def _refs(rig: Rig) -> dict[str, str]:
    mirror = mirror_of(rig.pk)
    if mirror.is_dir():
        return copies.refs(mirror)
    return {}


def _mirror(writer: Writer, rig: Rig, before: dict[str, str]) -> dict[str, Any]:
    """One rig's mirror: its refs of now, and all objects that these or those of before need."""
    now = _refs(rig)
    with writer.part(f"mirrors/{rig.pk}.refs") as part:
        part.write(json.dumps(now).encode())
    if now or before:
        with (
            writer.part(f"mirrors/{rig.pk}.pack") as part,
            copies.packing(mirror_of(rig.pk), [*now.values(), *before.values()]) as pack,
        ):
            part.copy(pack)
    crashpoint("backup.mirror")
    return {"id": rig.pk, "slug": rig.slug, "refs": len(now)}


def _files() -> Iterator[Path]:
    """The files of the home that are kept as they are. Links are not followed: we make none."""
    for name in archive.FILES:
        place = Path(settings.GASTOWN_HOME) / name
        found = [Path(root) / file for root, _, files in os.walk(place) for file in files] or [place]
        yield from sorted(path for path in found if path.is_file() and not path.is_symlink())


def _migrations() -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for app, name in sorted(MigrationRecorder(connection).applied_migrations()):
        told.setdefault(app, []).append(name)
    return told


def _notes() -> list[str]:
    """What is not in it, and somebody might miss."""
    notes = ["whoever has this file can open every secret and every account in it: keep it as you keep keys"]
    if os.environ.get("GASTOWN_SECRET_KEY"):
        notes.append("GASTOWN_SECRET_KEY is not in it: set the same one where it is restored")
    live = Run.objects.live().count()
    if live:
        notes.append(f"{live} runs are going on: what they have not handed in is not in it, and they start again")
    unsaved = Run.objects.filter(work="unsaved").count()
    if unsaved:
        notes.append(f"the work of {unsaved} ended runs could not be taken in: it is in GASTOWN_HOME/workspaces alone")
    return notes


# -- the file -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` (0600) that takes its name when the block ends well, and is removed when it does not."""
    aside = target.with_name(f".{target.name}.partial")
    with _as_refused(target):
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another backup is being written to {target}") from None
        os.fchmod(descriptor, 0o600)
        file.truncate()  # what a killed one has left
        try:
            with _as_refused(target):
                yield file
                file.flush()
                os.replace(aside, target)
                private.folder_to_disk(target.parent)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _as_refused(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Refused(
            f"the backup cannot be written to {target}: {error.strerror or error}",
            code="disk_full" if full else "refused",
            details={"field": "file"},
        ) from error


def _check_space(target: Path, database: int) -> None:
    """Refuse when it would not fit: a dump takes, compressed, at most about half of the database."""
    mirrors = sum(copies.size(mirror_of(rig.pk)) for rig in Rig.objects.all() if mirror_of(rig.pk).is_dir())
    needed = database // 2 + mirrors + sum(path.stat().st_size for path in _files())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise Refused(
            f"{target.parent} has {free >> 20} MiB free, and a backup may need {needed >> 20} MiB",
            code="disk_full",
            details={"free": free, "needed": needed},
        )
