"""`mayor TEXT`: ask the town's mayor; prints the id of the convoy that it staged, its question, or its answer.

Exit 0 when there is one of these, 1 when it failed, 3 when it takes longer than `--timeout` (it goes on).
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.urls import reverse

from beads.channels import look_until
from beads.command import ExitWith, GastownCommand, Said, actor
from beads.errors import Invalid
from beads.finders import bead_of, rig_of, town_of
from beads.ledger import check_text
from beads.models import Bead
from refinery.decisions import mayor
from refinery.pages import boards, conversation

TIMED_OUT = 3
LOOK_SECONDS = 0.5
PATIENCE = 600.0  # seconds, without --timeout


class Command(GastownCommand):
    help = "Ask the mayor for a plan; prints the id of the convoy that it staged, or its question."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        parser.add_argument("text", metavar="TEXT")
        parser.add_argument("--town")
        parser.add_argument("--rig", help="the repository that it is shown; the town's only one, when left out")
        parser.add_argument("--answer", metavar="ID", help="TEXT answers what the mayor asks about this request")
        parser.add_argument("--timeout", type=float, default=PATIENCE, metavar="SECONDS")
        parser.add_argument("--no-wait", action="store_true", help="only ask; prints the id of the request")

    def run(  # type: ignore[override]
        self, text: str, town: str | None, rig: str | None, answer: str | None, timeout: float, no_wait: bool, **_: Any
    ) -> Any:
        """Ask, or answer, and wait."""
        if not timeout >= 0:
            raise Invalid("timeout is no length of time", field="timeout")
        if answer:
            request = bead_of(answer, "message")
            known = len(_look(request)["said"])
            mayor.answer(request, by=actor(), text=check_text("text", text, mayor.LONGEST, required=True))
        else:
            owner = rig_of(rig).town if rig and town is None else town_of(town)
            request, known = mayor.ask(mayor.home_of(owner, rig), by=actor(), text=text), -1
        if no_wait:
            return Said(_look(request), request.pk)
        return _told(self._wait(request, known, timeout), request)

    def _wait(self, request: Bead, known: int, timeout: float) -> dict[str, Any]:
        """Until something came of it. `known`: so much had been said when it was answered, and does not count."""

        def done(seen: dict[str, Any]) -> bool:
            """It has asked something new, or ended."""
            return (seen["question"] and len(seen["said"]) > known) or seen["status"] in ("closed", "failed")

        seen = look_until(lambda: _look(request), done, at_most=timeout, every=LOOK_SECONDS)
        return seen if done(seen) else seen | {"timeout": True}


def _look(request: Bead) -> dict[str, Any]:
    """The request as it stands now."""
    (row,) = conversation.shown(boards.Board(request.town), [bead_of(request.pk)])
    return row


def _told(seen: dict[str, Any], request: Bead) -> Any:
    """What came of it: the ids of what is staged alone on the first lines, so that a script can go on."""
    page = settings.GASTOWN_URL + reverse("mayor", args=[request.town.slug])
    data = seen | {"request": request.pk, "url": page}
    if seen.get("timeout"):
        return ExitWith(Said(data, f"{request.pk} goes on: {seen['reason']}", note=f"see {page}"), TIMED_OUT)
    if seen["status"] == "failed":
        return ExitWith(Said(data, f"{request.pk} failed: {seen['reason']}", note=f"see {page}"), 1)
    made = [*seen["convoys"], *seen["beads"]]
    lines = [one["id"] for one in made]
    if seen["question"]:
        lines += ["The mayor asks:", seen["question"], f'gastown mayor --answer {request.pk} "…"']
    elif not made:
        lines.append(seen["answer"] or seen["reason"])
    return Said(data, "\n".join(lines))
