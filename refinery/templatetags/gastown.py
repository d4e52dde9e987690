"""Template tags of the people's pages: times, durations, state chips, harmless text."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from html import escape
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from beads.models import TownRole
from refinery import links
from refinery.core.text import reveal_hidden as reveal
from refinery.pages import acting, ansi

register = template.Library()
register.filter("linked", links.linked)
_WORDS = {
    "awaiting_human": "needs you",
    "in_progress": "in progress",
    "in_review": "in review",
    "needs_attention": "needs attention",
    "ready_to_land": "ready to land",
    "closed": "done",
    "request_changes": "changes requested",
    "approve": "approved",
    "verdict_approve": "approved",
    "verdict_request_changes": "sent back",
}


@register.filter
def reveal_hidden(text: object) -> str:
    """Invisible and direction-changing characters made visible. (HTML is escaped as everywhere.)"""
    return reveal(str(text).replace("\r\n", "\n"))


@register.filter
def cut(text: object, length: int) -> str:
    """At most `length` characters, with an ellipsis where more were there."""
    whole = str(text)
    if len(whole) <= length:
        return whole
    return f"{whole[: length - 1].rstrip()}…"


@register.filter
def words(state: object) -> str:
    """The people's words for a state."""
    return _WORDS.get(str(state), str(state).replace("_", " "))


@register.filter
def of(count: int, state: object) -> str:
    """So many in a state, in words: `2 reviewing`, `2 need you`."""
    if count > 1 and state == "awaiting_human":
        return f"{count} need you"
    return f"{count} {words(state)}"


@register.simple_tag
def chip(state: object) -> SafeString:
    """A state as a coloured chip with its words."""
    return _chip(str(state))


@functools.lru_cache(maxsize=256)
def _chip(state: str) -> SafeString:
    return format_html('<span class="chip {}">{}</span>', state, words(state))


def span(seconds: float) -> str:
    """A length of time, short. The same is done by live.js: keep the two alike."""
    seconds = max(int(seconds), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as `42 s`, `3 min`, `2 h` or `5 d`; empty for None."""
    if seconds is None:
        return ""
    return span(seconds)


def _moment(at: Any) -> dt.datetime | None:
    if isinstance(at, str) and at:
        return dt.datetime.fromisoformat(at)
    return at or None


def _relative(moment: dt.datetime, how: str) -> str:
    passed = (timezone.now() - moment).total_seconds()
    if how == "for":
        return span(passed)
    if passed >= 0:
        return f"{span(passed)} ago"
    return f"in {span(-passed)}"


@register.simple_tag
def ago(at: Any, how: str = "ago") -> SafeString:
    """A moment (a datetime or its ISO form), relative, with the exact time on hover.

    `how`: `ago` for what has happened, `for` for what lasts since then.
    """
    moment = _moment(at)
    if moment is None:
        return SafeString("<span>–</span>")
    exact = moment.astimezone(dt.UTC).isoformat(timespec="seconds")
    # joined by hand, for a page has hundreds: digits and fixed words only, so nothing is there to be escaped
    return SafeString(
        f'<time datetime="{exact}" title="{exact[:10]} {exact[11:19]} UTC" data-time="{escape(how)}">'
        f"{_relative(moment, how)}</time>"
    )


@register.simple_tag
def clock(at: Any) -> SafeString:
    """A moment of today as `12:03 UTC`, of another day with its date; the exact time on hover."""
    moment = _moment(at)
    if moment is None:
        return SafeString("<span>–</span>")
    exact = moment.astimezone(dt.UTC)
    day = ""
    if exact.date() != timezone.now().astimezone(dt.UTC).date():
        day = f"{exact:%Y-%m-%d} "
    return SafeString(f'<time datetime="{exact.isoformat(timespec="seconds")}">{day}{exact:%H:%M} UTC</time>')


@register.simple_tag
def age(at: Any, how: str = "for") -> SafeString:
    """The same as `ago`, inside an SVG text."""
    moment = _moment(at)
    if moment is None:
        return SafeString("")
    exact = moment.astimezone(dt.UTC).isoformat(timespec="seconds")
    return SafeString(f'<tspan data-at="{exact}" data-time="{escape(how)}">{_relative(moment, how)}</tspan>')


_TELLS = ("unknown", "longer than usual", "after ")  # estimates that say more of the time than the reason beside them


@register.simple_tag
def lands(row: Mapping[str, Any], verb: str) -> SafeString:
    """When an entry or a convoy lands, after `verb`; empty where its reason says all. The range goes on with the clock
    (live.js), so that a page that is left open says nothing that has passed."""
    if not row["eta"]:
        words = str(row["estimate"])
        told = words.startswith(_TELLS)
        if not told:
            return SafeString("")
        return SafeString(f"{escape(verb)}: {escape(reveal_hidden(words))}")
    usual = dt.datetime.fromisoformat(row["eta"])
    first = usual - dt.timedelta(seconds=row["eta_seconds"] - row["eta_low_seconds"])
    last = usual + dt.timedelta(seconds=row["eta_p80_seconds"] - row["eta_seconds"])
    return format_html(
        '{} <span title="usually at {} UTC" data-from="{}" data-to="{}">{}</span>',
        verb, f"{usual:%H:%M:%S}", first.isoformat(), last.isoformat(), row["estimate"],
    )  # fmt: skip


@register.simple_tag
def terminal(spans: list[ansi.Span]) -> SafeString:
    """A terminal's output with its colours as classes."""
    return format_html_join(
        "",
        "{}",
        ((format_html('<span class="{}">{}</span>', s.classes, s.text) if s.classes else s.text,) for s in spans),
    )


@register.inclusion_tag("refinery/_buttons.html")
def buttons(row: Any, reviews: bool, steers: bool) -> dict[str, Any]:
    """The verbs that a row's page draws by itself, below what its template has a place for: each with its form."""
    roles = {role for role, holds in ((TownRole.REVIEWER, reviews), (TownRole.OPERATOR, steers)) if holds}
    return {"buttons": acting.buttons(row, roles)}
