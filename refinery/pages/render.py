"""Renders a page whole, or only its live part: `<title>` and `<main>`, for browsers that were told of a change.

A live part is made once for each (page, version, rights), however many browsers ask for it: so what it shows may
depend on nothing else of the user. Forms get their own CSRF token when it is handed out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse

from beads import people
from beads.models import Town, TownRole
from refinery.pages.live import Topic, hub, shelf

HEADER = "X-Gastown-Live"
_TOKEN = secrets.token_urlsafe(32)  # stands for the CSRF token in what is shared


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do on a page: act on reviews; steer convoys and settle escalations. And which towns it shows."""

    review: bool
    steer: bool
    towns: tuple[int, ...]


def rights(request: HttpRequest, town: Town | None) -> Rights:
    """The rights of who is logged in, in a town; on a page of several towns, those held in all of them."""
    user = cast(Any, request.user)
    shown = (town.pk,) if town else tuple(people.towns(user).values_list("pk", flat=True))
    return Rights(
        review=all(people.may(user, key, TownRole.REVIEWER) for key in shown),
        steer=all(people.may(user, key, TownRole.OPERATOR) for key in shown),
        towns=shown,
    )


def page(
    request: HttpRequest,
    template: str,
    make: Callable[[], dict[str, Any]],
    *,
    topic: Topic | None,
    town: Town | None = None,
    here: str = "",
) -> HttpResponse:
    """Answer with `template` on what `make` returns. `town`: whose page it is (None: that of
    several). `topic`: what it follows; None: it has come to rest. `here`: the page's lasting address, where the one
    that was asked for is not."""
    may = rights(request, town)
    version = ""
    if topic:
        version = hub.version(topic)
    known = {"may": may, "events": _stream(topic), "version": version, "here": here or request.get_full_path()}
    if HEADER not in request.headers:
        return render(request, template, make() | known | {"layout": "base.html"})

    def part() -> bytes:
        """The live part, with a place held for the CSRF token."""
        return render_to_string(template, make() | known | {"layout": "partial.html", "csrf_token": _TOKEN}).encode()

    if version:
        body = shelf.get((template, known["here"], version, *asdict(may).values()), part)
    else:
        body = part()
    answer = HttpResponse(body.replace(_TOKEN.encode(), get_token(request).encode()))
    answer["Cache-Control"] = "no-store"
    return answer


def _stream(topic: Topic | None) -> str:
    """The address of a topic's events."""
    if topic is None:
        return ""
    address = reverse("events", args=[topic.town]) if topic.town else reverse("events-all")
    if topic.run:
        return f"{address}?run={topic.run}{'&log' if topic.files else ''}"
    return address
