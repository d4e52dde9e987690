"""Who guesses passwords is locked out for a while: by name and address, and by address (django-axes counts).

While somebody is locked out no password is computed, and the right one does not help. Guesses from one address are
taken one after the other, so that many at once cost no more than few. `gastown person unlock NAME` is the way out.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

PAIR_LIMIT: int = settings.AXES_FAILURE_LIMIT  # wrong passwords for one name from one address
ADDRESS_LIMIT = 30  # wrong passwords from one address, for whatever names


def client_address(request: HttpRequest) -> str:
    """Where a request comes from. Of an IPv6 address the network (/64), of which one client has all addresses.

    Behind https (`GASTOWN_URL` says so) a proxy of the owner's is in front, and what it has put last into
    X-Forwarded-For is the client; everywhere else that header is the client's own word, and is not looked at.
    """
    told = request.META.get("REMOTE_ADDR") or ""
    if settings.BEHIND_PROXY:
        told = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or told
    try:
        address = ipaddress.ip_address(told)
    except ValueError:
        return "0.0.0.0"  # noqa: S104 - nobody's: a socket without addresses, or a proxy that writes something else
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


class Backend(AxesStandaloneBackend):
    """Stands before the real one, and says no to who is locked out. Without a request nobody is at the door."""

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Nothing, or PermissionDenied."""
        if request is not None:
            super().authenticate(request, **credentials)


class Handler(AxesDatabaseHandler):
    """axes' counts, with a limit of its own for an address; a login clears only its own name's."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """As many as the limit when either limit is reached."""
        pair, address = (_sum(found) for found in self.get_user_attempts(request, credentials))
        if address >= ADDRESS_LIMIT:
            return max(pair, PAIR_LIMIT)
        return pair

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """After a login: the guesses at this name from here. Whoever has an account gets no more tries at others'."""
        gone: int = self.filter_user_attempts(request, credentials)[0].delete()[0]
        return gone


def _sum(attempts: Iterable[AccessAttempt]) -> int:
    return sum(a.failures_since_start for a in attempts)


def _ends(attempts: Iterable[AccessAttempt], limit: int) -> dt.datetime | None:
    """When so many guesses have been forgotten that fewer than `limit` are left; None when that is so now."""
    now = timezone.now()
    live = sorted((a for a in attempts if a.attempt_time + settings.AXES_COOLOFF_TIME > now), key=_time)
    left, end = _sum(live), None
    for attempt in live:
        if left < limit:
            break
        left -= attempt.failures_since_start
        end = attempt.attempt_time + settings.AXES_COOLOFF_TIME
    return end


def _time(attempt: AccessAttempt) -> dt.datetime:
    return attempt.attempt_time


def _latest(ends: Iterable[dt.datetime | None]) -> dt.datetime | None:
    return max((end for end in ends if end is not None), default=None)


def locked(names: Iterable[str]) -> dict[str, dt.datetime]:
    """Of these people, who is locked out from some address, and until when."""
    wanted = set(names)
    by_pair: dict[tuple[str, str], list[AccessAttempt]] = {}
    by_address: dict[str, list[AccessAttempt]] = {}
    for attempt in AccessAttempt.objects.all():
        by_pair.setdefault((attempt.username or "", attempt.ip_address or ""), []).append(attempt)
        by_address.setdefault(attempt.ip_address or "", []).append(attempt)
    shut = {address: _ends(found, ADDRESS_LIMIT) for address, found in by_address.items()}
    told: dict[str, dt.datetime] = {}
    for (name, address), found in by_pair.items():
        end = _latest((_ends(found, PAIR_LIMIT), shut[address], told.get(name)))
        if name in wanted and end is not None:
            told[name] = end
    return told


def unlock(name: str | None) -> int:
    """Forget the guesses at a name, and all that came from the addresses they came from; None: all guesses.

    Returns how many wrong passwords are forgotten.
    """
    found: QuerySet[AccessAttempt] = AccessAttempt.objects.all()
    if name is not None:
        addresses = found.filter(username=name).values("ip_address")
        found = found.filter(Q(username=name) | Q(ip_address__in=addresses))
    rows = list(found)
    AccessAttempt.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return _sum(rows)


def refused(request: HttpRequest, *_: Any) -> HttpResponse:
    """The page that says for how long. The same for a name that there is and for one that there is not."""
    name = request.POST.get("username", "")
    attempts = AccessAttempt.objects.filter(ip_address=client_address(request))
    end = _latest((_ends(attempts.filter(username=name), PAIR_LIMIT), _ends(attempts, ADDRESS_LIMIT)))
    seconds = 1.0
    if end is not None:
        seconds = max((end - timezone.now()).total_seconds(), 1)
    context = {"minutes": math.ceil(seconds / 60), "title": "Locked out"}
    page = TemplateResponse(request, "registration/locked.html", context, status=429)
    page["Retry-After"] = str(math.ceil(seconds))
    page["Cache-Control"] = "no-store"
    return page.render()


# -- one at a time --------------------------------------------------------------------------------------------------

_guard = threading.Lock()
_gates: dict[str, threading.Lock] = {}
_users: Counter[str] = Counter()


@contextlib.contextmanager
def in_turn(request: HttpRequest) -> Iterator[None]:
    """One login of an address at a time: else sixty guesses at once are all let in before the first has failed."""
    address = client_address(request)
    with _guard:
        gate = _gates.setdefault(address, threading.Lock())
        _users[address] += 1
    try:
        with gate:
            yield
    finally:
        with _guard:
            _users[address] -= 1
            if not _users[address]:
                del _users[address], _gates[address]
