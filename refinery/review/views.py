"""The review page and what a reviewer can do on it. Acting views parse a form, open one door, and redirect.

A form carries the head that the person saw. When the head has moved, nothing is recorded and the answer (409) shows
what changed between the two. Everything works without JavaScript: a line's number links to the form for a remark.
"""

from __future__ import annotations

import re
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_GET, require_POST

from agents.models import Run
from agents.runtime.gitcmd import GitFailed
from beads import people
from beads.errors import Conflict, Forbidden, GastownError, Invalid, NotFound
from beads.models import TownRole
from refinery.core.text import tame
from refinery.decisions import merge_queue, reviews
from refinery.git import ranges
from refinery.git.line_map import Bridge
from refinery.git.mirror import repo_of
from refinery.git.repo import Commit, Repo
from refinery.models import ReviewComment, ReviewEntry
from refinery.pages import boards
from refinery.pages.render import HEADER
from refinery.review import panel
from refinery.review.page import Ask, DiffShown, FileShown, show, tree_html

_AT = re.compile(r"(\d{1,6})\.([on])(\d{1,8})")
_FIRST = {"fail": 0, "error": 1, "pass": 2}


def _may_review(request: HttpRequest, entry: ReviewEntry) -> bool:
    return people.may(request.user, entry.rig.town, TownRole.REVIEWER)


def name_of(user: AbstractBaseUser) -> str:
    """How a signed-in person is named in facts and history."""
    return f"web:{user.get_username()}"


def _entry(key: str) -> ReviewEntry:
    rows = ReviewEntry.objects.select_related("bead", "rig__town", "source", "convoy__bead")
    return get_object_or_404(rows, pk=key)


def _ask(request: HttpRequest) -> Ask:
    """The address, read leniently: what makes no sense is as if it was not there."""
    view = request.GET.get("view", "")
    if view in ("split", "unified"):
        request.session["diff_view"] = view
    split = (view or request.session.get("diff_view")) == "split"
    at = _AT.fullmatch(request.GET.get("at", ""))
    keep = tuple((k, request.GET[k]) for k in ("commit", "since") if request.GET.get(k))
    return Ask(
        split=split,
        page=_number(request.GET.get("page")) or 1,
        file=_number(request.GET.get("file")),
        at=(int(at[1]), "old" if at[2] == "o" else "new", int(at[3])) if at else None,
        keep=keep,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 8 else None


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
    if entry.state == "active" and entry.pk not in board.world.entry:  # it has ended since it was read
        entry.refresh_from_db(fields=["state", "reason", "reason_text", "merge_sha", "head_sha", "held", "closed_at"])
    data = boards.entry_detail(board, entry)
    data |= {key: _tamed(data[key]) for key in ("gates", "verdicts", "landings")}
    data["gates"].sort(key=lambda gate: (gate["past"], _FIRST.get(gate["outcome"], 3)))
    who = name_of(cast(AbstractBaseUser, request.user))
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
        "remarks": len(here) - resolved,
        "ungated": not data["gates"] and entry.state == "active" and data["phase"] not in ("queued", "gating"),
        "unsandboxed": any(g["sandbox"] == "unsandboxed" for g in data["gate_history"]),
    }


def _page(request: HttpRequest, entry: ReviewEntry, *, status: int = 200, notice: str = "") -> HttpResponse:
    live = _live(request, entry)
    data, who = live["data"], live["who"]
    ask = _ask(request)
    remarks = list(ReviewComment.objects.filter(entry__in=[entry, *ranges.lineage(entry)]))
    here = [c for c in remarks if c.entry_id == entry.pk and c.head_sha == entry.head_sha]
    nothing: dict[str, Any] = {"commits": [], "beads": [], "heads": []}
    shown = nothing if entry.kind == "check" else _diff(request, entry, ask, here, who)
    main = "diff" in shown and not ask.keep
    places = shown["diff"].places if main else {}
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


def _tamed(value: Any) -> Any:
    """What agents, gates and git said, without escape sequences and with hidden characters shown."""
    if isinstance(value, str):
        return tame(value)
    if isinstance(value, list):
        return [_tamed(item) for item in value]
    return {key: _tamed(item) for key, item in value.items()} if isinstance(value, dict) else value


def _notes(entry: ReviewEntry) -> list[dict[str, Any]]:
    """What the agents said about their work, newest first."""
    if entry.source_id is None:
        return []
    runs = Run.objects.select_related("agent").filter(bead_id=entry.source_id).exclude(summary="")
    return [{"run": run, "summary": tame(run.summary)} for run in runs.order_by("-created_at")[:5]]


