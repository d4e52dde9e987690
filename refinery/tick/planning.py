"""What a run of the mayor is told: the conversation, what was asked before, how its convoys fare. Reads only.

And how the mayor hears what becomes of its plans: as mail, which its next run is given.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from agents import mail, roster
from agents.lifecycle import RunKind
from agents.models import Run
from beads.lifecycle import BeadType
from beads.models import Bead, BeadEvent, Convoy, Rig, Town
from refinery.core.telling import short
from refinery.store.requests import ANSWERED, ASKED, REPLIED

EARLIER = 10  # requests, and convoys of its own, that it is told of
LONG = 4000  # characters of one thing that was said


def brief(request: Bead) -> dict[str, Any]:
    """What is told of a request beside its text."""
    rigs = Rig.objects.filter(town=request.town).order_by("slug")
    return {
        "said": said(request),
        "made": made(request),
        "earlier": _earlier(request),
        "convoys": _convoys(request.town),
        "rigs": [{"slug": rig.slug, "branch": rig.default_branch} for rig in rigs],
    }


def said(request: Bead) -> list[dict[str, str]]:
    """What was asked and answered since, oldest first: `by` and `text`, and `kind` (question, answer or replied)."""
    events = request.events.filter(kind__in=[ASKED, ANSWERED, REPLIED]).order_by("id")
    return [{"kind": e.kind, "by": e.actor, "text": short_of(e)} for e in events]


def short_of(event: BeadEvent) -> str:
    """What was said, at most so long as a prompt takes it."""
    if len(event.reason) <= LONG:
        return event.reason
    return f"{event.reason[:LONG]}…"


def made(request: Bead) -> list[dict[str, str]]:
    """What runs for this request have filed before: convoys, and beads outside of them."""
    runs = Run.objects.filter(bead=request, kind=RunKind.MAYOR).values_list("pk", flat=True)
    rows = Bead.objects.filter(filed_by__in=list(runs), convoy=None).order_by("created_at", "id")
    return [{"id": b.pk, "type": b.type, "title": b.title} for b in rows]


def _earlier(request: Bead) -> list[dict[str, str]]:
    rows = Bead.objects.filter(town=request.town, type=BeadType.MESSAGE, created_at__lt=request.created_at)
    found = list(rows.order_by("-created_at")[:EARLIER])
    return [{"id": b.pk, "asked": short(b.body or b.title, 500), "came": _came(b)} for b in reversed(found)]


def _came(request: Bead) -> str:
    reply = request.events.filter(kind=REPLIED).order_by("id").last()
    return short(f"{request.status}: {(reply or request).reason}", 500)


def _convoys(town: Town) -> list[dict[str, str]]:
    """The latest convoys that the mayor has planned, and where they stand."""
    by_mayor = Run.objects.filter(town=town, kind=RunKind.MAYOR).values("pk")
    rows = Convoy.objects.select_related("bead").filter(bead__town=town, bead__filed_by__in=by_mayor)
    return [
        {"id": c.pk, "title": c.bead.title, "stands": _stands(c)} for c in rows.order_by("-bead__created_at")[:EARLIER]
    ]


def _stands(convoy: Convoy) -> str:
    if convoy.landed_sha:
        return f"landed as {convoy.landed_sha[:12]}"
    if convoy.started_at is None and not convoy.bead.closed_at:
        return "staged: nobody has started it"
    failed = [f"{b.pk} {b.title}: {short(b.reason, 200)}" for b in convoy.beads.filter(status="failed")[:5]]
    return f"{convoy.bead.status}: {'; failed: '.join([short(convoy.bead.reason, 200), *failed])}"


def heard(about: Bead | None, kind: str, title: str, text: str) -> None:
    """Tell the mayor what has become of a convoy that it planned, in its next prompt. No-op for other convoys.

    No run is started for it: whoever wants to know why, or a new plan, asks; so nothing turns round by itself.
    """
    if about is None or about.type != BeadType.CONVOY or not about.filed_by:
        return
    if Run.objects.filter(Q(pk=about.filed_by), kind=RunKind.MAYOR).exists():
        mail.send(about.town, "gastown", roster.MAYOR, mail.Letter(title[:300], text, kind=kind, about=about))
