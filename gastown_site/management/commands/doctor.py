"""`doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from agents import boxes
from agents.lifecycle import RunState
from agents.models import Run
from agents.runtime import sandbox
from agents.runtime.gitcmd import run_git
from beads import config as configs
from beads import owner, secrets
from beads.command import ExitWith, GastownCommand, Said, table
from beads.errors import GastownError
from beads.models import Effect, Fact, Rig, Town
from gastown_site import database, entrance, escape, health
from refinery.hosts import checks
from refinery.tick import invariants

Check = tuple[str, str, str]  # ok, warn or fail; what; what to do


class Command(GastownCommand):
    help = "Check the installation."

    def run(self, **_: Any) -> Any:
        """All checks; exit 1 when one fails."""
        rows = [{"check": w, "state": s, "say": say} for s, w, say in _all()]
        text = table(rows, ["state", "check", "say"])
        for row in rows:
            if row["state"] == "fail" or row["check"] == "sandbox off":
                text = text.replace(row["say"], self.style.ERROR(row["say"]))
        said = Said(rows, text)
        if any(r["state"] == "fail" for r in rows):
            return ExitWith(said, 1)
        return said


def _all() -> Iterator[Check]:
    """Where tables are missing, nothing that looks into them is asked."""
    first = list(_database())
    yield from first
    checks = CHECKS
    if any(state == "fail" for state, _, _ in first):
        checks = [_tools]
    for check in checks:
        yield from check()


def _database() -> Iterator[Check]:
    with connection.cursor() as cursor:
        cursor.execute("show server_version")
        version = cursor.fetchone()[0]
    yield "ok", "database", f"PostgreSQL {version}"
    missing = health.missing_migrations()
    if missing:
        yield "fail", "migrations", database.unmigrated(len(missing))


def _tools() -> Iterator[Check]:
    version = run_git(["--version"], cwd="/").text.split()[2]
    git = "ok", "git", version
    if tuple(int(p) for p in version.split(".")[:2]) < (2, 38):
        git = "fail", "git", f"{version}: Gastown needs 2.38 or newer"
    yield git
    free, state = shutil.disk_usage(settings.GASTOWN_HOME).free, "ok"
    if free <= 2**30:
        state = "warn"
    yield state, "disk", f"{free // 2**20} MiB free under GASTOWN_HOME"


def _sandbox() -> Iterator[Check]:
    """Whether one can be started, whether it holds (it is really tried), and who does without."""
    found = sandbox.status(fresh=True)
    if found.kind != sandbox.BUBBLEWRAP:
        yield "fail", "sandbox", f"none can be started: {found.reason}. {found.remedy}"
    else:
        try:
            tried = escape.attempts()
        except OSError as error:
            yield "fail", "sandbox", f"{found.bwrap} ({found.version}) starts, but the probe does not: {error}"
        else:
            worked = [what for what, how in tried.items() if how]
            said = f"bubblewrap {found.version}, {found.bwrap}"
            if worked:
                yield "fail", "sandbox", f"{said} does not hold: from inside one can {', '.join(worked)}"
            else:
                yield "ok", "sandbox", f"{said}: {len(tried)} ways out were tried, none is open"
    off = [f"town {town.slug}" for town in Town.objects.all() if _is_off(town.config, {})]
    off += [f"rig {rig.slug}" for rig in Rig.objects.select_related("town") if _is_off(rig.town.config, rig.config)]
    if off:
        yield (
            "warn",
            "sandbox off",
            f"agents and gates run WITHOUT a sandbox, with the server's rights: {', '.join(off)}",
        )


def _is_off(town: dict[str, Any], rig: dict[str, Any]) -> bool:
    return boxes.mode(configs.usable(town, rig)[0]) is configs.SandboxMode.OFF


def _parts() -> Iterator[Check]:
    for found in health.standings():
        if found.part in ("database", "migrations"):
            continue
        if found.wrong:
            yield "warn", found.part, f"{found.wrong}: is gastown up running? what does it say?"
        else:
            yield "ok", found.part, "ok"


def _queues() -> Iterator[Check]:
    quarantined = Fact.objects.filter(processed_at=None, quarantined_at__isnull=False).count()
    if quarantined:
        yield "warn", "facts", f"{quarantined} in quarantine: see the admin, mend the cause, release them"
    failing = Effect.objects.pending().filter(attempts__gte=5).count()
    failed = Effect.objects.failed().count()
    if failing or failed:
        yield "warn", "effects", f"{failing} keep failing, {failed} gave up: see the admin"
    for rig in Rig.objects.select_related("town"):
        for problem in configs.usable(rig.town.config, rig.config)[1]:
            yield "fail", f"rig {rig.slug}", problem


def _secrets() -> Iterator[Check]:
    """Whether the owner's file and the secrets can be read, and what configs name that is not set."""
    try:
        owner.allowed()
        for town in Town.objects.order_by("slug"):
            secrets.values(town, secrets.names(town))
    except GastownError as error:
        yield "fail", "secrets", error.message
    for rig in Rig.objects.select_related("town").order_by("slug"):
        for note in secrets.notes(rig):
            yield "warn", f"rig {rig.slug}", note


