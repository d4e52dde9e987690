"""Runs in the real sandbox whose agents talk to Gastown by `gt` alone, and by MCP alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.core.management import call_command

from agents import programs
from agents.models import Run
from agents.runtime.box import UNSANDBOXED, Box
from beads import config as configs
from beads import ledger, questions
from beads.models import Bead
from refinery.decisions import towns
from tests.acceptance.conftest import AGENTS, TOOLS, Stage

POLECAT = """
set -e
command -v gt | grep -q /gt/
gt help | grep -q 'gt done'
gt prime | grep -q 'title: Paint the fence'
gt status "painting"
if [ -f colour.txt ]; then
    gt mail check > /dev/null
    echo twice > coats.txt
else
    gt ask "Which colour?" --wait 120 > answer
    grep -o 'answer: .*' answer > colour.txt
    rm answer
fi
git add -A; git commit -qm "Paint"
gt run-gates
touch slow
gt run-gates > gates 2>&1 && exit 9; grep -q 'gate test: not done after 3 s' gates; rm slow gates
gt status 2> wrong && exit 9; test $? = 2; grep -q 'message is missing' wrong; rm wrong
gt sling "More" 2> wrong && exit 9; test $? = 1; grep -q 'not a tool of a polecat' wrong; rm wrong
echo "painted it" | gt done --summary -
"""
REFINERY = """
set -e
gt run-gates > /dev/null
if [ -f coats.txt ]; then gt done "two coats"; exit; fi
cat > /tmp/request <<EOF
{"feedback": "one coat is too few", "items": [{"file": "colour.txt", "line": 1, "problem": "paint it twice"}]}
EOF
gt request-changes --file /tmp/request --json | grep -q '"ok":true'
"""


def open_town(stage: Stage, polecat: list[str], refinery: list[str] | None, *read_only: str) -> None:
    """A town whose agents see nothing of the test's own tools but what is named."""
    config: dict[str, Any] = {
        "refinery": {
            "code_review": refinery is not None,
            "gates": [{"name": "test", "run": "test ! -e slow || sleep 60", "timeout": "3s"}],
            "triage": "off",
        },
        "dispatch": {"backoff": ["1ms"], "heartbeat": "1s", "lease": "20s"},
        "sandbox": {"read_only": list(read_only)},
        "agents": {"polecat": {"command": polecat}} | ({"refinery": {"command": refinery}} if refinery else {}),
    }
    stage.town = ledger.create_town("main", configs.validate(config))
    stage.rig = towns.add_rig("main", "proj", str(stage.remote), None, {})


def test_agents_work_by_gt_alone_and_a_persons_answer_reaches_them(stage: Stage) -> None:
    open_town(stage, ["sh", "-c", POLECAT], ["sh", "-c", REFINERY])
    bead = stage.sling("Paint the fence", "")
    asked = stage.until(lambda: going_on(bead) and questions.unanswered([bead.pk]).first())
    run = Run.objects.get(bead=bead)
    call_command("runs", "answer", run.pk, "green")
    stage.await_bead(bead, "closed")
    assert (stage.file("colour.txt"), stage.file("coats.txt")) == ("answer: green", "twice")
    run.refresh_from_db()
    assert (run.summary.strip(), run.status_message) == ("painted it", "painting")
    assert questions.standing(asked).state == "answered"


def test_gt_is_there_without_a_sandbox_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    script = "date > d.txt && git add -A && git commit -qm Date && gt status bare && gt done 'no box'"
    open_town(stage, ["sh", "-c", script], None)
    bead = stage.sling("Say the date", "")
    stage.until(lambda: going_on(bead) and Bead.objects.get(pk=bead.pk).status == "closed")
    run = Run.objects.get(bead=bead)
    assert (run.summary, run.status_message, run.sandbox) == ("no box", "bare", "unsandboxed")


def test_the_programs_of_servers_of_before_are_put_aside(tmp_path: Path) -> None:
    table = [{"name": "gt_done"}]
    new = programs.shown(tmp_path, table, Box(UNSANDBOXED))
    old = programs.shown(tmp_path, [*table, *table], Box(UNSANDBOXED))
    assert new is not None and old is not None
    for one in (new, old):
        os.utime(one.path.parent, (1, 1))
    assert programs.shown(tmp_path, table, Box(UNSANDBOXED)) == new
    programs.forget_old(tmp_path)
    assert (new.path.is_dir(), old.path.is_dir()) == (True, False)


def going_on(bead: Bead) -> bool:
    """True; fails when a run of it has ended without its work: what it printed says why."""
    for run in Run.objects.filter(bead=bead, state="ended").exclude(result="done"):
        raise AssertionError(Path(run.log_path).read_text())
    return True


@pytest.fixture
def by_asgi(stage: Stage, settings: Any) -> Iterator[Stage]:
    """The stage, whose web server is the real one: Django with `/mcp` beside it."""
    from django.db import connections

    from gastown_site.asgi import application

    kept = connections.settings["default"]["CONN_MAX_AGE"]
    connections.settings["default"]["CONN_MAX_AGE"] = 0
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started and time.monotonic() < end:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    settings.GASTOWN_URL = f"http://127.0.0.1:{port}"
    yield stage
    server.should_exit = True
    thread.join(30)
    connections.settings["default"]["CONN_MAX_AGE"] = kept


def test_an_agent_without_a_shell_works_by_mcp_alone(by_asgi: Stage) -> None:
    stage = by_asgi
    open_town(stage, [sys.executable, str(AGENTS / "by_mcp.py")], None, *TOOLS)
    bead = stage.sling("Paint the fence", "")
    stage.until(lambda: going_on(bead) and Bead.objects.get(pk=bead.pk).status == "closed")
    assert stage.file("made.txt") == "Paint the fence\ngt_request_changes is not a tool of a polecat"
    run = Run.objects.get(bead=bead)
    assert (run.summary, run.status_message) == ("made by MCP", "by MCP")
