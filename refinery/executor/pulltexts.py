"""What we say on a pull request. What others have written is shown there as words, and does nothing: it mentions
nobody, closes no issue, and is no markup."""

from __future__ import annotations

import hashlib
import hmac
import re
from html import escape

from django.conf import settings
from django.urls import reverse

from agents import usage
from agents.models import Run
from beads import config as configs
from beads.models import Bead, Rig
from refinery.core.text import sanitize
from refinery.models import ReviewEntry

LONG = 4000  # characters of what an agent, or a bead, says
BEADS = 50  # of a convoy that are named
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~@:-])")


def plain(text: str) -> str:
    """One harmless line."""
    return " ".join(sanitize(text).split())[:300]


def words(text: str) -> str:
    """A sentence in Markdown, of which every character stands for itself."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", escape(" ".join(sanitize(text).split())))


def quoted(text: str) -> str:
    """Many lines as they are: in a fence that they cannot end."""
    text = sanitize(text).strip()[:LONG]
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def url(entry: ReviewEntry) -> str:
    """Its page here."""
    return f"{settings.GASTOWN_URL}{reverse('review', args=[entry.pk])}"


def mark(rig: Rig, number: int) -> str:
    """What is hidden in our comment on a pull request, and tells it from others: nobody can write it before we have."""
    told = f"pull-comment:{rig.pk}:{number}".encode()
    return f"<!-- gastown:{hmac.new(settings.SECRET_KEY.encode(), told, hashlib.sha256).hexdigest()[:32]} -->"


def title(entry: ReviewEntry) -> str:
    """As the entry's own, on one line."""
    return plain(entry.bead.title)[:250] or entry.branch


def body(entry: ReviewEntry) -> str:
    """What a reviewer wants to know first: for what, by whom, how it is checked, what it has cost."""
    bead = entry.source or entry.bead
    parts = [f"[{entry.pk} in Gastown]({url(entry)}), for {words(bead.pk)}."]
    if entry.convoy is not None:
        parts.append(f"Convoy {words(entry.convoy.pk)}: {words(entry.convoy.bead.title)}")
        rows = Bead.objects.filter(convoy=entry.convoy).order_by("created_at").values_list("pk", "title")[:BEADS]
        parts.append("\n".join(f"- {words(key)}: {words(name)}" for key, name in rows))
    if bead.body:
        parts.append(f"What is wanted:\n\n{quoted(bead.body)}")
    run = Run.objects.ended().filter(bead=bead).exclude(summary="").order_by("created_at").last()
    if run is not None:
        parts.append(f"What {words(entry.author)} says of it:\n\n{quoted(run.summary)}")
    gates = configs.usable(entry.rig.town.config, entry.rig.config)[0].refinery.gates
    parts.append("Gates: " + (", ".join(words(gate.name) for gate in gates) or "none"))
    if spent := _spent(bead):
        parts.append(f"Spent so far: {spent}")
    return "\n\n".join(parts)[:60_000]


def _spent(bead: Bead) -> str:
    found = usage.total(usage.of_bead(bead))
    if not found.tokens:
        return ""
    return f"{found.tokens:,} tokens"


def comment(hidden: str, entry: ReviewEntry | None, lines: tuple[str, ...]) -> str:
    """Our one comment."""
    told = [words(line) for line in lines]
    if entry is not None:
        told.append(f"[{entry.pk} in Gastown]({url(entry)})")
    return "\n\n".join([hidden, *told])
