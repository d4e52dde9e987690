"""An upgrade, as a process of its own over the empty database of `DATABASE_URL`: prints what was found as JSON.

Migrates to the first migrations, fills every table through the models of that day, migrates to the newest, compares
row by row, and ticks.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any

import django

APPS = ("beads", "agents", "refinery")
FIRST = [(app, "0001_initial") for app in APPS]
GONE: dict[str, set[str]] = {}  # table → columns that a later migration dropped or renamed on purpose
TOKEN = "the token of a run that outlives the upgrade"
SHA = {name: name * 40 for name in "abcdef"}


def rows(tables: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Table → primary key → column → value as text."""
    from django.db import connection

    found: dict[str, dict[str, dict[str, Any]]] = {}
    with connection.cursor() as cursor:
        for table in tables:
            key = connection.introspection.get_primary_key_column(cursor, table)
            cursor.execute(f"select {key}::text, row_to_json(t)::jsonb::text from {table} t")
            found[table] = {row[0]: json.loads(row[1]) for row in cursor.fetchall()}
    return found


def fill(apps: Any, now: dt.datetime) -> None:
    """A town in full work, in the tables of the first migrations: something in every one of them."""

    def make(model: str, /, **fields: Any) -> Any:
        return apps.get_model(*model.split("."))._default_manager.create(**fields)

    from agents.tokens import digest

    config = {"refinery": {"code_review": True, "gates": ["true"]}, "agents": {"polecat": {"command": ["polecat"]}}}
    town = make("beads.Town", slug="main", config=config)
    rig = make("beads.Rig", town=town, slug="proj", remote_url="/nowhere.git", default_branch="main", config={})
    at = {"town": town, "rig": rig}
    lead = make("beads.Bead", id="gt-convoy00", type="convoy", status="in_progress", title="Fair", **at)
    convoy = make("beads.Convoy", bead=lead, rig=rig, merge_mode="review-then-land", started_at=now)
    make("beads.ConvoyBranch", convoy=convoy, rig=rig, name="convoy/fair/gt-convoy00/head", base_sha=SHA["b"],
         head_sha=SHA["b"], observed_at=now, asked_at=now)  # fmt: skip
    working = make("beads.Bead", id="gt-working0", status="in_progress", title="Work", body="wörk", convoy=convoy, **at)
    waiting = make("beads.Bead", id="gt-waiting0", status="open", title="Wait", convoy=convoy, **at)
    make("beads.Dependency", bead=waiting, on=working)
    done = make("beads.Bead", id="gt-done0000", status="closed", resolution="merged", merge_sha=SHA["a"], title="Done",
                closed_at=now, **at)  # fmt: skip
    source = make("beads.Bead", id="gt-source00", status="in_review", title="Reviewed", **at)
    review = make("beads.Bead", id="gt-review00", type="merge_request", title="Reviewed", **at)
    call = make("beads.Bead", id="gt-help0000", type="escalation", title="Help", **at)
    make("beads.Escalation", bead=call, town=town, key="agent:x", severity="high", about=source)
    make("beads.BeadEvent", bead=done, kind="status", from_status="in_review", to_status="closed", actor="gastown",
         data={"resolution": "merged"})  # fmt: skip
    make("beads.Fact", town=town, kind="entry.promote", subject="gt-review00", payload={"priority": 1}, actor="alice")
    make("beads.Fact", town=town, kind="no.such.kind", attempts=3, quarantined_at=now, error="unknown")
    make("beads.Effect", town=town, kind="build", key="build:gt-review00:1", state="done", next_try_at=now,
         payload={"entry": "gt-review00", "build_no": 1}, finished_at=now)  # fmt: skip
    make("beads.Heartbeat", name="reconciler", at=now)
    polecat = make("agents.Agent", name="proj-toast", role="polecat", **at)
    refinery = make("agents.Agent", name="proj-refinery", role="refinery", **at)
    make("agents.Agent", name="proj-refinery-x", role="refinery", convoy=convoy, **at)
    run = {"target": "main", "steps": [{"name": "x", "argv": ["x"]}], "attempt": 1, **at}
    live = make("agents.Run", id="run-live0000", bead=working, agent=polecat, kind="polecat", purpose="work",
                state="running", token_hash=digest(TOKEN), claimed_at=now, heartbeat_at=now, activity_at=now,
                lease_until=now + dt.timedelta(minutes=5), branch="gt/proj-toast/gt-working0/1", **run)  # fmt: skip
    over = make("agents.Run", id="run-over0000", bead=source, agent=polecat, kind="polecat", purpose="work",
                state="ended", outcome="done", result="done", head_sha=SHA["a"], published=True, exited_at=now,
                ended_at=now, branch="gt/proj-toast/gt-source00/1", fenced_hash="f" * 64, **run)  # fmt: skip
    gates = make("agents.Run", id="run-gates000", bead=review, kind="gates", purpose="gates", state="ended",
                 outcome="done", start_sha=SHA["c"], ended_at=now, **run)  # fmt: skip
    reviewing = make("agents.Run", id="run-review00", bead=review, agent=refinery, kind="refinery", purpose="review",
                     state="ended", outcome="done", result="done", start_sha=SHA["c"], ended_at=now, **run)  # fmt: skip
    make("agents.ToolCall", run=live, key="k", tool="gt_status", request_hash="0" * 64, status=200, response={})
    make("agents.Mail", town=town, sender="alice", recipient="proj-toast", subject="Hi", about=working)
    make("agents.Nudge", agent=polecat, sender="alice", message="hurry", expires_at=now)
    entry = make("refinery.ReviewEntry", bead=review, rig=rig, source=source, author="proj-toast", branch=over.branch,
                 head_sha=SHA["a"], target="main", admitted_at=now, build_no=1, attempts=1)  # fmt: skip
    candidate = make("refinery.Candidate", entry=entry, build_no=1, result="built", head_sha=SHA["a"],
                     base_sha=SHA["b"], sha=SHA["c"], tree_sha=SHA["d"])  # fmt: skip
    make("refinery.GateResult", entry=entry, candidate=candidate, run=gates, tree_sha=SHA["d"], gate="true",
         command="true", outcome="pass", exit_code=0)  # fmt: skip
    make("refinery.Verdict", entry=entry, head_sha=SHA["a"], decision="approve", by="proj-refinery", run=reviewing)
    make("refinery.Landing", entry=entry, candidate=candidate, rig=rig, target="main", expected_sha=SHA["b"])


