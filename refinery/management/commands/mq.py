"""`mq submit|list|show|approve|request-changes|reject|retry|promote|land-now|freeze|thaw`: the merge queue."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads import lists
from beads.command import GastownCommand, Said, actor, bead_of, rig_of, table
from beads.errors import NotFound
from beads.models import Town
from refinery import links
from refinery.core.outputs import plain
from refinery.decisions import merge_queue, reviews
from refinery.files import moment
from refinery.models import ReviewEntry
from refinery.pages import boards

TAIL = 15  # lines of what a gate that did not pass has printed


def entry_of(key: str) -> ReviewEntry:
    """A review entry by id."""
    found = ReviewEntry.objects.select_related("bead__town", "rig__town", "source").filter(pk=key).first()
    if found is None:
        raise NotFound(f"no review entry {key}", details={"field": "id"})
    return found


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
        approve = self.sub(verbs, "approve", self.approve, "a person's approval of exactly this head")
        approve.add_argument("id")
        approve.add_argument("--head", metavar="SHA")
        changes = self.sub(verbs, "request-changes", self.request_changes, "send it back")
        changes.add_argument("id")
        changes.add_argument("--body", required=True)
        changes.add_argument("--head", metavar="SHA")
        reject = self.sub(verbs, "reject", self.reject, "take it out for good")
        reject.add_argument("id")
        reject.add_argument("--reason", required=True)
        retry = self.sub(verbs, "retry", self.retry, "clear a hold, or bring a failed entry back")
        retry.add_argument("id")
        retry.add_argument("--reason", default="", help="for whoever works on it next")
        promote = self.sub(verbs, "promote", self.promote, "let it go before others")
        promote.add_argument("id")
        promote.add_argument("--priority", type=int, default=0, help="0 (urgent: the train starts again behind) to 4")
        promote.add_argument("--reason", default="")
        urgent = self.sub(verbs, "land-now", self.land_now, "an emergency: to the front of the train")
        urgent.add_argument("id")
        urgent.add_argument("--reason", required=True)
        urgent.add_argument("--skip-gates", action="store_true", help="land this head without its gates, in your name")
        freeze = self.sub(verbs, "freeze", self.freeze, "let nothing into a lane, and nothing land in it")
        freeze.add_argument("rig")
        freeze.add_argument("--target")
        freeze.add_argument("--reason", required=True)
        freeze.add_argument("--until", metavar="TIME", help="ISO 8601, with a time zone")
        thaw = self.sub(verbs, "thaw", self.thaw, "undo freeze")
        thaw.add_argument("rig")
        thaw.add_argument("--target")

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
        source = bead_of(bead) if bead else None
        entry, new = merge_queue.submit(rig_of(rig), branch, target, title, source, priority, actor())
        return Said({"id": entry.pk, "new": new, "head": entry.head_sha, "target": entry.target}, entry.pk)

    def list(self, rig: str | None, all: bool, limit: int, **_: Any) -> Any:
        """Entries in queue order; then those that have ended."""
        towns = [rig_of(rig).town] if rig else list(Town.objects.order_by("pk"))
        rows, notes = [], []
        for town in towns:
            board = boards.Board(town)
            found = ReviewEntry.objects.select_related("bead", "rig").filter(rig__town=town)
            found = found.filter(rig__slug=rig) if rig else found
            active = {e.pk: e for e in found.filter(state="active")}
            for views in board.lanes.values():
                rows += [boards.entry_data(board, active[v.id]) for v in views if v.id in active]
            if all:
                changes = found.exclude(state="active").exclude(kind="check")
                ended = lists.first(changes.order_by("-closed_at"), limit)
                rows += [boards.entry_data(board, e) for e in ended.rows]
                notes += [f"ended ones of town {town.slug}: {ended.note}"] if ended.cut else []
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
        if data["estimate"]:
            usual = f", usually at {data['eta']}" if data["eta"] else ""
            lines.append(f"lands: {data['estimate']}{usual}")
        if data["batch"]:
            lines.append(f"{data['batch']['why']} {', '.join(data['batch']['entries'])}".rstrip())
        if data["stands_on"]:
            lines.append(f"stands on {', '.join(data['stands_on'])}")
        for clash in data["conflicts_with"]:
            lines.append(f"would conflict with {clash['id'] or data['target']} in {', '.join(clash['files'])}")
        for g in data["gates"]:
            told = g["say"] if g["outcome"] == "not_needed" else f"{g['outcome']} ({g['say']})"
            past = f"; {boards.PAST}" if g["past"] else f"; {g['remedy']}" if g.get("remedy") else ""
            lines.append(f"gate {g['gate']}: {told}{past}")
            if g["past"]:
                continue
            lines += [f"  {g['telling']}"] if g["telling"] else []
            tests = g.get("tests") or {}
            lines += [
                f"  failed: {t['name']}: {' '.join(t['message'].split())[:200]}" for t in tests.get("failures", [])
            ]
            lines += [f"  note: {note}" for note in tests.get("notes", [])]
            if g["outcome"] not in ("pass", "not_needed"):
                lines += [f"  | {line}" for line in plain(g["output"]).strip().splitlines()[-TAIL:]]
        if run := data["gates_run"]:
            lines.append(f"all of their output: gastown runs log {run['id']}, or {run['url']}")
        lines += [line for line in links.addresses(data["detail"]) if not run or not line.startswith(run["id"])]
        lines += [f"{v['decision']} by {v['by']}: {v['feedback']}" for v in data["verdicts"]]
        lines += [f"{c['file']}:{c['line']} {c['by']}: {c['body']}" for c in data["comments"] if not c["resolved"]]
        lines += [f"landing {x['state']}: {x['message']}{x['waived']}" for x in data["landings"]]
        if data["again"]:
            lines.append(f"{'to check again' if data['kind'] == 'check' else 'to bring it back'}: {data['again']}")
        return Said(data, "\n".join(lines))

    def approve(self, id: str, head: str | None, **_: Any) -> Any:
        """Approve."""
        reviews.approve(entry_of(id), actor(), head=head)
        return Said({"id": id}, f"{id} is approved")

    def request_changes(self, id: str, body: str, head: str | None, **_: Any) -> Any:
        """Send back."""
        reviews.request_changes(entry_of(id), actor(), body, head=head)
        return Said({"id": id}, f"{id} is sent back")

    def reject(self, id: str, reason: str, **_: Any) -> Any:
        """Reject."""
        merge_queue.reject(entry_of(id), reason, actor())
        return Said({"id": id}, f"{id} is rejected")

    def retry(self, id: str, reason: str, **_: Any) -> Any:
        """Retry."""
        merge_queue.retry_entry(entry_of(id), actor(), reason)
        return Said({"id": id}, f"{id} is being retried")

    def promote(self, id: str, priority: int, reason: str, **_: Any) -> Any:
        """Let it go before others."""
        merge_queue.promote(entry_of(id), actor(), reason, priority)
        return Said({"id": id, "priority": priority}, f"{id} has priority {priority} from the next tick on")

    def land_now(self, id: str, reason: str, skip_gates: bool, **_: Any) -> Any:
        """An emergency."""
        entry = entry_of(id)
        new = merge_queue.land_now(entry, actor(), reason, skip_gates=skip_gates)
        told = f" without its gates, at exactly {entry.head_sha[:12]}" if skip_gates else ""
        text = f"{id} goes to the front of the train{told}" if new else f"{id} goes first already"
        return Said({"id": id, "skip_gates": skip_gates, "new": new}, text)

    def freeze(self, rig: str, target: str | None, reason: str, until: str | None, **_: Any) -> Any:
        """Freeze a lane."""
        end = moment("until", until) if until else None
        lane = merge_queue.freeze(rig_of(rig), target, reason, actor(), end)
        return Said({"rig": rig, "target": lane, "frozen": True}, f"lane {rig} {lane} is frozen")

    def thaw(self, rig: str, target: str | None, **_: Any) -> Any:
        """Thaw a lane."""
        lane = merge_queue.thaw(rig_of(rig), target, actor())
        return Said({"rig": rig, "target": lane, "frozen": False}, f"lane {rig} {lane} goes on")
