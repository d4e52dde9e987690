"""Fifty entries of one lane through a train of eight, with `up` on this machine: gates of two seconds, all green.

At best 50 ÷ 8 rounds of the gates: what is above that is ours (worktrees, processes, builds, pushes, ticks).
"""

from __future__ import annotations

import datetime as dt
import os
import statistics
import time
from pathlib import Path

from agents.runtime.gitcmd import run_git
from beads.actors import Actor
from bench.django_town import installation, running

ENTRIES, WINDOW, GATE = 50, 8, 2.0
TARGET = 1.3


def main() -> None:
    """Print the wall time and its ratio to the best one."""
    with installation() as home:
        remote = home / "remote.git"
        _generate(remote)
        with running(home):
            _measure(remote)


def _generate(remote: Path) -> None:
    run_git(["init", "--quiet", "--bare", "-b", "main", str(remote)], cwd=remote.parent)
    lines = ["commit refs/heads/main", "committer A <a@x.org> 1700000000 +0000", "data 4", "init"]
    for n in range(200):
        lines += [f"M 100644 inline f{n}.txt", "data 3", "old"]
    for n in range(ENTRIES):
        lines += [f"commit refs/heads/b{n}", "committer B <b@x.org> 1700000100 +0000", "data 6", "change"]
        lines += ["from refs/heads/main", f"M 100644 inline f{n}.txt", "data 3", "new"]
    run_git(["fast-import", "--quiet", "--force"], cwd=remote, input="\n".join([*lines, ""]).encode(), timeout=600)


def _measure(remote: Path) -> None:
    from beads import config, ledger
    from refinery.decisions import merge_queue, towns
    from refinery.models import ReviewEntry

    gates = [f"sleep {GATE:.0f}"]
    settings = {"refinery": {"code_review": False, "gates": gates, "train": {"window": WINDOW}, "pop_limit": 100}}
    ledger.create_town("bench", config.validate(settings))
    rig = towns.add_rig("bench", "bench", str(remote), None, {})
    merge_queue.freeze(rig, by=Actor("", "bench"), reason="until all are in the queue")
    for n in range(ENTRIES):
        merge_queue.submit(rig, merge_queue.Submission(f"b{n}"), by=Actor("", "bench"))
    began = time.monotonic()
    merge_queue.thaw(rig, by=Actor("", "bench"))
    merged = 0
    while merged < ENTRIES and time.monotonic() < began + 300:
        time.sleep(0.05)
        merged = ReviewEntry.objects.filter(state="merged").count()
    took, best = time.monotonic() - began, ENTRIES / WINDOW * GATE
    _where_it_went()
    print(f"{merged} of {ENTRIES} entries landed in {took:.1f} s; at best {best:.1f} s")
    print(f"ratio {took / best:.2f} (target ≤ {TARGET}); {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def _where_it_went() -> None:
    """Median milliseconds of each part of a car's way, gates included."""
    from agents.models import Run
    from beads.models import Effect
    from refinery.core.keys import build_key
    from refinery.models import Candidate, Landing

    parts: dict[str, list[float]] = {}

    def note(name: str, start: object, end: object) -> None:
        if isinstance(start, dt.datetime) and isinstance(end, dt.datetime):
            parts.setdefault(name, []).append((end - start).total_seconds() * 1000)

    for run in Run.objects.filter(kind="gates"):
        made = Candidate.objects.filter(entry_id=run.bead_id, sha=run.start_sha).first()
        landing = Landing.objects.filter(entry_id=run.bead_id, state="landed").first()
        asked = made and Effect.objects.filter(key=build_key(made.entry_id, made.build_no)).first()
        note("admitted → built", asked and asked.created_at, made and made.created_at)
        note("built → run", made and made.created_at, run.created_at)
        note("run → claimed", run.created_at, run.claimed_at)
        note("claimed → exited", run.claimed_at, run.exited_at)
        note("exited → ended", run.exited_at, run.ended_at)
        note("ended → to be pushed", run.ended_at, landing and landing.created_at)
        note("to be pushed → landed", landing and landing.created_at, landing and landing.concluded_at)
    print("; ".join(f"{name} {statistics.median(values):.0f}" for name, values in parts.items()), "(median ms)")
