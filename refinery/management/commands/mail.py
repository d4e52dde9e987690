"""`mail list|read|send`"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from agents import mail as post
from agents.models import Mail
from beads import lists
from beads.command import GastownCommand, Said, actor, table
from beads.errors import NotFound
from beads.finders import bead_of, town_of


class Command(GastownCommand):
    help = "Mail between agents and people."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        listing = self.sub(verbs, "list", self.list, "mail, newest first")
        listing.add_argument("--town")
        listing.add_argument("--to")
        listing.add_argument("--unread", action="store_true")
        lists.limit_argument(listing)
        read = self.sub(verbs, "read", self.read, "one mail; it counts as read when it is for the overseer")
        read.add_argument("id", type=int)
        send = self.sub(verbs, "send", self.send, "send to an agent by name, or (polecat) to who works on a bead")
        send.add_argument("to")
        send.add_argument("--bead", help="whose work it belongs to; else what the agent works on")
        send.add_argument("--town")
        send.add_argument("--subject", required=True)
        send.add_argument("--body", default="")

    def list(self, town: str | None, to: str | None, unread: bool, limit: int, **_: Any) -> Any:
        """Mail."""
        found = Mail.objects.filter(town=town_of(town)).order_by("-id")
        if to:
            found = found.filter(recipient=to)
        if unread:
            found = found.filter(read_at=None)
        shown = lists.first(found, limit)
        rows = [post.data(m) for m in shown.rows]
        return Said(rows, table(rows, ["id", "from", "to", "kind", "subject", "about"], "no mail"), shown.note)

    def read(self, id: int, **_: Any) -> Any:
        """One mail."""
        found = Mail.objects.filter(pk=id).first()
        if found is None:
            raise NotFound(f"no mail {id}", details={"field": "id"})
        if found.recipient == "overseer":
            post.mark_read([found], timezone.now())
        data = post.data(found)
        return Said(data, f"{found.sender} → {found.recipient} [{found.kind}] {found.subject}\n\n{found.body}")

    def send(self, to: str, bead: str | None, town: str | None, subject: str, body: str, **_: Any) -> Any:
        """Send."""
        about = None
        if bead:
            about = bead_of(bead)
        where = about.town if about else town_of(town)
        sent = post.send(where, str(actor()), to, post.Letter(subject, body, about=about), bead=about)
        return Said({"id": sent.pk}, str(sent.pk))
