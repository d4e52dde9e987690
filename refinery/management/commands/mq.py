"""`mq submit|list|show`, and the verbs of entries and lanes: the merge queue."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from beads import lists
from beads.command import GastownCommand, Said, actor, table
from beads.finders import bead_of, rig_of
from beads.models import Town
from refinery import links
from refinery.core.outputs import plain
from refinery.core.states import EntryKind, EntryState
from refinery.decisions import merge_queue
from refinery.decisions.subjects import entry_of
from refinery.management.verbs import add_verbs
from refinery.models import ReviewEntry
from refinery.pages import boards

TAIL = 15  # lines of what a gate that did not pass has printed
_LISTED = ("verdict", "comment")  # what people say that has a list of its own


def _said(history: list[dict[str, Any]]) -> list[str]:
    """What people said beside what they did, oldest first: why it was retried, promoted, …"""
    return [
        f"{e['at'][:19]} {e['kind'].replace('_', ' ')} by {e['actor']}: {e['reason']}"
        for e in history
        if e["reason"] and ":" in e["actor"] and not e["kind"].startswith(_LISTED)
    ]


def _gate(gate: dict[str, Any]) -> Iterator[str]:
    """What is said of a gate's result; of one that the config has replaced, no more than that."""
    told = f"{gate['outcome']} ({gate['say']})"
    if gate["outcome"] == "not_needed":
        told = gate["say"]
    if gate["past"]:
        yield f"gate {gate['gate']}: {told}; {boards.PAST}"
        return
    if gate.get("remedy"):
        told += f"; {gate['remedy']}"
    yield f"gate {gate['gate']}: {told}"
    if gate["telling"]:
        yield f"  {gate['telling']}"
    tests = gate.get("tests") or {}
    for test in tests.get("failures", []):
        yield f"  failed: {test['name']}: {' '.join(test['message'].split())[:200]}"
    yield from (f"  note: {note}" for note in tests.get("notes", []))
    if gate["outcome"] not in ("pass", "not_needed"):
        yield from (f"  | {line}" for line in plain(gate["output"]).strip().splitlines()[-TAIL:])


class Command(GastownCommand):
    help = "The merge queue."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        submit = self.sub(verbs, "submit", self.submit, "enqueue an existing remote branch; prints the entry's id")
        submit.add_argument("rig")
        submit.add_argument("--branch", required=True)
        submit.add_argument("--target")
        submit.add_argument("--title")
        submit.add_argument("--bead")
        submit.add_argument("--priority", type=int, default=2)
        listing = self.sub(verbs, "list", self.list, "entries in queue order")
        listing.add_argument("--rig")
        listing.add_argument("--all", action="store_true", help="ended ones too, the latest of them: see --limit")
        lists.limit_argument(listing)
        self.sub(verbs, "show", self.show, "one entry with all that is known").add_argument("id")
        add_verbs(self, verbs, "mq")

    def submit(
        self,
        rig: str,
        branch: str,
        target: str | None,
        title: str | None,
        bead: str | None,
        priority: int,
        **_: Any,
    ) -> Any:
        """Enqueue a branch."""
        source = None
        if bead:
            source = bead_of(bead)
        wanted = merge_queue.Submission(branch, target, title, source, priority)
        entry, new = merge_queue.submit(rig_of(rig), wanted, by=actor())
        return Said({"id": entry.pk, "new": new, "head": entry.head_sha, "target": entry.target}, entry.pk)

    def list(self, rig: str | None, all: bool, limit: int, **_: Any) -> Any:
        """Entries in queue order; then those that have ended."""
        towns = [rig_of(rig).town] if rig else list(Town.objects.order_by("pk"))
        rows, notes = [], []
        for town in towns:
            board = boards.Board(town)
            found = ReviewEntry.objects.select_related("bead", "rig").filter(rig__town=town)
            if rig:
                found = found.filter(rig__slug=rig)
            active = {e.pk: e for e in found.filter(state=EntryState.ACTIVE)}
            for views in board.lanes.values():
                rows += [boards.entry_data(board, active[v.id]) for v in views if v.id in active]
            if all:
                changes = found.exclude(state=EntryState.ACTIVE).exclude(kind=EntryKind.CHECK)
                ended = lists.first(changes.order_by("-closed_at"), limit)
                rows += [boards.entry_data(board, e) for e in ended.rows]
                if ended.cut:
                    notes.append(f"ended ones of town {town.slug}: {ended.note}")
        columns = ["position", "id", "phase", "target", "branch", "attempts", "estimate", "title", "detail"]
        return Said(rows, table(rows, columns, "the queue is empty"), "\n".join(notes))

    def show(self, id: str, **_: Any) -> Any:
        """One entry."""
        entry = entry_of(id)
        data = boards.entry_detail(boards.Board(entry.rig.town), entry)
        lines = [
            f"{data['id']} {data['title']}",
            f"{data['phase']}: {data['detail']}",
            f"{data['branch']} at {data['head'][:12]} → {data['target']}",
        ]
        if data["pull_request"]:
            lines.append(f"pull request {data['pull_request']['name']}: {data['pull_request']['url']}")
        if data["estimate"]:
            usual = ""
            if data["eta"]:
                usual = f", usually at {data['eta']}"
            lines.append(f"lands: {data['estimate']}{usual}")
        if data["batch"]:
            lines.append(f"{data['batch']['why']} {', '.join(data['batch']['entries'])}".rstrip())
        if data["stands_on"]:
            lines.append(f"stands on {', '.join(data['stands_on'])}")
        for clash in data["conflicts_with"]:
            lines.append(f"would conflict with {clash['id'] or data['target']} in {', '.join(clash['files'])}")
        for g in data["gates"]:
            lines += _gate(g)
        if run := data["gates_run"]:
            lines.append(f"all of their output: gastown runs log {run['id']}, or {run['url']}")
        lines += [line for line in links.addresses(data["detail"]) if not run or not line.startswith(run["id"])]
        lines += [f"{v['decision']} by {v['by']}: {v['feedback']}" for v in data["verdicts"]]
        lines += [f"{c['file']}:{c['line']} {c['by']}: {c['body']}" for c in data["comments"] if not c["resolved"]]
        lines += _said(data["history"])
        lines += [f"landing {x['state']}: {x['message']}{x['waived']}" for x in data["landings"]]
        if data["again"]:
            what = "to bring it back"
            if data["kind"] == "check":
                what = "to check again"
            lines.append(f"{what}: {data['again']}")
        return Said(data, "\n".join(lines))
