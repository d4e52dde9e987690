"""`tick`: one reconcile tick, explained if wanted."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads.command import GastownCommand, Said
from beads.finders import town_of
from beads.models import Town
from refinery.tick import reconciler


class Command(GastownCommand):
    help = "Run one reconcile tick of each town (or of one)."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        parser.add_argument("--town")
        parser.add_argument("--explain", action="store_true", help="each subject, the rule that matched, the action")
        parser.add_argument("--dry-run", action="store_true", help="change nothing")

    def run(  # type: ignore[override]
        self, town: str | None, explain: bool, dry_run: bool, **_: Any
    ) -> Any:
        """Tick."""
        towns = [town_of(town)] if town else list(Town.objects.order_by("pk"))
        data, lines = [], []
        for one in towns:
            report = reconciler.tick(one, dry_run=dry_run)
            told = report.as_dict() | {"dry_run": dry_run}
            if explain:
                told["decisions"] = [
                    {"subject": d.subject, "rule": d.rule, "why": d.why, "actions": [repr(a) for a in d.actions]}
                    for d in report.decisions
                ]
                for d in report.decisions:
                    does = ", ".join(type(a).__name__ for a in d.actions) or "waits"
                    lines.append(f"{d.subject}: {d.rule}: {d.why} → {does}")
            data.append(told)
            did = ", ".join(f"{n} {k}" for k, n in report.actions.items()) or "nothing to do"
            lines.append(f"{one.slug}: {report.facts} facts, {did}{' (dry run)' if dry_run else ''}")
        return Said(data, "\n".join(lines) or "no towns")
