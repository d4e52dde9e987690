"""What was said about a request to the mayor: the kinds of its bead's events, and which question is open. Read only."""

from __future__ import annotations

from beads.models import Bead, BeadEvent

ASKED, ANSWERED, REPLIED = "question", "answer", "replied"  # by the mayor, by a person, by the mayor in words


def open_question(request: Bead) -> BeadEvent | None:
    """What the mayor asks and nobody has answered; None when there is no such thing."""
    last = request.events.filter(kind__in=[ASKED, ANSWERED]).order_by("id").last()
    return last if last is not None and last.kind == ASKED else None
