"""`bead show|list|cancel|retry|confirm|block|unblock`"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads.command import GastownCommand, Said, actor, bead_of, rig_of, table, town_of
from beads.errors import Invalid
from beads.models import Bead
from refinery import doors, shows


class Command(GastownCommand):
    help = "Beads: the ledger of work."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        self.sub(verbs, "show", self.show, "one bead with its history").add_argument("id")
        listing = self.sub(verbs, "list", self.list, "beads, newest first")
        listing.add_argument("--town")
        listing.add_argument("--rig")
        listing.add_argument("--status")
        listing.add_argument("--type", default="issue")
        listing.add_argument("--limit", type=int, default=100)
        cancel = self.sub(verbs, "cancel", self.cancel, "cancel: never merged, runs stopped")
        cancel.add_argument("id")
        cancel.add_argument("--reason", default="")
        self.sub(verbs, "retry", self.retry, "bring a failed bead back").add_argument("id")
        confirm = self.sub(verbs, "confirm", self.confirm, "say that a bead whose agent changed nothing needed nothing")
        confirm.add_argument("id")
        confirm.add_argument("--reason", default="")
        for name, run, text in (
            ("block", self.block, "let it, and its change in the queue, wait until another bead is closed"),
            ("unblock", self.unblock, "let it no longer wait for another bead"),
        ):
            verb = self.sub(verbs, name, run, text)
            verb.add_argument("id")
            verb.add_argument("--on", required=True, metavar="BEAD")
            verb.add_argument("--reason", default="")

    def show(self, id: str, **_: Any) -> Any:
        """One bead."""
        bead = bead_of(id)
        data = shows.bead_row(shows.Board(bead.town), bead) | {
            "body": bead.body,
            "parent": bead.parent_id,
            "context": bead.context,
            "blocked_by": list(bead.blocked_by.values_list("on_id", flat=True)),
            "blocks": list(bead.blocks.values_list("bead_id", flat=True)),
            "children": [{"id": c.pk, "purpose": c.purpose, "status": c.status} for c in bead.children.all()],
            "entries": [{"id": e.pk, "state": e.state, "reason": e.reason} for e in bead.entries.all()],
            "runs": [
                {"id": r.pk, "kind": r.kind, "state": r.state, "outcome": r.outcome, "reason": r.reason}
                for r in bead.runs.order_by("created_at")
            ],
            "history": shows.history(bead),
        }
        lines = [f"{bead.pk} {bead.title}", f"{bead.status} {bead.resolution}: {data['reason']}", "", bead.body]
        lines += [f"{e['at'][:19]} {e['kind']} {e['from']}→{e['to']} {e['reason']}" for e in data["history"]]
        return Said(data, "\n".join(lines))

    def list(self, town: str | None, rig: str | None, status: str | None, type: str, limit: int, **_: Any) -> Any:
        """Beads, the newest first."""
        if limit < 1:
            raise Invalid("--limit must be at least 1", field="limit")
        owner = rig_of(rig).town if rig else town_of(town)
        found = Bead.objects.select_related("rig").filter(town=owner).order_by("-created_at")
        if rig:
            found = found.filter(rig__slug=rig)
        if status:
            found = found.filter(status=status)
        if type != "all":
            found = found.filter(type=type)
        board = shows.Board(owner)
        rows = [shows.bead_row(board, b) for b in found[:limit]]
        return Said(rows, table(rows, ["id", "status", "priority", "rig", "title", "reason"], "no beads"))

    def cancel(self, id: str, reason: str, **_: Any) -> Any:
        """Cancel."""
        doors.cancel_bead(bead_of(id), reason, actor())
        return Said({"id": id}, f"{id} is being cancelled")

    def retry(self, id: str, **_: Any) -> Any:
        """Retry."""
        doors.retry_bead(bead_of(id), actor())
        return Said({"id": id}, f"{id} is being retried")

    def confirm(self, id: str, reason: str, **_: Any) -> Any:
        """Nothing was needed."""
        doors.confirm_bead(bead_of(id), actor(), reason)
        return Said({"id": id}, f"{id} is being closed: nothing was needed")

    def block(self, id: str, on: str, reason: str, **_: Any) -> Any:
        """Make it wait."""
        doors.block_bead(bead_of(id), bead_of(on), actor(), reason)
        return Said({"id": id, "on": on}, f"{id} waits for {on} from the next tick on")

    def unblock(self, id: str, on: str, reason: str, **_: Any) -> Any:
        """Let it go on."""
        doors.unblock_bead(bead_of(id), bead_of(on), actor(), reason)
        return Said({"id": id, "on": on}, f"{id} waits for {on} no longer")
