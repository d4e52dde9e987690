"""The only writer of Outage: what of the outside world does not work now, since when, and when it is tried again.

A remote that does not answer, or says no to everything, is met once and not by each piece of work anew: while an outage
lasts, nothing that needs the remote is started, but for a look when its time has come (a circuit breaker with probes).
One key for what only a rig has (`rig:7`: its credential, its branch), one for what all have whose remote is on a host
(`host:git.example.org:443`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F

from beads import inbox, outbox
from beads.inbox import storable
from beads.models import Outage, Rig, Town

LOOKS = tuple(dt.timedelta(seconds=s) for s in (5, 10, 20, 40, 60))  # then every 60 s
_REMOTE = re.compile(r"(?:(?P<scheme>\w+)://)(?:[^/@\s]*@)?(?P<host>\[[^\]]+\]|[^/:\s]+)(?::(?P<port>\d+))?(?:/|$)")
_SCP = re.compile(r"(?:[^/@\s]*@)(?P<host>[\w.-]+):")
_PORTS = {"https": "443", "http": "80", "ssh": "22", "git": "9418"}


def host_of(url: str) -> str:
    """`host:port` of a remote; empty for a path on this machine."""
    if found := _REMOTE.match(url):
        scheme = found["scheme"]
        if scheme == "file":
            return ""
        return f"{found['host'].lower()}:{found['port'] or _PORTS.get(scheme, '')}"
    found = _SCP.match(url)
    if found:
        return f"{found['host'].lower()}:22"
    return ""


def rig_key(rig_id: int) -> str:
    """The key of what only this rig has."""
    return f"rig:{rig_id}"


def host_key(url: str) -> str:
    """The key of what all have whose remote is on this one's host; empty for a path on this machine."""
    host = host_of(url)
    if host:
        return f"host:{host}"
    return ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a remote was met with. `whole_host`: all who have their remote on its host have the same. `at_work`: it was
    not seen by looking at the remote. `branch`: the default branch that the remote names, where it is not the rig's."""

    kind: str
    error: str
    whole_host: bool = False
    at_work: bool = False
    branch: str = ""


def failed(rig: Rig, trouble: Trouble, now: dt.datetime) -> None:
    """Work for `rig` has failed by an outage."""
    key = rig_key(rig.pk)
    if trouble.whole_host:
        key = host_key(rig.remote_url) or key
    told: dict[str, Any] = {"rig": rig, "kind": trouble.kind[:20], "error": storable(trouble.error[:2000])}
    told |= {"failed_at": now, "at_work": trouble.at_work, "branch": storable(trouble.branch[:255])}
    with transaction.atomic():
        found = Outage.objects.select_for_update().filter(pk=key).first()
        if found is None:
            fresh = Outage(key=key, since=now, next_look_at=now + LOOKS[0], **told)
            Outage.objects.bulk_create([fresh], ignore_conflicts=True)
        elif now >= found.next_look_at:
            wait = LOOKS[min(found.failures, len(LOOKS) - 1)]
            Outage.objects.filter(pk=key).update(failures=F("failures") + 1, next_look_at=now + wait, **told)
        else:  # it was begun before the outage was known: this is no further look
            return
        _tell(key, rig)


def worked(rig: Rig) -> bool:
    """The remote has done for `rig` what it was asked to: whatever outage of it was known is over. True if one was."""
    known = list(Outage.objects.filter(pk__in=[rig_key(rig.pk), host_key(rig.remote_url)]).values_list("pk", flat=True))
    if not known:
        return False  # nearly always: this is asked after all that is done at a remote
    with transaction.atomic():
        gone = [key for key in known if Outage.objects.filter(pk=key).delete()[0]]
        for key in gone:
            _tell(key, rig)
    return bool(gone)


def look_now(rigs: Iterable[Rig], now: dt.datetime) -> None:
    """A person has mended something, or wants to know: outages of these rigs are looked at at once."""
    keys = [key for rig in rigs for key in (rig_key(rig.pk), host_key(rig.remote_url)) if key]
    if Outage.objects.filter(pk__in=keys).update(next_look_at=now):
        outbox.wake()


def _tell(key: str, rig: Rig) -> None:
    """Whoever waits for it: the executor, and the towns with rigs that have it."""
    outbox.wake()
    if key == rig_key(rig.pk):
        inbox.wake(rig.town)
        return
    urls: Iterable[tuple[int, str]] = Rig.objects.values_list("town_id", "remote_url")
    for town in Town.objects.filter(pk__in={town for town, url in urls if host_key(url) == key}):
        inbox.wake(town)
