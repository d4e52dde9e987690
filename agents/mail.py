"""The only writer of Mail and Nudge. Mail is kept; a nudge is shown once and expires."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from agents.models import Agent, Mail, Nudge
from beads import inbox
from beads.errors import NotFound
from beads.ledger import check_text
from beads.models import Bead, Town

PEOPLE = frozenset({"overseer", "mayor"})
NUDGE_LIFE = dt.timedelta(minutes=30)


def send(
    town: Town,
    sender: str,
    recipient: str,
    subject: str,
    body: str = "",
    *,
    kind: str = "NOTE",
    about: Bead | None = None,
) -> Mail:
    """Send to an agent of the town by name, to `mayor`, or to `overseer`. NotFound names the recipient."""
    if recipient not in PEOPLE and not Agent.objects.filter(town=town, name=recipient).exists():
        raise NotFound(f"no agent {recipient!r} in town {town.slug}", details={"field": "to"})
    sent = Mail.objects.create(
        town=town,
        sender=sender[:100],
        recipient=recipient,
        kind=check_text("kind", kind, 40, required=True),
        subject=check_text("subject", subject, 300, required=True),
        body=check_text("body", body, 256 * 1024),
        about=about,
    )
    inbox.changed(town.slug)
    return sent


def unread(town: Town, recipient: str, limit: int = 50) -> Sequence[Mail]:
    """Unread mail of a recipient, oldest first."""
    return list(Mail.objects.filter(town=town, recipient=recipient, read_at=None)[:limit])


def mark_read(mail: Sequence[Mail], now: dt.datetime) -> None:
    """Note that these were read."""
    Mail.objects.filter(pk__in=[m.pk for m in mail], read_at=None).update(read_at=now)


def nudge(agent: Agent, sender: str, message: str, now: dt.datetime) -> Nudge:
    """Leave a short-lived hint for an agent."""
    return Nudge.objects.create(
        agent=agent,
        sender=sender[:100],
        message=check_text("message", message, 1000, required=True),
        expires_at=now + NUDGE_LIFE,
    )


def take_nudges(agent: Agent, now: dt.datetime) -> list[str]:
    """The agent's undelivered nudges, marked delivered."""
    waiting = list(Nudge.objects.filter(agent=agent, delivered_at=None, expires_at__gt=now).order_by("id")[:20])
    Nudge.objects.filter(pk__in=[n.pk for n in waiting]).update(delivered_at=now)
    return [f"{n.sender}: {n.message}" for n in waiting]
