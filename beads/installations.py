"""Which installation works on this database: one at a time, as mirrors, workspaces and logs are on its own disk.

Promises: a second one, on another host or with another home, is refused with the first one's host, home and since
when; one that is dead is not in the way for longer than it takes to see that it does nothing; whether two are the same
is told by the home's own key and the kernel's boot, so a host may be renamed. Ages are told by the database's clock.
Two `up` on one home are told apart by a file lock (`gastown_site.home`), which is exact; here they are the same.
"""

from __future__ import annotations

import datetime as dt
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from beads import private
from beads.errors import Refused
from beads.models import Installation

LOCK = 0x6A57003  # of its own: see beads.upkeep for the others
FRESH = dt.timedelta(seconds=60)
PATIENCE_SECONDS = 20.0  # it says every few seconds that it works (`gastown_site.parts.watch.LOOK_SECONDS`)


@dataclass(frozen=True)
class Identity:
    """Which installation this is."""

    home_key: str
    boot: str
    host: str
    home: str


def identity() -> Identity:
    """Of this process. The home's key is made once."""
    file = Path(settings.GASTOWN_HOME) / "installation_id"
    private.write_once(file, secrets.token_hex(16))
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = host
    return Identity(file.read_text().strip(), boot, host[:255], settings.GASTOWN_HOME)


def take(me: Identity, patience: float = PATIENCE_SECONDS, say: Callable[[str], None] = lambda line: None) -> None:
    """This installation works here from now on. Raises Refused when another one does; one that was seen of late is
    watched for so many seconds, and does not count unless it says once more that it works."""
    end = time.monotonic() + patience
    seen: dict[int, dt.datetime] = {}
    while True:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_xact_lock(%s)", [LOCK])
            others = list(_others(me))
            for other in others:
                if seen.get(other.pk, other.at) != other.at:
                    raise _refused(other)
            if not others or time.monotonic() >= end:
                Installation.objects.exclude(_is(me)).delete()
                now = {"host": me.host, "home": me.home, "since": Now(), "at": Now()}
                Installation.objects.update_or_create(home_key=me.home_key, boot=me.boot, defaults=now)
                return
        for other in others:
            if other.pk not in seen:
                say(f"{_name(other)} was at work here a moment ago: looking whether it still is")
            seen.setdefault(other.pk, other.at)
        time.sleep(0.5)


def beat(me: Identity) -> str:
    """Say that it still works. Returns the refusal when another one has taken over meanwhile, else an empty text: in a
    database that has lost the row (it was restored) it is made again."""
    if Installation.objects.filter(_is(me)).update(at=Now(), host=me.host, home=me.home):
        return ""
    try:
        check(me)
    except Refused as error:
        return error.message
    take(me, patience=0)
    return ""


def check(me: Identity) -> None:
    """Raises Refused when another installation works here. Takes nothing."""
    other = _others(me).first()
    if other is not None:
        raise _refused(other)


def leave(me: Identity) -> None:
    """It has ended."""
    Installation.objects.filter(_is(me)).delete()


def _is(me: Identity) -> Q:
    return Q(home_key=me.home_key, boot=me.boot)


def _others(me: Identity) -> QuerySet[Installation]:
    return Installation.objects.filter(at__gt=Now() - FRESH).exclude(_is(me)).order_by("pk")


def _name(other: Installation) -> str:
    return f"the installation on host {other.host} with the home {other.home}"


def _refused(other: Installation) -> Refused:
    return Refused(
        f"{_name(other)} works on this database since {other.since:%Y-%m-%d %H:%M:%S} UTC, and only one may: stop that "
        "one first, or give this one a database of its own (DATABASE_URL; unset: its own embedded PostgreSQL)",
        code="conflict",
        details={"host": other.host, "home": other.home, "since": other.since.isoformat()},
    )
