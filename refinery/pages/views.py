"""The people's pages: fetch, show. The acting view carries out a verb (`refinery.pages.acting`), and redirects.

Every status shown comes from `refinery.pages.boards`. Who may see and do what is asked of `beads.people`: a
page is there for the members of its town; operators steer. Reviews have pages of their own:
`refinery.review.views`.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from agents.models import Run
from beads import people
from beads.errors import GastownError
from beads.forms import Fields, WayBack
from beads.models import Bead, Convoy, Escalation, Town
from refinery.pages import acting, contexts, convoy_context, spending, town_context, transcripts
from refinery.pages.live import MAX_BROWSERS, Topic, hub
from refinery.pages.render import page


class NoticesForm(Fields):
    """What a person is told of one town by mail."""

    town = forms.SlugField()
    kind = forms.MultipleChoiceField(choices=list(people.NOTICES.items()), required=False)


_PAGES: dict[type[Model], str] = {Run: "run", Town: "town"}  # else a bead's


def _most(request: HttpRequest, usual: int = contexts.LISTED) -> int:
    """How many rows of each list somebody looks at: all of them (0) with `?all=1`."""
    if request.GET.get("all"):
        return 0
    return usual


@login_required
@require_GET
def towns(request: HttpRequest) -> HttpResponse:
    """The towns that this person may see."""
    mine = people.towns(request.user)
    return page(request, "refinery/towns.html", lambda: town_context.towns(mine), topic=Topic())


@login_required
@require_GET
def town(request: HttpRequest, slug: str) -> HttpResponse:
    """One town: what needs a person, convoys, who is at work, lanes."""
    found = get_object_or_404(Town, slug=slug)
    people.see(request.user, found)
    return page(
        request,
        "refinery/town.html",
        lambda: town_context.town(found, _most(request)),
        topic=Topic(found.slug),
        town=found,
    )


@login_required
@require_GET
def usage_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """What a town's runs used of models, row by row: all, or of one `?convoy=` or `?bead=`."""
    found = get_object_or_404(Town, slug=slug)
    people.see(request.user, found)
    rows = "".join(spending.table(spending.asked(found, request.GET)))
    answer = HttpResponse(rows, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="usage-{found.slug}.csv"'
    return answer


@login_required
@require_GET
def queue(request: HttpRequest) -> HttpResponse:
    """The lanes of one town that this person may see: `?town=`, else the first of them in which something is queued."""
    mine = {one.slug: one for one in people.towns(request.user).order_by("slug")}
    if not mine:
        return page(request, "refinery/queue.html", dict, topic=Topic())
    counts = contexts.queued(mine.values())
    slug = request.GET.get("town") or next((slug for slug, number in counts.items() if number), next(iter(mine)))
    town = mine.get(slug)
    if town is None:
        raise Http404
    # an update is asked of this town's page: another may be the first with a queue by then
    here = f"{request.path}?{urlencode({'town': slug, **({} if _most(request) else {'all': 1})})}"
    topic = Topic(town.slug)
    return page(
        request,
        "refinery/queue.html",
        lambda: contexts.queue(town, counts, _most(request, contexts.ENDED)),
        topic=topic,
        town=town,
        here=here,
    )


@login_required
@require_GET
def convoy(request: HttpRequest, key: str) -> HttpResponse:
    """A convoy's progress."""
    found = get_object_or_404(Convoy.objects.select_related("bead__town", "rig"), pk=key)
    town = found.bead.town
    people.see(request.user, town)
    return page(
        request,
        "refinery/convoy.html",
        lambda: convoy_context.convoy(found, _most(request)),
        topic=Topic(town.slug),
        town=town,
    )


@login_required
@require_GET
def bead(request: HttpRequest, key: str) -> HttpResponse:
    """One bead with its history."""
    found = get_object_or_404(Bead.objects.select_related("town", "rig"), pk=key)
    people.see(request.user, found.town)
    if found.type == "convoy":
        return redirect("convoy", key)
    if found.type == "merge_request":
        return redirect("review", key)
    if found.type == "message":
        return redirect(f"{reverse('mayor', args=[found.town.slug])}#request-{key}")
    return page(
        request,
        "refinery/bead.html",
        lambda: contexts.bead(found, _most(request)),
        topic=Topic(found.town.slug),
        town=found.town,
    )


@login_required
@require_POST
def act(request: HttpRequest, subject: type[Model], key: str, verb: str) -> HttpResponse:
    """Carry out a verb; goes back to where it was pressed, or to its convoy, else to its subject's page."""
    found, row = acting.wanted(request, subject, key, verb)
    try:
        if said := acting.carried_out(request, found, row, request.POST):
            messages.success(request, said)
    except GastownError as error:
        messages.error(request, error.message)
    if subject is Convoy:  # whoever has started one wants to see it go
        return redirect("convoy", key)
    if back := WayBack(request).url:
        return redirect(back)
    if subject is Escalation:
        return redirect("mail")
    return redirect(_PAGES.get(subject, "bead"), key)


@login_required
@require_GET
def run(request: HttpRequest, key: str) -> HttpResponse:
    """One run with its transcript (`?q=`: what is looked for in it), or, with `?view=log`, the end of its log."""
    found = get_object_or_404(Run.objects.select_related("agent", "rig", "bead", "town"), pk=key)
    people.see(request.user, found.town)
    topic, look = contexts.run_topic(found), transcripts.Look.of(request.GET)
    return page(
        request,
        "refinery/run.html",
        lambda: contexts.run(found, _most(request), look),
        topic=topic,
        town=found.town,
    )


@login_required
@require_GET
def output(request: HttpRequest, key: str, name: str) -> HttpResponse:
    """A run's transcript, or its log, as a file."""
    found = get_object_or_404(Run.objects.select_related("town"), pk=key)
    people.see(request.user, found.town)
    data = transcripts.whole(found, name)
    if data is None:
        raise Http404
    kind, ending = transcripts.FILES[name]
    answer = HttpResponse(data, content_type=kind)
    answer["Content-Disposition"] = f'attachment; filename="{found.pk}-{name}.{ending}"'
    answer["Cache-Control"] = "no-store"
    return answer


@login_required
@require_GET
def mail(request: HttpRequest) -> HttpResponse:
    """Open escalations and the latest mail."""
    mine = people.towns(request.user)
    return page(request, "refinery/mail.html", lambda: contexts.mail(mine, _most(request)), topic=Topic())


@login_required
def account(request: HttpRequest) -> HttpResponse:
    """What one is told by mail, town by town."""
    user = cast(Any, request.user)
    if request.method == "POST":
        form = NoticesForm(request.POST)
        if "town" in form.errors:
            raise Http404
        town = get_object_or_404(Town, slug=form.data["town"])
        people.see(user, town)
        try:
            people.set_notices(user, town, form.values().get("kind", []))
            messages.success(request, "Saved.")
        except GastownError as error:
            messages.error(request, error.message)
        return redirect("account")
    rows = [
        {
            "town": one.town,
            "role": one.role,
            "kinds": [{"name": k, "words": w, "on": k in one.notices} for k, w in people.NOTICES.items()],
        }
        for one in user.memberships.select_related("town").order_by("town__slug")
    ]
    return render(request, "refinery/account.html", {"rows": rows})


@login_required
@require_GET
async def events(request: HttpRequest, slug: str | None = None) -> HttpResponse | StreamingHttpResponse:
    """The stream of a town's changes (or of all towns'). With `?run=`, also of the growth of that run's log."""
    topic = await sync_to_async(_topic)(request.user, slug, request.GET.get("run"))
    if not isinstance(request, ASGIRequest):
        return HttpResponse(status=204)  # a server that cannot stream: tells EventSource not to come again
    if len(hub.waiters) >= MAX_BROWSERS:
        return HttpResponse("too many browsers are watching", status=503)
    answer = StreamingHttpResponse(hub.stream(topic), content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    return answer


def _topic(user: Any, slug: str | None, run_id: str | None) -> Topic:
    """What is to be followed. Gives the request's database connection back: a stream may last for days."""
    try:
        if slug is not None:
            people.see(user, get_object_or_404(Town, slug=slug))
        run = None
        if run_id:
            run = Run.objects.select_related("town").filter(pk=run_id, town__slug=slug).first()
        return (run and contexts.run_topic(run)) or Topic(slug)
    finally:
        if not connection.in_atomic_block:
            connection.close()
