"""The only writer of HostedPull and RigHost: what a host has answered, and what we have said there.

All that comes from a host is an observation: told twice, or late, it changes nothing that a later one has said.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import QuerySet

from beads import prune
from beads.inbox import storable
from beads.models import Rig, Town
from refinery.models import HostedPull, RigHost

WAITS = tuple(dt.timedelta(seconds=s) for s in (5, 10, 20, 40, 60))  # then every 60 s
CALM = WAITS[-1]  # so long after its last pause a host is well again
HEARD = 400  # so much is remembered of what was taken in from one pull request
STATUSES = 200  # so many statuses of it are remembered


# -- the host --


def polled(rig: Rig, at: dt.datetime, etags: Mapping[str, str]) -> None:
    """A look that began at `at` was answered: whatever trouble was known is over. How often the host has failed is
    forgotten when it has been well for a while: a look that works says not yet that all else does."""
    known, _ = RigHost.objects.get_or_create(rig=rig)
    if known.polled_at is not None and known.polled_at >= at:
        return
    told: dict[str, Any] = {"polled_at": at, "etags": dict(etags), "kind": "", "trouble": ""}
    if known.next_try_at is None or at >= known.next_try_at + CALM:
        told |= {"since": None, "failures": 0, "next_try_at": None}
    else:
        told["next_try_at"] = min(at, known.next_try_at)  # it may be asked, and may fail again
    RigHost.objects.filter(pk=rig.pk).update(**told)


def unknown(rig: Rig, kind: str, error: str, wait: float, now: dt.datetime) -> None:
    """The host did not say. `wait`: so many seconds it is not to be asked, as it says itself."""
    known, _ = RigHost.objects.get_or_create(rig=rig)
    if known.next_try_at is not None and now < known.next_try_at and not wait:
        return  # it was asked before the trouble was known
    pause = max(WAITS[min(known.failures, len(WAITS) - 1)], dt.timedelta(seconds=min(wait, 3600.0)))
    told = {"kind": kind[:20], "trouble": storable(error[:1000]), "since": known.since or now}
    RigHost.objects.filter(pk=rig.pk).update(**told, failures=known.failures + 1, next_try_at=now + pause)


# -- pull requests --


def heard_of(rig: Rig, number: int, at: dt.datetime, *, calls: bool) -> None:
    """Something was heard of a pull request: it is to be read. `calls`: somebody calls us there, so that it concerns us
    from now on."""
    known = HostedPull.objects.filter(rig=rig, number=number)
    if known.filter(wanted_at__lt=at, ended_at=None).update(wanted_at=at):
        return
    if calls and not known.filter(ended_at=None).update(wanted_at=at):
        HostedPull.objects.update_or_create(rig=rig, number=number, defaults={"wanted_at": at, "ended_at": None})


def seen(rig: Rig, changed: Mapping[int, str], at: dt.datetime) -> None:
    """What a look has shown of those that concern us: by number, when each was changed. What was read then is old."""
    for row in HostedPull.objects.filter(rig=rig, number__in=list(changed), ended_at=None):
        if row.heard.get("changed") != changed[row.number]:
            told = {"heard": {**row.heard, "changed": changed[row.number]}, "wanted_at": max(at, row.wanted_at)}
            HostedPull.objects.filter(pk=row.pk).update(**told)


def read(rig: Rig, number: int, at: dt.datetime, state: Mapping[str, Any]) -> HostedPull | None:
    """What a reading that began at `at` has shown; the row, or None where a later one is known."""
    row = HostedPull.objects.select_related("entry").filter(rig=rig, number=number).first()
    if row is None or (row.read_at is not None and row.read_at >= at):
        return None
    row.read_at, row.state = at, storable(dict(state))
    if row.entry is not None and row.entry.head_sha == state.get("head"):
        row.head = row.entry.head_sha
    row.save(update_fields=["read_at", "state", "head"])
    return row


def offered(rig: Rig, entry: str, number: int, head: str, now: dt.datetime) -> None:
    """A pull request shows an entry. One that has shown another before, or was known before we were called there, shows
    this one from now on, and is whose it was."""
    HostedPull.objects.filter(entry=entry).exclude(rig=rig, number=number).update(entry=None)
    told = {"entry_id": entry, "head": head, "wanted_at": now, "ended_at": None, "told": ""}
    HostedPull.objects.update_or_create(rig=rig, number=number, defaults=told, create_defaults=told | {"offered": True})


def answered(rig: Rig, number: int, answer: str) -> None:
    """What our comment there says beside how it stands."""
    HostedPull.objects.filter(rig=rig, number=number).update(answer=storable(answer[:1000]), told="")


def heard(row: HostedPull, what: str, value: Any, answer: str, entry: str) -> None:
    """What was said there was taken in. `answer`: what came of it; `entry`: that it has become."""
    known = {k: v for k, v in row.heard.items() if k != what}
    for old in [k for k in known if k.startswith("r")][:-HEARD]:
        del known[old]
    change: dict[str, Any] = {"heard": {**known, what: value}}
    if answer:
        change |= {"answer": storable(answer[:1000]), "told": ""}
    if entry and entry != row.entry_id:
        HostedPull.objects.filter(entry=entry).exclude(pk=row.pk).update(entry=None)
        change |= {"entry_id": entry, "head": row.state.get("head", "")}
    HostedPull.objects.filter(pk=row.pk).update(**change)


def pushed(row: HostedPull, head: str, now: dt.datetime) -> None:
    """Its branch is where its entry is."""
    HostedPull.objects.filter(pk=row.pk).update(head=head, wanted_at=now)


def told(row: HostedPull, digest: str, comment: int, now: dt.datetime) -> None:
    """Our comment there says this."""
    HostedPull.objects.filter(pk=row.pk).update(told=digest, told_at=now, comment=comment)


def reported(row: HostedPull, said: Mapping[str, str], now: dt.datetime, *, ready: bool) -> None:
    """These statuses are there now, beside those that were said at the same head before. `ready`: it is no draft any
    more, which is to be read."""
    heads = {kept.partition(" ")[0] for kept in said.values()}
    before = {context: kept for context, kept in row.said.items() if kept.partition(" ")[0] in heads}
    latest = list({**before, **said}.items())[-STATUSES:]
    change: dict[str, Any] = {"said": dict(latest)}
    if ready:
        change["wanted_at"] = now
    HostedPull.objects.filter(pk=row.pk).update(**change)


def ended(row: HostedPull, now: dt.datetime) -> None:
    """It is over, and everything is said."""
    HostedPull.objects.filter(pk=row.pk).update(ended_at=now)


def past(town: Town, before: dt.datetime) -> QuerySet[HostedPull]:
    """Those that were over before then."""
    return HostedPull.objects.filter(rig__town=town, ended_at__lt=before).order_by("pk")


def forget_rows(keys: Sequence[int]) -> int:
    """Remove these: they have been archived."""
    return prune.some(HostedPull.objects.all(), keys)


def forget(entries: Sequence[str]) -> int:
    """Remove those that show these entries: they have been archived."""
    return prune.delete(HostedPull.objects.filter(entry__any=entries))
