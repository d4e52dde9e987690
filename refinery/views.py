"""The people's pages: fetch, show. Acting views parse a form, open one door of `refinery.doors`, and redirect.

Every status shown comes from `refinery.phases` through `refinery.shows`. A viewer is anybody who is logged in; acting
on reviews needs `can_review`; convoys are started, closed and retried by staff.
"""

from __future__ import annotations

from typing import Any, cast

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from agents.gitcmd import GitFailed
from agents.models import Run
from beads.errors import Conflict, GastownError, Invalid
from beads.models import Bead, Convoy, Escalation, Town
from refinery import doors, pages, shows
from refinery.effects import repo_of
from refinery.live import MAX_BROWSERS, Topic, hub
from refinery.models import Candidate, ReviewEntry
from refinery.render import REVIEW_PERMISSION, page
from refinery.texts import diff_lines, tame


@login_required
@require_GET
def towns(request: HttpRequest) -> HttpResponse:
    """All towns."""
    return page(request, "refinery/towns.html", pages.towns, topic=Topic())


@login_required
@require_GET
def town(request: HttpRequest, slug: str) -> HttpResponse:
    """One town: what needs a person, convoys, who is at work, lanes."""
    found = get_object_or_404(Town, slug=slug)
    return page(request, "refinery/town.html", lambda: pages.town(found), topic=Topic(found.slug))


@login_required
@require_GET
def queue(request: HttpRequest) -> HttpResponse:
    """All lanes of all towns."""
    return page(request, "refinery/queue.html", pages.queue, topic=Topic())


@login_required
@require_GET
def convoy(request: HttpRequest, key: str) -> HttpResponse:
    """A convoy's progress."""
    found = get_object_or_404(Convoy.objects.select_related("bead__town", "rig"), pk=key)
    return page(request, "refinery/convoy.html", lambda: pages.convoy(found), topic=Topic(found.bead.town.slug))


@login_required
@require_GET
def bead(request: HttpRequest, key: str) -> HttpResponse:
    """One bead with its history."""
    found = get_object_or_404(Bead.objects.select_related("town", "rig"), pk=key)
    if found.type == "convoy":
        return redirect("convoy", key)
    if found.type == "merge_request":
        return redirect("review", key)
    return page(request, "refinery/bead.html", lambda: pages.bead(found), topic=Topic(found.town.slug))


@login_required
@require_GET
def review(request: HttpRequest, key: str, status: int = 200, notice: str = "") -> HttpResponse:
    """One review entry, its diff, and what a reviewer can do."""
    entry = get_object_or_404(ReviewEntry.objects.select_related("bead", "rig__town", "source", "convoy__bead"), pk=key)
    data = shows.entry_detail(shows.Board(entry.rig.town), entry)
    candidate = entry.candidates.filter(build_no=entry.build_no).first() or entry.candidates.last()
    lines, cut, problem = _diff(entry, candidate)
    for gate in data["gates"]:
        gate["output"] = tame(gate["output"])
    context = {
        "entry": entry,
        "data": data,
        "lines": lines,
        "cut": cut,
        "problem": problem,
        "notice": notice,
        "ungated": not data["gates"] and entry.state == "active" and data["phase"] not in ("queued", "gating"),
        "unsandboxed": any(g["sandbox"] == "unsandboxed" for g in data["gate_history"]),
        "may_review": cast(Any, request.user).has_perm(REVIEW_PERMISSION),
    }
    return render(request, "refinery/review.html", context, status=status)


def _diff(entry: ReviewEntry, candidate: Candidate | None) -> tuple[list[dict[str, Any]], bool, str]:
    """The candidate against its base; without one, the head against where it left the target."""
    repo = repo_of(entry.rig)
    try:
        if candidate is not None and candidate.sha:
            text, cut = repo.diff(candidate.base_sha, candidate.sha)
        elif candidate is not None and candidate.base_sha:
            base = repo.merge_base(candidate.base_sha, entry.head_sha) or candidate.base_sha
            text, cut = repo.diff(base, entry.head_sha)
        else:
            return [], False, "The diff is shown as soon as a candidate was built."
    except GitFailed as error:
        return [], False, f"The diff cannot be shown: {error.message}"
    return diff_lines(text), cut, ""


