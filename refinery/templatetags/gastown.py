"""Template tags of the people's pages: times, durations, state chips, harmless text."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import template
from django.template.defaultfilters import stringfilter
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from refinery import ansi
from refinery.texts import visible

register = template.Library()
_WORDS = {
    "awaiting_human": "needs you",
    "in_progress": "in progress",
    "in_review": "in review",
    "needs_attention": "needs attention",
    "ready_to_land": "ready to land",
    "closed": "done",
    "request_changes": "changes requested",
    "approve": "approved",
}


@register.filter
@stringfilter
def tame(text: str) -> str:
    """Invisible and direction-changing characters made visible. (HTML is escaped as everywhere.)"""
    return visible(text.replace("\r\n", "\n"))


@register.filter
def words(state: object) -> str:
    """The people's words for a state."""
    return _WORDS.get(str(state), str(state).replace("_", " "))


@register.filter
def of(count: int, state: object) -> str:
    """So many in a state, in words: `2 reviewing`, `2 need you`."""
    return f"{count} {'need you' if count > 1 and state == 'awaiting_human' else words(state)}"


@register.simple_tag
def chip(state: object) -> SafeString:
    """A state as a coloured chip with its words."""
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
    return "" if seconds is None else span(seconds)


def _moment(at: Any) -> dt.datetime | None:
    return dt.datetime.fromisoformat(at) if isinstance(at, str) and at else at or None


def _relative(moment: dt.datetime, how: str) -> str:
    passed = (timezone.now() - moment).total_seconds()
    if how == "for":
        return span(passed)
    return f"{span(passed)} ago" if passed >= 0 else f"in {span(-passed)}"


@register.simple_tag
def ago(at: Any, how: str = "ago") -> SafeString:
    """A moment (a datetime or its ISO form), relative, with the exact time on hover.

    `how`: `ago` for what has happened, `for` for what lasts since then.
    """
    moment = _moment(at)
    if moment is None:
        return format_html("<span>{}</span>", "–")
    exact = moment.astimezone(dt.UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-time="{}">{}</time>',
        exact.isoformat(timespec="seconds"), exact.strftime("%Y-%m-%d %H:%M:%S"), how, _relative(moment, how),
    )  # fmt: skip


@register.simple_tag
def age(at: Any, how: str = "for") -> SafeString:
    """The same as `ago`, inside an SVG text."""
    moment = _moment(at)
    if moment is None:
        return SafeString("")
    return format_html(
        '<tspan data-at="{}" data-time="{}">{}</tspan>',
        moment.isoformat(timespec="seconds"), how, _relative(moment, how),
    )  # fmt: skip


@register.simple_tag
def terminal(spans: list[ansi.Span]) -> SafeString:
    """A terminal's output with its colours as classes."""
    return format_html_join(
        "",
        "{}",
        ((format_html('<span class="{}">{}</span>', s.classes, s.text) if s.classes else s.text,) for s in spans),
    )
