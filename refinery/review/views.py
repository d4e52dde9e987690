"""The review page and what a reviewer can do on it. The acting view carries out a verb, and redirects.

A form carries the head that the person saw. When the head has moved, nothing is recorded and the answer (409) shows
what changed between the two. Everything works without JavaScript: a line's number links to the form for a remark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_GET, require_POST

from agents.models import Run
from agents.runtime.gitcmd import GitFailed
from beads import people
from beads.errors import Conflict, Forbidden, GastownError, NotFound
from beads.forms import WayBack
from beads.models import TownRole
from refinery.core.states import EntryKind, EntryState
from refinery.core.text import sanitize
from refinery.git import ranges
from refinery.git.line_map import Bridge
from refinery.git.mirror import repo_of
from refinery.git.repo import Commit, Repo
from refinery.models import ReviewComment, ReviewEntry
from refinery.pages import acting, boards
from refinery.pages.render import HEADER
from refinery.review import panel
from refinery.review.page import Ask, DiffShown, FileShown, Margin, show, tree_html

_AT = re.compile(r"(\d{1,6})\.([on])(\d{1,8})")
_FIRST = {"fail": 0, "error": 1, "pass": 2}


class PlaceOnPage(WayBack):
    """Where on its review's page a person was: nowhere else does it lead back to."""

    def leads_back(self, url: str) -> bool:
        """True for a place of that page."""
        return re.fullmatch(r"\?[\w=&%.+-]*(?:#[\w-]*)?", url) is not None


class MovedForm(forms.Form):
    """What a form said that came too late: the head that was seen, and what was typed."""

    head = forms.RegexField(r"^[0-9a-f]{7,64}\Z")
    body = forms.CharField(required=False, strip=False)


def _may_review(request: HttpRequest, entry: ReviewEntry) -> bool:
    return people.may(request.user, entry.rig.town, TownRole.REVIEWER)


def _entry(key: str) -> ReviewEntry:
    rows = ReviewEntry.objects.select_related("bead", "rig__town", "source", "convoy__bead")
    return get_object_or_404(rows, pk=key)


def _ask(request: HttpRequest) -> Ask:
    """The address, read leniently: what makes no sense is as if it was not there."""
    view = request.GET.get("view", "")
    if view in ("split", "unified"):
        request.session["diff_view"] = view
    split = (view or request.session.get("diff_view")) == "split"
    at = None
    if found := _AT.fullmatch(request.GET.get("at", "")):
        side = "old" if found[2] == "o" else "new"
        at = (int(found[1]), side, int(found[3]))
    keep = tuple((k, request.GET[k]) for k in ("commit", "since") if request.GET.get(k))
    return Ask(
        split=split,
        page=_number(request.GET.get("page")) or 1,
        file=_number(request.GET.get("file")),
        at=at,
        keep=keep,
    )


def _number(text: str | None) -> int | None:
    if text and text.isascii() and text.isdigit() and len(text) < 8:
        return int(text)
    return None


@login_required
@require_GET
def review(request: HttpRequest, key: str) -> HttpResponse:
    """One review entry: what it is, how it stands, its diff, and what a reviewer can do."""
    entry = _entry(key)
    people.see(request.user, entry.rig.town)
    if HEADER in request.headers:
        context = _live(request, entry)
        return render(request, "refinery/_review_live.html", context)
    return _page(request, entry)


def _live(request: HttpRequest, entry: ReviewEntry) -> dict[str, Any]:
    """What is kept up to date while the page is read: how it stands, what this person may do, gates, verdicts.

    `mark` changes with what is not: the diff, and the comments on it. One's own clicks do not change it.
    """
    heard = panel.unheard(entry)
    board = boards.Board(entry.rig.town)
    if entry.state == EntryState.ACTIVE and entry.pk not in board.world.entry:  # it has ended since it was read
        entry.refresh_from_db(fields=["state", "reason", "reason_text", "merge_sha", "head_sha", "held", "closed_at"])
    data = boards.entry_detail(board, entry)
    data |= {key: _sanitized(data[key]) for key in ("gates", "verdicts", "landings")}
    data["gates"].sort(key=lambda gate: (gate["past"], _FIRST.get(gate["outcome"], 3)))
    who = str(acting.actor(request))
    steers = people.may(request.user, entry.rig.town, TownRole.OPERATOR)
    here = [c for c in data["comments"] if c["head"] == entry.head_sha]
    resolved = sum(1 for c in here if c["resolved"])
    return {
        "entry": entry,
        "data": data,
        "newer": entry.observed_head if entry.observed_head != entry.head_sha else "",
        "mark": f"{entry.head_sha}.{len(here)}.{resolved}",
        "panel": panel.of(board, entry, data, who, heard, steers=steers),
        "who": who,
        "may_review": _may_review(request, entry),
        "steers": steers,
        "remarks": len(here) - resolved,
        "ungated": not data["gates"] and entry.state == EntryState.ACTIVE and data["phase"] not in ("queued", "gating"),
        "unsandboxed": any(g["sandbox"] == "unsandboxed" for g in data["gate_history"]),
    }