def main() -> None:
    """Do all of it."""
    django.setup()
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor
    from django.utils import timezone

    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes()
    executor.migrate([*FIRST, *(key for key in newest if key[0] not in APPS)])
    old = executor.loader.project_state(FIRST).apps
    now = timezone.now()
    fill(old, now)
    tables = sorted(m._meta.db_table for app in APPS for m in old.get_app_config(app).get_models())
    before = rows(tables)

    executor = MigrationExecutor(connection)
    executor.migrate(newest)
    assert not MigrationExecutor(connection).migration_plan(newest)
    after = rows([t for t in tables if t not in GONE])
    lost = [
        f"{table} {key} {column}: {value!r} is now {after.get(table, {}).get(key, {}).get(column)!r}"
        for table, kept in before.items()
        for key, row in kept.items()
        for column, value in row.items()
        if column not in GONE.get(table, ()) and after.get(table, {}).get(key, {}).get(column, "gone") != value
    ]

    from agents import tokens
    from agents.models import Run
    from beads.models import Bead, Fact, Town
    from refinery.models import Landing
    from refinery.tick import reconciler

    reports = reconciler.settle(Town.objects.get())
    live = tokens.live_run(TOKEN)
    found = {
        "empty": [table for table, kept in before.items() if not kept],
        "lost": lost,
        "ticks": [report.as_dict() for report in reports],
        "live": live.pk if live else None,
        "runs": dict(Run.objects.filter(attempt=1).values_list("pk", "state")),
        "priority": Bead.objects.get(pk="gt-review00").priority,
        "pending": Fact.objects.filter(processed_at=None, quarantined_at=None).count(),
        "landing": Landing.objects.get().state,
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
