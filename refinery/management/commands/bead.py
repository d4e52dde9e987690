"""`bead show|list|release|export|import`, and the verbs of beads"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from agents.models import Run
from beads import exchange, lists, private
from beads.command import GastownCommand, Said, actor, table
from beads.errors import Conflict, Invalid, NotFound
from beads.finders import bead_of, rig_of, town_of
from beads.lifecycle import LIVE
from beads.models import Bead, Dependency, Rig, Town
from refinery import links
from refinery.decisions import exchange as decisions
from refinery.decisions import work
from refinery.management.verbs import add_verbs
from refinery.pages import boards, outcomes, pulls, ways


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
        lists.limit_argument(listing, 100)
        release = self.sub(verbs, "release", self.release, "let what agents have filed be done by agents")
        release.add_argument("ids", nargs="*", metavar="ID")
        release.add_argument("--all-of", metavar="RUN", help="all that waits of what this run has filed")
        release.add_argument("--reason", default="")
        export = self.sub(verbs, "export", self.export, "work as lines of JSON, as bd reads them")
        export.add_argument("file", metavar="FILE", help="- is the standard output")
        export.add_argument("--town")
        export.add_argument("--rig")
        export.add_argument("--status")
        taking = self.sub(verbs, "import", self.take_in, "make beads of such lines; what is here or over is left out")
        taking.add_argument("file", metavar="FILE", help="- is the standard input")
        taking.add_argument("--rig", help="else the rig that a line names, or the only one")
        add_verbs(self, verbs, "bead")

    def show(self, id: str, **_: Any) -> Any:
        """One bead."""
        bead = bead_of(id)
        data = boards.bead_row(boards.Board(bead.town), bead) | {
            "body": bead.body,
            "parent": bead.parent_id,
            "released_at": boards.iso(bead.released_at),
            "released_by": bead.released_by,
            "context": bead.context,
            "blocked_by": list(bead.blocked_by.values_list("on_id", flat=True)),
            "blocks": list(bead.blocks.values_list("bead_id", flat=True)),
            "children": [{"id": c.pk, "purpose": c.purpose, "status": c.status} for c in bead.children.all()],
            "entries": [
                {"id": e.pk, "state": e.state, "reason": e.reason, "text": e.reason_text} | pulls.of_entry(e)
                for e in bead.entries.all()
            ],
            "runs": [
                {"id": r.pk, "kind": r.kind, "state": r.state, "outcome": r.outcome, "reason": r.reason}
                | outcomes.run_facts(r)
                for r in bead.runs.order_by("created_at")
            ],
            "history": boards.history(bead),
        }
        lines = [f"{bead.pk} {bead.title}", f"{bead.status} {bead.resolution}: {data['reason']}", "", bead.body]
        if bead.filed_by:
            released = "not released"
            if bead.released_at:
                released = f"released by {bead.released_by}"
            lines += ["", f"filed by {bead.created_by} in run {bead.filed_by}, depth {bead.depth}: {released}"]
        if bead.model:
            lines += ["", f"who works on it is started with the model {bead.model}"]
        lines += [f"{e['at'][:19]} {e['kind']} {e['from']}→{e['to']} {e['reason']}" for e in data["history"]]
        lines += links.addresses(data["reason"])
        shown = [e["pull_request"] for e in data["entries"] if e["pull_request"]]
        lines += [f"pull request {pull['name']}: {pull['url']}" for pull in shown]
        last = bead.runs.order_by("created_at").last()
        if last is not None:
            what = last.pk
            if made := outcomes.made(last):
                what += f": made {made}"
            url = links.run_url(last.pk)
            lines.append(f"its last run: {what}; its output: gastown runs log {last.pk}, or {url}")
            if command := outcomes.restore(last):
                lines.append(f"to see what was saved: {command}")
        lines += [f"{what}: gastown {command}" for what, command in ways.ways_on(bead)]
        return Said(data, "\n".join(lines))

    def list(self, town: str | None, rig: str | None, status: str | None, type: str, limit: int, **_: Any) -> Any:
        """Beads, the newest first."""
        owner, found = _asked(town, rig, status)
        found = found.order_by("-created_at")
        if type != "all":
            found = found.filter(type=type)
        board = boards.Board(owner)
        shown = lists.first(found, limit)
        rows = [boards.bead_row(board, b) for b in shown.rows]
        return Said(rows, table(rows, ["id", "status", "priority", "rig", "title", "reason"], "no beads"), shown.note)

    def export(self, file: str, town: str | None, rig: str | None, status: str | None, **_: Any) -> Any:
        """Planned work, the oldest first. A file is there as a whole, or not at all."""
        found = _asked(town, rig, status)[1].filter(type="issue", purpose="work").order_by("created_at", "id")
        blockers: dict[str, list[str]] = defaultdict(list)
        for bead, on in Dependency.objects.filter(bead__in=found).order_by("id").values_list("bead_id", "on_id"):
            blockers[bead].append(on)
        lines = [exchange.line(bead, blockers[bead.pk]) + "\n" for bead in found]
        if file == "-":
            return Said([json.loads(line) for line in lines], "".join(lines).rstrip("\n"))
        try:
            private.write(Path(file), "".join(lines))
        except OSError as error:
            raise Invalid(f"{file}: {error.strerror or error}", field="file") from error
        return Said({"beads": len(lines), "file": file}, f"{len(lines)} beads are in {file}")

    def take_in(self, file: str, rig: str | None, **_: Any) -> Any:
        """Take in all of a file, or (when one line is wrong) nothing."""
        try:
            with sys.stdin.buffer if file == "-" else open(file, "rb") as lines:
                items = exchange.read(file, lines)
        except OSError as error:
            raise Invalid(f"{file}: {error.strerror or error}", field="file") from error
        taken = decisions.take_in(items, lambda named: _home(rig or named), by=actor())
        data = {"made": taken.made, "known": list(taken.known), "over": list(taken.over)}
        lines = [f"{theirs}: {ours}" for theirs, ours in taken.made.items()]
        lines.append(f"{len(taken.made)} made, {len(taken.known)} were here before, {len(taken.over)} are over")
        return Said(data, "\n".join(lines))

    def release(self, ids: Sequence[str], all_of: str | None, reason: str, **_: Any) -> Any:
        """Release all of them, or (when one cannot be) none."""
        beads = [bead_of(key) for key in dict.fromkeys(ids)]
        if all_of is not None:
            if not Run.objects.filter(pk=all_of).exists():
                raise NotFound(f"no run {all_of}", details={"field": "all_of"})
            filed = Bead.objects.select_related("town", "rig").filter(filed_by=all_of, released_at=None, type="issue")
            waiting = filed.filter(convoy=None, status__in=LIVE).exclude(pk__in=[b.pk for b in beads])
            beads += waiting.order_by("created_at", "id")
        if not beads:
            nothing = f"nothing that {all_of} has filed waits for a release"
            raise Conflict(nothing) if all_of else Invalid("name beads, or --all-of RUN", field="id")
        with transaction.atomic():
            for bead in beads:
                work.release_bead(bead, by=actor(), reason=reason)
        released = [bead.pk for bead in beads]
        return Said({"released": released}, f"released: {', '.join(released)}")


def _asked(town: str | None, rig: str | None, status: str | None) -> tuple[Town, QuerySet[Bead]]:
    """The beads of a rig, or of a town, and whose they are."""
    owner = rig_of(rig).town if rig else town_of(town)
    found = Bead.objects.select_related("rig").filter(town=owner)
    if rig:
        found = found.filter(rig__slug=rig)
    if status:
        found = found.filter(status=status)
    return owner, found


def _home(named: str) -> Rig:
    """The rig of that name; without one the only rig. Raises Invalid, NotFound."""
    if named:
        return rig_of(named)
    rigs = list(Rig.objects.select_related("town").order_by("slug")[:2])
    if len(rigs) != 1:
        raise Invalid("which rig is the work for? --rig RIG", field="rig")
    return rigs[0]