def _page(request: HttpRequest, entry: ReviewEntry, *, status: int = 200, notice: str = "") -> HttpResponse:
    live = _live(request, entry)
    data, who = live["data"], live["who"]
    ask = _ask(request)
    remarks = list(ReviewComment.objects.filter(entry__in=[entry, *ranges.lineage(entry)]))
    here = [c for c in remarks if c.entry_id == entry.pk and c.head_sha == entry.head_sha]
    nothing: dict[str, Any] = {"commits": [], "beads": [], "heads": []}
    shown = nothing
    if entry.kind != EntryKind.CHECK:
        shown = _diff(request, entry, ask, here, who)
    main = "diff" in shown and not ask.keep
    places = {}
    if main:
        places = shown["diff"].places
    for one in here:
        cast(Any, one).place = f"{places.get(one.file, ask.only()).partition('#')[0]}#c{one.pk}"
    for failure in (f for gate in data["gates"] for f in gate["failures"]):
        failure["place"] = places.get(failure["file"], "")
    context = {
        **live,
        "ask": ask,
        "notice": notice,
        "notes": _notes(entry),
        "open_remarks": [c for c in here if not c.resolved],
        "resolved": [c for c in here if c.resolved],
        "outdated": [c for c in remarks if c not in here],
        **shown,
    }
    return render(request, "refinery/review.html", context, status=status)


def _sanitized(value: Any) -> Any:
    """What agents, gates and git said, without escape sequences and with hidden characters shown."""
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, list):
        return [_sanitized(item) for item in value]
    if isinstance(value, dict):
        return {key: _sanitized(item) for key, item in value.items()}
    return value


def _notes(entry: ReviewEntry) -> list[dict[str, Any]]:
    """What the agents said about their work, newest first."""
    if entry.source_id is None:
        return []
    runs = Run.objects.select_related("agent").filter(bead_id=entry.source_id).exclude(summary="")
    return [{"run": run, "summary": sanitize(run.summary)} for run in runs.order_by("-created_at")[:5]]


def _diff(request: HttpRequest, entry: ReviewEntry, ask: Ask, here: list[ReviewComment], who: str) -> dict[str, Any]:
    """The part of the page that git tells. What cannot be shown is said, and the rest of the page stands."""
    wanted = dict(ask.keep)
    told: dict[str, Any] = {"commits": [], "beads": [], "heads": [], "problem": "", "commit": None, "since": ""}
    try:
        named = _commits(entry)
        told["commits"] = [
            {"commit": c, "subject": sanitize(c.subject), "author": sanitize(c.author)}
            | {"link": f"{ask.only(commit=c.sha)}#change"}
            for c in named
        ]
        rows = ranges.beads(entry, named)
        told["beads"] = [row | {"link": f"{ask.only(commit=row['commit'])}#change"} for row in rows]
        told["heads"] = [h for h in ranges.heads(entry) if h != entry.head_sha]
        told["last_review"] = _last_review(entry, told["heads"], who)
        if "commit" in wanted:
            span, told["commit"] = ranges.of_commit(entry, named, wanted["commit"])
            told["message"] = sanitize(told["commit"].message)
        elif "since" in wanted:
            since = wanted["since"]
            if since == "review":
                since = told["last_review"]
            span = ranges.since(entry, since)
            told["since"] = since
        else:
            span = ranges.whole(entry)
        told["span"] = span
        told |= _links(ask, told)
        told["diff"] = _shown(request, entry, ask, span, here)
        told["tree"] = tree_html(told["diff"], ask)
    except NotFound as error:
        if wanted:
            raise Http404(error.message) from error
        told["problem"] = error.message
    except GitFailed as error:
        told["problem"] = f"The diff cannot be shown: {error.message}"
    return told


def _links(ask: Ask, told: dict[str, Any]) -> dict[str, Any]:
    """What else can be compared, and how else it can be shown."""
    whole = not told["commit"] and not told["since"]
    tabs = [{"name": "All changes", "link": f"{ask.only()}#change", "here": whole}]
    if told["last_review"]:
        link = f"{ask.only(since='review')}#change"
        tabs.append({"name": "Since last review", "link": link, "here": told["since"] == told["last_review"]})
    looks = [
        {"name": name, "link": f"{ask.link(view=view)}#change", "here": ask.split is (view == "split")}
        for view, name in (("unified", "Unified"), ("split", "Side by side"))
    ]
    return {"tabs": tabs, "looks": looks}


