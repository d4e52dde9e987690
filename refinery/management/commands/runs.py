"""`runs list|show|log|transcript`, and the verbs of runs"""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.lifecycle import RunState
from agents.models import Run
from beads import lists
from beads.command import GastownCommand, Said, ago, table
from beads.errors import NotFound
from refinery.decisions.subjects import run_of
from refinery.management.verbs import add_verbs
from refinery.pages import boards, outcomes, transcripts


def run_row(run: Run) -> dict[str, Any]:
    """A run as lists show it."""
    return {
        "id": run.pk,
        "kind": run.kind,
        "purpose": run.purpose,
        "state": run.state,
        "outcome": run.outcome,
        "reason": run.reason,
        "bead": run.bead_id,
        "agent": run.agent_name,
        "attempt": run.attempt,
        "rig": run.rig.slug,
        "status_message": run.status_message,
        "sandbox": run.sandbox,
        "started": ago(run.claimed_at),
        "created_at": run.created_at,
    }


def _ended(step: dict[str, Any]) -> str:
    """How one step has ended, in words."""
    raw = step.get("outcome_raw") or {}
    if raw.get("limit"):
        return str(raw["limit"])
    if raw.get("timed_out"):
        return "timed out"
    how = f"signal {raw['signal']}" if raw.get("signal") else f"exit {raw.get('exit_code')}"
    return f"{how}, {(step.get('duration_ms') or 0) / 1000:.1f} s"


class Command(GastownCommand):
    help = "Runs: supervised processes of agents and gates."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        listing = self.sub(verbs, "list", self.list, "live runs; with --all or --bead the latest of all")
        listing.add_argument("--all", action="store_true", help="ended ones too")
        listing.add_argument("--bead")
        lists.limit_argument(listing)
        self.sub(verbs, "show", self.show, "one run").add_argument("id")
        log = self.sub(verbs, "log", self.log, "a run's output")
        log.add_argument("id")
        log.add_argument("--tail", type=int, default=0, metavar="LINES")
        self.sub(verbs, "transcript", self.transcript, "what an agent has said and done").add_argument("id")
        add_verbs(self, verbs, "runs")

    def list(self, all: bool, bead: str | None, limit: int, **_: Any) -> Any:
        """Runs."""
        found = Run.objects.select_related("agent", "rig").order_by("-created_at")
        if bead:
            found = found.filter(bead_id=bead)
        elif not all:
            found = found.live()
        shown = lists.first(found, limit)
        rows = [run_row(r) for r in shown.rows]
        columns = ["id", "kind", "state", "outcome", "bead", "agent", "started", "status_message", "reason"]
        return Said(rows, table(rows, columns, "no live runs"), shown.note)

    def show(self, id: str, **_: Any) -> Any:
        """One run."""
        run = run_of(id)
        data = run_row(run) | {
            "reason": run.reason if run.state == RunState.ENDED else boards.Board(run.town).run(run),
            "branch": run.branch,
            "target": run.target,
            "start_sha": run.start_sha,
            "resumed": run.resumed,
            **outcomes.run_facts(run),
            "exit_code": run.exit_code,
            "exit_signal": run.exit_signal,
            "result": run.result,
            "summary": run.summary,
            "lease_until": run.lease_until,
            "ended_at": run.ended_at,
            "steps": run.step_results,
        }
        lines = [f"{k}: {v}" for k, v in data.items() if k not in ("steps", "work_text") and v not in ("", None)]
        if made := outcomes.made(run):
            lines.append(f"made: {made}")
        if command := outcomes.restore(run):
            lines.append(f"to see what was saved: {command}")
        lines += [
            f"{'gate' if run.kind == 'gates' else 'step'} {step['name']}: {_ended(step)}" for step in run.step_results
        ]
        if run.log_path:
            lines.append(f"its output: gastown runs log {run.pk}")
        return Said(data, "\n".join(lines))

    def transcript(self, id: str, **_: Any) -> Any:
        """What an agent has said and done, event by event."""
        run = run_of(id)
        path = transcripts.file_of(run)
        if path is None:
            raise NotFound(f"run {id} has no transcript here: gastown runs log {id}")
        rows = list(transcripts.rows(path))
        events = [{name: value for name, value in asdict(row).items() if value} for row in rows]
        return Said({"id": id, "events": events}, "\n".join(transcripts.plain(row) for row in rows))

    def log(self, id: str, tail: int, **_: Any) -> Any:
        """A run's output."""
        run = run_of(id)
        path = None
        if run.log_path:
            path = Path(run.log_path)
        if path is None or not path.exists():
            raise NotFound(f"run {id} has no log here")
        text = path.read_bytes().decode("utf-8", "replace")
        if tail > 0:
            text = "\n".join(text.splitlines()[-tail:])
        return Said({"id": id, "log": text}, text)