def _diff(request: HttpRequest, entry: ReviewEntry, ask: Ask, here: list[ReviewComment], who: str) -> dict[str, Any]:
    """The part of the page that git tells. What cannot be shown is said, and the rest of the page stands."""
    wanted = dict(ask.keep)
    told: dict[str, Any] = {"commits": [], "beads": [], "heads": [], "problem": "", "commit": None, "since": ""}
    try:
        named = _commits(entry)
        told["commits"] = [
            {"commit": c, "subject": tame(c.subject), "author": tame(c.author)}
            | {"link": f"{ask.only(commit=c.sha)}#change"}
            for c in named
        ]
        rows = ranges.beads(entry, named)
        told["beads"] = [row | {"link": f"{ask.only(commit=row['commit'])}#change"} for row in rows]
        told["heads"] = [h for h in ranges.heads(entry) if h != entry.head_sha]
        told["last_review"] = _last_review(entry, told["heads"], who)
        if "commit" in wanted:
            span, told["commit"] = ranges.of_commit(entry, named, wanted["commit"])
            told["message"] = tame(told["commit"].message)
        elif "since" in wanted:
            since = told["last_review"] if wanted["since"] == "review" else wanted["since"]
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
    may = _may_review(request, entry) and entry.state == "active"
    context = {"entry": entry, "may_review": _may_review(request, entry), "back": ask.link(page=ask.page)}
    repo = repo_of(entry.rig)
    bridge = None if main else _bridge(repo, entry, span)

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

    return show(
        repo,
        span,
        ask,
        remarks=here if main or bridge else (),
        between=between,
        form=form if may else None,
        bridge=bridge,
    )


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
    people.act(request.user, TownRole.REVIEWER)
    entry = _entry(key)
    people.act_in(request.user, entry.rig.town, TownRole.REVIEWER)
    try:
        said = _do(request, entry, verb)
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
    return redirect(_back(request, key))


def _do(request: HttpRequest, entry: ReviewEntry, verb: str) -> str:
    """Open one door; returns what to tell the person beside what the panel shows from then on."""
    user = cast(Any, request.user)
    who, form = name_of(user), request.POST
    head = form.get("head", "")
    match verb:
        case "approve" | "merge":
            new = reviews.approve(entry, who, head=head, merge_now=verb == "merge", mail=user.email)
            return "" if new else "You have approved this head already."
        case "request-changes":
            items = _items(form.get("items", ""))
            new = reviews.request_changes(entry, who, form.get("body", ""), items=items, head=head)
            return "" if new else "You have sent it back already."
        case "comment":
            line = _number(form.get("line"))
            if line is None:
                raise Invalid("line is not a number", field="line")
            file, side = form.get("file", ""), form.get("side", "new")
            reviews.comment(entry, who, head=head, file=file, side=side, line=line, body=form.get("body", ""))
            return "Your remark is noted. It goes out when changes are requested."
        case "resolve" | "reopen":
            number = _number(form.get("comment"))
            if number is None:
                raise Invalid("comment is not a number", field="comment")
            reviews.resolve_comment(entry, number, who, resolved=verb == "resolve")
            return ""
        case "reject":
            merge_queue.reject(entry, form.get("reason", ""), who)
            return ""
        case "retry":
            merge_queue.retry_entry(entry, who, form.get("reason", ""))
            return ""
        case "land-now":
            people.act_in(request.user, entry.rig.town, TownRole.OPERATOR)
            new = merge_queue.land_now(entry, who, form.get("reason", ""), skip_gates="skip_gates" in form, head=head)
            return "Recorded: it goes to the front of the train." if new else "It goes first already."
        case _:
            raise Http404


def _back(request: HttpRequest, key: str) -> str:
    """Where the person was: an address of this page only."""
    page = redirect("review", key).url
    back = request.POST.get("back", "")
    return page + (back if re.fullmatch(r"\?[\w=&%.+-]*(?:#[\w-]*)?", back) else "#acts")


def _as_get(request: HttpRequest) -> HttpRequest:
    cast(Any, request).method = "GET"
    return request


def _moved(request: HttpRequest, entry: ReviewEntry, error: Conflict) -> HttpResponse:
    """The head moved: what changed since the one that was seen, and what the person had typed."""
    entry.refresh_from_db()
    seen = request.POST.get("head", "")
    context: dict[str, Any] = {
        "entry": entry,
        "notice": error.message,
        "seen": seen if re.fullmatch(r"[0-9a-f]{7,64}", seen) else "",
        "typed": request.POST.get("body", ""),
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
