"""What it saves to go on with a session: the real agents, a scripted model, and the requests that it was sent.

The figures are those of requests as they were sent, four bytes for a token, and of a cache as providers have one: what
a request has in common with the beginning of an earlier one. Who remembers the files does not read them again; who
begins anew does. They are printed (`-s`), and stand in ADR 31.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.models import Run
from beads import config as configs
from beads import ledger, secrets
from gastown_site.rehearsal import ModelServer, Turn
from gastown_site.rehearsal.plays import TOOL, is_refinery, script, tool
from gastown_site.rehearsal.talk import Asked
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.test_agents import CLIS, KEY, address, agent, ended, open_town

pytestmark = pytest.mark.agents
READ = ["git log --oneline -5", "cat src/one.py", "cat src/two.py", "cat src/three.py", "git diff HEAD~1"]
CHANGE = 'echo "# changed" >> src/one.py && git commit -qam "Change of $GASTOWN_BEAD"'
DONE = tool("gt_done", '{"summary": "changed it"}')


def careful(asked: Asked) -> Turn:
    """Reads before it writes, unless it remembers; as a refinery rejects once."""
    reads = [] if asked.earlier else READ
    if not is_refinery(asked):
        return script(asked, [*reads, CHANGE, DONE], "Done.")
    if "## Earlier rounds" in asked.prompt:
        return script(asked, [*reads[1:], tool("gt_done", '{"summary": "fine"}')], "Approved.")
    return script(asked, [*reads[1:], tool("gt_request_changes", '{"feedback": "once more"}')], "Rejected.")


@pytest.fixture
def traced(tmp_path: Path, settings: Any) -> Iterator[ModelServer]:
    trace = tmp_path / "trace"
    trace.mkdir()
    with ModelServer(careful, host=address(), trace=trace) as served:
        owner = tmp_path / "owner.toml"
        owner.write_text(f'[allow]\nnetworks = ["{address()}:{served.port}"]\n')
        settings.GASTOWN_OWNER_CONFIG = str(owner)
        yield served


def spent(model: ModelServer, runs: list[Run]) -> dict[str, dict[str, int]]:
    """What each run has sent: requests, and tokens of input that were cached and were not. `alone`: with a cache that
    has forgotten the runs before it, as providers' have after some minutes."""
    assert model.trace is not None
    sent: dict[str, list[str]] = {run.pk: [] for run in runs}
    for path in sorted(model.trace.iterdir()):
        told = json.loads(path.read_text())
        body = told["body"]
        talk = body.get("messages") or body.get("input") or body.get("contents")
        if not (body.get("tools") and talk):
            continue
        text = json.dumps([body["tools"], body.get("system") or body.get("instructions"), talk])
        at = path.stat().st_mtime
        mine = [run for run in runs if run.claimed_at and run.claimed_at.timestamp() <= at]  # one after the other
        sent[mine[-1].pk].append(text)
    found = {}
    earlier: list[str] = []
    for run in runs:
        own: list[str] = []
        kept = {"requests": len(sent[run.pk]), "input": 0, "cached": 0, "cached_alone": 0}
        for text in sent[run.pk]:
            kept["input"] += len(text) // 4
            kept["cached"] += max((_common(text, one) for one in [*earlier, *own]), default=0) // 4
            kept["cached_alone"] += max((_common(text, one) for one in own), default=0) // 4
            own.append(text)
        earlier += own
        found[run.purpose if run.purpose not in found else f"{run.purpose} again"] = kept
    return found


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@pytest.mark.parametrize("name", ["claude", "codex"])
@pytest.mark.parametrize("how", ["resume", "fresh"])
def test_what_a_rework_sends(stage: Stage, traced: ModelServer, name: str, how: str) -> None:
    open_town(stage, name, traced)
    config = {role: agent(name, traced, sessions=how) for role in ("polecat", "refinery")}
    ledger.set_config(stage.rig, configs.validate({"agents": config}))
    stage.rig.refresh_from_db()
    secrets.set_secret(stage.town, CLIS[name].key, KEY, str(WHO))
    code = "".join(f"def function_{number}(value):\n    return value + {number}\n\n\n" for number in range(150))
    stage.commit("main", {f"src/{part}.py": code for part in ("one", "two", "three")})
    bead = ended(stage, stage.sling("Change it", "Change the first file."))
    runs = list(Run.objects.exclude(kind="gates").order_by("created_at"))
    assert bead.resolution == "merged", [(run.purpose, run.outcome, run.reason) for run in runs]
    found = spent(traced, runs)
    for purpose, figures in found.items():
        print(f"{name} {how} {purpose}: {figures}")
    assert [bool(run.resumed) for run in runs[2:]] == [how == "resume"] * 2
    assert TOOL and found["rework"]["requests"] >= 3