@login_required
@require_POST
def review_act(request: HttpRequest, key: str, verb: str) -> HttpResponse:
    """Approve, merge, request changes, reject or retry. A stale head is refused, and nothing is recorded."""
    user = cast(Any, request.user)
    if not user.has_perm(REVIEW_PERMISSION):
        raise PermissionDenied
    entry = get_object_or_404(ReviewEntry.objects.select_related("bead", "rig__town"), pk=key)
    head = request.POST.get("head", "")
    who = _name(user)
    try:
        match verb:
            case "approve":
                doors.approve(entry, who, head=head, merge_now=False)
            case "merge":
                doors.approve(entry, who, head=head, merge_now=True)
            case "request-changes":
                items = _items(request.POST.get("items", ""))
                doors.request_changes(entry, who, request.POST.get("body", ""), items=items, head=head)
            case "reject":
                doors.reject(entry, request.POST.get("reason", ""), who)
            case "retry":
                doors.retry_entry(entry, who)
            case _:
                raise Http404
    except Conflict as error:
        get = cast(Any, request)
        get.method = "GET"
        return review(get, key, status=409, notice=error.message)
    except GastownError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "Recorded: the next tick carries it out.")
    return redirect("review", key)


def _items(text: str) -> list[dict[str, Any]]:
    """`file:line: what to do`, one a line."""
    items: list[dict[str, Any]] = []
    for row in text.splitlines():
        if not row.strip():
            continue
        file, _, rest = row.strip().partition(":")
        line, _, problem = rest.partition(":")
        if not line.strip().isdigit() or not problem.strip():
            raise Invalid(f"items: {row.strip()[:80]!r} is not file:line: what to do", field="items")
        items.append({"file": file, "line": int(line), "problem": problem.strip()})
    return items


@login_required
@require_POST
def convoy_act(request: HttpRequest, key: str, verb: str) -> HttpResponse:
    """Start, close or retry a convoy."""
    user = cast(Any, request.user)
    if not user.is_staff:
        raise PermissionDenied
    found = get_object_or_404(Convoy.objects.select_related("bead__town", "rig"), pk=key)
    act = {"start": doors.start_convoy, "close": doors.close_convoy, "retry": doors.retry_convoy}.get(verb)
    if act is None:
        raise Http404
    try:
        act(found, _name(user))
    except GastownError as error:
        messages.error(request, error.message)
    return redirect("convoy", key)


def _name(user: AbstractBaseUser) -> str:
    return f"web:{user.get_username()}"


@login_required
@require_GET
def run(request: HttpRequest, key: str) -> HttpResponse:
    """One run with the end of its log."""
    found = get_object_or_404(Run.objects.select_related("agent", "rig", "bead", "town"), pk=key)
    return page(request, "refinery/run.html", lambda: pages.run(found), topic=pages.run_topic(found))


@login_required
@require_GET
def mail(request: HttpRequest) -> HttpResponse:
    """Open escalations and the latest mail."""
    return page(request, "refinery/mail.html", pages.mail, topic=Topic())


@login_required
@require_POST
def escalation_act(request: HttpRequest, key: str, verb: str) -> HttpResponse:
    """Acknowledge or close an escalation; goes back to the page it was pressed on."""
    user = cast(Any, request.user)
    if not user.is_staff:
        raise PermissionDenied
    found = get_object_or_404(Escalation.objects.select_related("town"), pk=key)
    act = {"ack": doors.acknowledge, "close": doors.close_escalation}.get(verb)
    if act is None:
        raise Http404
    try:
        act(found, _name(user))
    except GastownError as error:
        messages.error(request, error.message)
    back = request.POST.get("next", "")
    return redirect(back if url_has_allowed_host_and_scheme(back, {request.get_host()}) else "mail")


@login_required
@require_GET
async def events(request: HttpRequest, slug: str | None = None) -> HttpResponse | StreamingHttpResponse:
    """The stream of a town's changes (or of all towns'). With `?run=`, also of the growth of that run's log."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse(status=204)  # a server that cannot stream: tells EventSource not to come again
    if len(hub.waiters) >= MAX_BROWSERS:
        return HttpResponse("too many browsers are watching", status=503)
    topic = await sync_to_async(_topic)(slug, request.GET.get("run"))
    answer = StreamingHttpResponse(hub.stream(topic), content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    return answer


def _topic(slug: str | None, run_id: str | None) -> Topic:
    """What is to be followed. Gives the request's database connection back: a stream may last for days."""
    try:
        if slug is not None:
            get_object_or_404(Town, slug=slug)
        run = Run.objects.select_related("town").filter(pk=run_id, town__slug=slug).first() if run_id else None
        return (run and pages.run_topic(run)) or Topic(slug)
    finally:
        if not connection.in_atomic_block:
            connection.close()