def _commits(entry: ReviewEntry) -> list[Commit]:
    try:
        return ranges.commits(entry)
    except GitFailed:
        return []


def _last_review(entry: ReviewEntry, heads: list[str], who: str) -> str:
    """The older head that this person judged last; else the one that anybody did; else the newest of them."""
    verdicts = [v for one in [*reversed(ranges.lineage(entry)), entry] for v in one.verdicts.order_by("id")]
    judged = [v.head_sha for v in verdicts if v.head_sha in heads]
    mine = [v.head_sha for v in verdicts if v.head_sha in heads and v.by == who]
    return (mine or judged or heads or [""])[-1]


def _shown(
    request: HttpRequest, entry: ReviewEntry, ask: Ask, span: ranges.Span, here: list[ReviewComment]
) -> DiffShown:
    main = span.kind in ("candidate", "head")
    may = _may_review(request, entry) and entry.state == EntryState.ACTIVE
    context = {"entry": entry, "may_review": _may_review(request, entry), "back": ask.link(page=ask.page)}
    repo = repo_of(entry.rig)
    bridge = None
    if not main:
        bridge = _bridge(repo, entry, span)

    def between(remark: ReviewComment) -> str:
        """A remark, where it stands."""
        return render_to_string("refinery/_review_comment.html", {**context, "c": remark}, request)

    def form(one: FileShown, side: str, line: int) -> str:
        """The form for a remark on a line; in a part of the change, that of its place in the whole."""
        spot = (one.path, side, line) if main else bridge and bridge.across(one.change, side, line)
        told = {
            **context,
            "number": one.number,
            "line": line,
            "side": side,
            "spot": spot,
            "whole": f"{ask.only()}#change",
        }
        return render_to_string("refinery/_review_form.html", told, request)

    remarks: Sequence[ReviewComment] = ()
    if main or bridge:
        remarks = here
    margin = Margin(between, remarks, form=form if may else None, bridge=bridge)
    return show(repo, span, ask, margin)


def _bridge(repo: Repo, entry: ReviewEntry, span: ranges.Span) -> Bridge | None:
    """From a part of the change to the whole, where there is one to be shown."""
    try:
        return Bridge(repo, span, ranges.whole(entry))
    except (GitFailed, NotFound):
        return None


@login_required
@require_POST
def act(request: HttpRequest, key: str, verb: str) -> HttpResponse:
    """Approve, merge, request changes, comment, resolve, reopen, reject, retry or land now. A stale head records
    nothing."""
    found, entry = acting.wanted(request, ReviewEntry, key, verb)
    typed = {"head": "", **request.POST.dict()}  # a form says which head was seen: where it does not, none was
    try:
        said = acting.carried_out(request, found, entry, typed)
    except Forbidden as error:
        return _page(_as_get(request), entry, status=403, notice=error.message)
    except Conflict as error:
        if "head" in error.details:
            return _moved(request, entry, error)
        return _page(_as_get(request), entry, status=409, notice=error.message)
    except NotFound as error:
        raise Http404(error.message) from error
    except GastownError as error:
        messages.error(request, error.message)
        said = ""
    if said:
        messages.success(request, said)
    page = redirect("review", key).url
    return redirect(page + (PlaceOnPage(request).url or "#acts"))


def _as_get(request: HttpRequest) -> HttpRequest:
    cast(Any, request).method = "GET"
    return request


def _moved(request: HttpRequest, entry: ReviewEntry, error: Conflict) -> HttpResponse:
    """The head moved: what changed since the one that was seen, and what the person had typed."""
    entry.refresh_from_db()
    typed = MovedForm(request.POST)
    seen = typed.data.get("head", "")
    context: dict[str, Any] = {
        "entry": entry,
        "notice": error.message,
        "seen": "" if "head" in typed.errors else seen,
        "typed": typed.data.get("body", ""),
        "problem": "",
    }
    # the page's links lead to the same comparison on the review's own page
    ask = Ask(keep=(("since", seen),), path=redirect("review", entry.pk).url)
    try:
        if seen != entry.head_sha:
            span = ranges.since(entry, seen)
            found = show(repo_of(entry.rig), span, ask)
            context |= {"span": span, "diff": found, "tree": tree_html(found, ask)}
        else:
            context["problem"] = "The new head is being taken in: it is shown on the review's page in a moment."
    except NotFound:
        context["problem"] = "The head you saw is not known here, so what changed cannot be shown."
    except GitFailed as failed:
        context["problem"] = f"What changed cannot be shown: {failed.message}"
    return render(request, "refinery/review_moved.html", context, status=409)
