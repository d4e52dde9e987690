"""`gt_done` received → the next run's command started, with `up` on this machine: agents hand over one slot, alone and
while 15 others are at work."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from pathlib import Path

from agents.runtime.gitcmd import run_git
from beads.actors import Actor
from bench.django_town import installation, running

BEADS, OTHERS = 25, 15
IDLE = "Wait for the end"
SCRIPT = f"""
import os, time, urllib.request
started = time.time()
if {IDLE!r} in open(os.environ["GASTOWN_PROMPT_FILE"]).read():
    time.sleep(300)
request = urllib.request.Request(os.environ["GASTOWN_URL"] + "/api/tools/gt_done", data=b"{{}}", headers={{
    "Authorization": "Bearer " + os.environ["GASTOWN_TOKEN"], "Content-Type": "application/json"}})
urllib.request.urlopen(request).read()
print("times", started, time.time())
"""


def main() -> None:
    """Print median and p95."""
    with installation() as home:
        remote = home / "remote.git"
        run_git(["init", "--quiet", "--bare", "-b", "main", str(remote)], cwd=home)
        tree = run_git(["hash-object", "-t", "tree", "-w", "--stdin"], cwd=remote, input=b"").text
        sha = run_git(["commit-tree", tree, "-m", "start"], cwd=remote).text
        run_git(["update-ref", "refs/heads/main", sha], cwd=remote)
        os.environ["GASTOWN_RUNNER_SLOTS"] = "32"  # gates need some, too
        for others, target in ((0, 250), (OTHERS, 400)):
            with running(home):
                _measure(remote, home, others, target)


def _measure(remote: Path, home: Path, others: int, target: int) -> None:
    from agents.models import Run
    from beads import config, ledger
    from refinery.decisions import towns, work

    settings = {
        "refinery": {"code_review": False, "gates": ["true"]},
        "dispatch": {"max_polecats": others + 1},
        "agents": {"polecat": {"command": [sys.executable, "-S", "-c", SCRIPT]}},
        "sandbox": {"read_only": [sys.base_prefix, sys.prefix]},
    }
    slug = f"bench{others}"
    town = ledger.create_town(slug, config.validate(settings))
    rig = towns.add_rig(slug, slug, str(remote), None, {})
    for n in range(others):
        work.sling(rig, ledger.Draft(f"{IDLE} {n}", priority=0), by=Actor("", "bench"))
    while Run.objects.filter(town=town, state="running").count() < others:
        time.sleep(0.2)
    before = set(home.glob("runs/*/log"))
    for n in range(BEADS):
        work.sling(rig, ledger.Draft(f"bead {n}"), by=Actor("", "bench"))
    rows: list[list[float]] = []
    end = time.monotonic() + 120
    while len(rows) < BEADS and time.monotonic() < end:
        time.sleep(0.2)
        logs = "\n".join(log.read_text() for log in set(home.glob("runs/*/log")) - before)
        told = [line.split()[1:] for line in logs.splitlines() if line.startswith("times ")]
        rows = sorted([float(x) for x in words] for words in told)
    gaps = sorted((b[0] - a[1]) * 1000 for a, b in itertools.pairwise(rows))
    p95 = gaps[int(len(gaps) * 0.95)]
    figures = f"median {statistics.median(gaps):.0f} ms (target ≤ {target}), p95 {p95:.0f} ms"
    print(f"gt_done answered → next command started, {others} others at work, {len(rows)} runs: {figures}")
