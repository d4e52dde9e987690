"""The mayor's page: the conversation, what is staged, a form to ask. Acting records one fact through `decisions`."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from beads import config as configs
from beads import people
from beads.errors import GastownError
from beads.forms import Fields
from beads.models import Convoy, Rig, Town, TownRole
from refinery.core.rules.mayor import no_mayor
from refinery.decisions import mayor as decisions
from refinery.pages import acting, boards, conversation, convoy_context
from refinery.pages.live import Topic
from refinery.pages.render import page

LISTED = 30  # requests, unless all are asked for
DRAWN = 3  # staged plans that are drawn; the others are named


class AskForm(Fields):
    """What a person asks. `once`: what this form was given when it was drawn."""

    text = forms.CharField(max_length=decisions.LONGEST)
    rig = forms.CharField(max_length=50, required=False)
    once = forms.CharField(max_length=64, required=False)


@login_required
@require_GET
def show(request: HttpRequest, slug: str) -> HttpResponse:
    """What people asked, what the mayor answered, asked and planned."""
    town = get_object_or_404(Town, slug=slug)
    people.see(request.user, town)
    most = LISTED
    if request.GET.get("all"):
        most = 500
    about = request.GET.get("about", "")
    return page(request, "refinery/mayor.html", lambda: context(town, most, about), topic=Topic(town.slug), town=town)


@login_required
@require_POST
def ask(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask the mayor. A form that is sent twice is one request."""
    people.act(request.user, TownRole.OPERATOR)
    town = get_object_or_404(Town, slug=slug)
    people.act_in(request.user, town, TownRole.OPERATOR)
    try:
        typed = AskForm(request.POST).values()
        by = acting.actor(request)
        # a live part, with its `once`, is shared by all who look: what somebody else asks with it is another request
        once = ""
        if typed.get("once"):
            mark = f"{by}\n{typed['text']}\n{typed.get('rig')}\n{typed['once']}"
            once = hashlib.sha256(mark.encode()).hexdigest()
        rig = decisions.home_of(town, typed.get("rig") or None)
        decisions.ask(rig, by=by, text=typed["text"], once=once)
    except GastownError as error:
        messages.error(request, error.message)
    return redirect("mayor", slug)


def context(town: Town, most: int = LISTED, about: str = "") -> dict[str, Any]:
    """The conversation, newest first, and the plans that wait for a person. `most`: requests that are shown; `about`:
    the convoy that a person comes from, to ask about it."""
    board = boards.Board(town)
    found = conversation.of_town(town, most + 1)
    rows = conversation.shown(board, found[:most])
    staged = [key for row in rows for one in row["convoys"] if one["staged"] for key in [one["id"]]]
    convoys = Convoy.objects.select_related("bead", "rig").filter(pk__in=staged).order_by("-bead__created_at")
    rigs = list(Rig.objects.filter(town=town).order_by("slug"))
    configured = [r for r in rigs if configs.usable(town.config, r.config)[0].agents.mayor is not None]
    missing = ""
    if not configured:
        missing = no_mayor(next((rig.slug for rig in rigs), "RIG"))
    return {
        "town": town,
        "rows": rows,
        "more": len(found) > most,
        "asking": [row for row in rows if row["question"]],
        "plans": [_drawn(board, convoy) for convoy in convoys[:DRAWN]],
        "rigs": configured,
        "missing": missing,
        "about": _about(town, about),
        "once": secrets.token_urlsafe(12),
    }


def _about(town: Town, key: str) -> str:
    """What a question about a convoy begins with."""
    convoy = Convoy.objects.select_related("bead").filter(pk=key, bead__town=town).first()
    if convoy is None:
        return ""
    return f"About convoy {convoy.pk} ({convoy.bead.title}): "


def _drawn(board: boards.Board, convoy: Convoy) -> dict[str, Any]:
    """A staged plan: its graph, its beads, what would conflict."""
    data = convoy_context.drawn(board, convoy)
    return data | {"convoy": convoy, "plan": conversation.plan_of(convoy)}
