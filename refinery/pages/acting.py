"""What people do on pages: who may, the form of a verb, what is said of it. The pages' one way to decisions.

Pages that carry out a verb ask `wanted` (role and row) and then `carried_out` (form and decision).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.db.models import Model
from django.http import Http404, HttpRequest
from django.urls import reverse

from agents.models import Run
from beads import people
from beads.actors import Actor
from beads.errors import NotFound
from beads.forms import Fields
from beads.models import Bead, Convoy, Escalation, Town, TownRole
from refinery.decisions import verbs
from refinery.decisions.forms import form_of
from refinery.decisions.subjects import SUBJECTS
from refinery.models import ReviewEntry

ADDRESSES: dict[type[Model], str] = {
    Bead: "bead-act",
    Convoy: "convoy-act",
    Escalation: "escalation-act",
    ReviewEntry: "review-act",
    Run: "run-act",
    Town: "town-act",
}


def actor(request: HttpRequest) -> Actor:
    """Who is signed in."""
    user = cast(Any, request.user)
    return Actor("web", user.get_username(), mail=user.email)


def wanted(request: HttpRequest, subject: type[Model], key: str, word: str) -> tuple[verbs.Verb, Any]:
    """The verb that an address names, and its row. Raises PermissionDenied for who may so nowhere or not there, and
    Http404 for what is not there or not theirs to see, in this order: nothing tells a stranger what exists."""
    found = verbs.on_page(subject, word)
    role = found.role if found else TownRole.REVIEWER
    people.act(request.user, role)
    try:
        row = SUBJECTS[subject].find(key)
    except NotFound as error:
        raise Http404(error.message) from error
    people.act_in(request.user, SUBJECTS[subject].town(row), role)
    if found is None:
        raise Http404
    return found, row


def carried_out(request: HttpRequest, verb: verbs.Verb, row: Any, typed: Mapping[str, Any]) -> str:
    """Decide what the form says; returns what to tell the person beside what their page shows from then on. Raises
    GastownError when it is refused."""
    outcome = verb.carry_out(row, actor(request), form_of(verb)(typed).values())
    assert verb.page is not None
    if outcome.answer is False:
        return verb.page.again
    return verb.page.done


@dataclass(frozen=True, slots=True)
class Button:
    """A verb that is offered below a page's own acts: its form, and where that goes."""

    verb: verbs.Verb
    offer: verbs.Offer
    form: Fields
    url: str


def buttons(row: Any, roles: set[TownRole]) -> list[Button]:
    """The verbs that this row's page draws by itself, for who has one of `roles`."""
    made = []
    for one in verbs.of(type(row)):
        if one.page and one.offer and one.offer.page and one.role in roles and one.offer.when(row):
            url = reverse(ADDRESSES[type(row)], args=[row.pk, one.word])
            begins = {field.name: getattr(row, field.name) for field in one.fields if field.hint.now}
            made.append(Button(one, one.offer, form_of(one)(auto_id=f"{one.word}-%s", initial=begins), url))
    return made
