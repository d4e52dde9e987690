"""Rows of the lists that may be long, made by hand: a page has hundreds, and a template takes several times as long for
each. Every value is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from django import template
from django.utils.safestring import SafeString

from refinery.links import harmless, linked, many
from refinery.templatetags.gastown import age, ago, chip, cut, lands, reveal_hidden, words

register = template.Library()


@register.simple_tag
def entry_rows(rows: Iterable[Mapping[str, Any]]) -> SafeString:
    """Review entries: place, title, state, why, and since when."""
    return SafeString("\n".join(map(_entry, rows)))


def _entry(row: Mapping[str, Any]) -> str:
    place = "–"
    if row["position"] is not None:
        place = row["position"]
    admitted = ""
    if row["attempts"] > 1:
        admitted = f" <small>admitted {row['attempts']} times</small>"
    if row["admitted_at"]:
        since = f"{ago(row['admitted_at'], 'for')} in the lane"
    elif row["phase"] in ("merged", "failed"):
        since = ago(row["created_at"])
    else:
        since = f"waits {ago(row['created_at'], 'for')}"
    when = lands(row, "lands")
    if when:
        since += f"<br><small>{when}</small>"
    return (
        f'<li id="entry-{escape(row["id"])}">\n'
        f'<span class="place">{place}</span>\n'
        f'<span class="what"><a href="{escape(row["url"])}">{harmless(row["title"])}</a>'
        f"<code>{harmless(row['branch'])}</code></span>\n"
        f'<span class="state">{chip(row["phase"])}</span>\n'
        f'<span class="why">{linked(row["detail"])}{admitted}</span>\n'
        f'<span class="when">{since}</span>\n</li>'
    )


@register.simple_tag
def cars(rows: Iterable[Mapping[str, Any]]) -> SafeString:
    """A lane's entries in queue order, as small as they get; those in the train look like it."""
    return SafeString("\n".join(map(_car, rows)))


def _car(row: Mapping[str, Any]) -> str:
    title, phase = harmless(row["title"]), escape(words(row["phase"]))
    kind = ""
    if row["car"]:
        kind = ' class="coupled"'
        if row["joins"]:
            kind = ' class="coupled joins"'
    joins = ""
    if row["joins"]:
        joins = '<span class="hidden">in one batch with the one before, </span>'
    place = row["position"] or f'<span aria-hidden="true">‖</span><span class="hidden">{phase}</span>'
    return (
        f'<li{kind}><a class="car s-{escape(row["phase"])}" href="{escape(row["url"])}" title="{title}: {phase}">'
        f'<span class="hidden">{title}: </span>{joins}{place}</a></li>'
    )


@register.simple_tag
def bead_rows(rows: Iterable[Mapping[str, Any]]) -> SafeString:
    """Beads of a convoy: title, state, why, and since when."""
    return SafeString("\n".join(map(_bead, rows)))


def _bead(row: Mapping[str, Any]) -> str:
    review = ""
    if row["review_url"]:
        review = f' <small><a href="{escape(row["review_url"])}">its review</a></small>'
    commit = ""
    if row["merge_sha"]:
        commit = f" <code>{escape(row['merge_sha'][:10])}</code>"
    return (
        f'<li id="bead-{escape(row["id"])}">'
        f'<span class="what"><a href="{escape(row["url"])}">{harmless(row["title"])}</a>{review}</span>\n'
        f'<span class="state">{chip(row["phase"])}</span>\n'
        f'<span class="why">{linked(row["reason"])}{commit}</span><span class="when">{ago(row["since"])}</span></li>'
    )


@register.simple_tag
def event_rows(events: Iterable[Mapping[str, Any]], convoy: str) -> SafeString:
    """What happened to a convoy (its id) and its beads."""
    link = many("bead")
    return SafeString("\n".join(_event(event, convoy, link) for event in events))


def _event(event: Mapping[str, Any], convoy: str, link: Callable[[str], str]) -> str:
    whose = "<strong>Convoy</strong>"
    if event["bead_id"] != convoy:
        whose = f'<a href="{escape(link(event["bead_id"]))}">{harmless(event["bead__title"])}</a>'
    what = escape(words(event["kind"]))
    if event["to_status"]:
        what = f"{escape(words(event['from_status']))} → <strong>{escape(words(event['to_status']))}</strong>"
    return (
        f'<li id="event-{event["pk"]}"><span class="when">{ago(event["created_at"])}</span>'
        f'<span class="what">{whose} {what}</span>'
        f'<span class="why">{linked(cut(event["reason"], 320))} <small>{harmless(event["actor"])}</small></span></li>'
    )


@register.simple_tag
def nodes(rows: Iterable[Mapping[str, Any]]) -> SafeString:
    """The boxes of a dependency graph."""
    return SafeString("\n".join(map(_node, rows)))


def _node(n: Mapping[str, Any]) -> str:
    bead, box = n["bead"], n["box"]
    href = bead["review_url"] if bead["review_url"] and bead["status"] == "in_review" else bead["url"]
    who = ""
    if run := bead["run"]:
        who = f" · {escape(cut(run.agent_name or 'gates', 14))}"
    how = "ago" if bead["status"] in ("closed", "failed") else "for"
    since = age(bead["since"], how)
    return (
        f'<a id="node-{escape(bead["id"])}" class="node s-{escape(bead["phase"])}" href="{escape(href)}">'
        f'<svg x="{box.x}" y="{box.y}" width="212" height="58">'
        f"<title>{harmless(bead['title'])}: {harmless(bead['reason'])}</title>\n"
        f'<rect class="box" x="1.5" y="1.5" width="209" height="55" rx="7"/>'
        f'<rect class="edge-mark" width="6" height="58" rx="3"/>\n'
        f'<text class="name" x="16" y="22">{escape(cut(reveal_hidden(bead["title"]), 22))}</text>\n'
        f'<text class="note" x="16" y="43"><tspan class="word">{escape(words(bead["phase"]))}</tspan>{who} · {since}'
        "</text></svg></a>"
    )