def _hosts() -> Iterator[Check]:
    """Whether hosts of pull requests can be asked, with all the rights that are needed."""
    for rig in Rig.objects.select_related("town").order_by("slug"):
        found = checks.look(rig)
        for wrong in found.wrong:
            yield "warn", f"pull requests of {rig.slug}", wrong
        if found.says and not found.wrong:
            yield "ok", f"pull requests of {rig.slug}", found.says


def _invariants() -> Iterator[Check]:
    """What constraints cannot say."""
    broken = [(town, b) for town in Town.objects.all() for b in invariants.check(town, timezone.now())]
    for town, found in broken:
        told = f"{found.subject} of town {town.slug}: {found.invariant.sentence}. To mend it: {found.invariant.remedy}"
        yield "fail", f"invariant {found.invariant.number}", told
    if not broken:
        yield "ok", "invariants", f"{len(invariants.INVARIANTS)} hold"


def _workspaces() -> Iterator[Check]:
    root = Path(settings.GASTOWN_HOME) / "workspaces"
    names = []
    if root.is_dir():
        names = [p.name for p in root.iterdir()]
    live = set(Run.objects.filter(pk__in=names).exclude(state=RunState.ENDED).values_list("pk", flat=True))
    orphans = [n for n in names if n not in live]
    if orphans:
        yield "warn", "workspaces", f"{len(orphans)} of ended runs; the runner removes them: {', '.join(orphans[:5])}"


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _front() -> Iterator[Check]:
    """People's sessions, and whether anybody can log in."""
    url = urlsplit(settings.GASTOWN_URL)
    if url.scheme == "https" or url.hostname in LOOPBACK:
        yield "ok", "sessions", "cookies travel over https or stay on this machine"
    else:
        yield "warn", "sessions", f"{settings.GASTOWN_URL} is not https: passwords travel in the clear"
    if not get_user_model()._default_manager.filter(is_active=True).exists():
        yield "warn", "people", "nobody can log in: gastown person create NAME --superuser"
    if os.environ.get("GASTOWN_METRICS_TOKEN"):
        yield "ok", "metrics", "a scraper sends GASTOWN_METRICS_TOKEN as a bearer token"
    else:
        file = Path(settings.GASTOWN_HOME) / "keys" / "metrics_token"
        yield "ok", "metrics", f"a scraper sends the bearer token in {file}"
    if entrance.password_file().exists():
        yield "warn", "first password", f"{entrance.password_file()} is there until admin has logged in once"


CHECKS: list[Callable[[], Iterator[Check]]] = [
    _tools, _sandbox, _parts, _queues, _secrets, _hosts, _invariants, _workspaces, _front
]  # fmt: skip
