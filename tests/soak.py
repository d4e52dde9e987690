"""`make soak`: the model-based test and the load test of real processes, each for `SOAK_MINUTES` (default 20).

Prints steps, faults injected and violations. Ends with a non-zero exit at the first violation, with the steps that led
to it. `SOAK_SEED` repeats a run; `SOAK_LENGTH` is how many steps a town of the model lives; `SOAK_WAYS=stash,big`
narrows what the odd agents do (see `tests/acceptance/agents/odd.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.acceptance.agents import odd
from tests.acceptance.desk import Desk
from tests.machine.ground import COUNTS
from tests.machine.town import Machine
from tests.web.installation import installation, until

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
LENGTH = int(os.environ.get("SOAK_LENGTH", "100"))  # steps of one town, before it must come to rest
WAYS = [w for w in os.environ.get("SOAK_WAYS", "").split(",") if w] or sorted(odd.RIGHT)  # odd agents
SEED = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 2**32)))


@pytest.mark.django_db
def test_soak_of_the_model() -> None:
    end = time.monotonic() + MINUTES * 60
    round_ = 0
    while time.monotonic() < end:
        machine = seed(SEED + round_)(Machine)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=LENGTH,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
            ),
        )
        round_ += 1
        left = max(end - time.monotonic(), 0) / 60
        print(f"soak: {COUNTS['steps']} steps, 0 violations, {left:.1f} minutes left (seed {SEED})", flush=True)
    faults = {name.removeprefix("fault: "): n for name, n in sorted(COUNTS.items()) if name.startswith("fault")}
    print(f"soak: {COUNTS['steps']} steps, violations: 0, refused at doors: {COUNTS['refused']}")
    print(f"soak: faults injected: {faults}")


# -- real processes -------------------------------------------------------------------------------------------------

CONFIG = """
[refinery]
gates = ["test ! -e broken", "ls work >/dev/null", '! grep -rq "$(printf "\\r")" work']
code_review = false
train.window = 8
[dispatch]
max_polecats = 20
max_attempts = 100
lease = "15s"
heartbeat = "2s"
backoff = ["1s", "2s"]
[patrol]
nudge = "5s"
escalate = "10s"
stop = "15s"
[agents.polecat]
command = {command}
[sandbox]
read_only = {shown}
"""


def _parts(up: int) -> list[int]:
    """The server's processes: the children of `up`."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == up:
                found.append(int(entry.name))
    return found


def _marked(mark: str) -> list[int]:
    """Processes with the mark on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def live(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that have not ended."""
    return [row for row in rows if row["status"] not in ("closed", "failed")]


def odd_of(title: str) -> str:
    """The odd way in which a bead's agent is told to work, from its title; empty: none."""
    name = title.rpartition("(")[2].rstrip(")")
    return name if title.endswith(f"({name})") and name in odd.RIGHT else ""


def outcome(row: dict[str, Any], files: set[str], asked: set[str]) -> str:
    """What became of a bead, in the words of `odd.RIGHT`; any other word is wrong."""
    if row["resolution"] in ("merged", "already_merged"):
        return "landed" if f"work/{row['id']}.txt" in files else "closed without its file"
    if row["status"] == "failed":
        return "failed" if row["reason"] else "failed without a reason"
    if row["id"] in asked:
        return "asked"
    return "nothing" if row["resolution"] == "nothing_changed" else f"{row['status']} {row['resolution']}"


def strangers(log: str) -> list[str]:
    """Commits of a bead that bring the file of another one (from a stash, a hook or an index that they shared)."""
    found = []
    for part in log.split("\x1e")[1:]:
        head, *names = part.strip().splitlines()
        bead = head.partition(" ")[2].strip()
        foreign = [n for n in names if n.startswith("work/") and n != f"work/{bead}.txt"]
        found += [f"{head}: {foreign}"] if bead and foreign else []
    return found


def test_soak_of_processes(tmp_path: Path) -> None:
    """20 polecats, 3 convoys at a time, misbehaving agents, the server's processes killed at random."""
    chance = random.Random(SEED)
    mark = f"97{os.getpid()}.25"
    with installation(tmp_path) as up:
        config = tmp_path / "town.toml"
        command = json.dumps([sys.executable, str(Path(__file__).parent / "acceptance/agents/chaos.py"), mark])
        shown = json.dumps([sys.base_prefix, sys.prefix, str(Path(__file__).parent / "acceptance" / "agents")])
        config.write_text(CONFIG.replace("{command}", command).replace("{shown}", shown))
        up.gastown("town", "create", "main", "--config", str(config))
        up.gastown("rig", "add", "proj", str(up.remote), "--default-branch", up.branch)
        begin = up.git("rev-parse", up.branch)
        beads: list[str] = []
        convoys: list[str] = []
        kills = 0
        desk = Desk(up.env)
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # a command may meet a database or server that was just killed
                open_ = [c for c in desk("convoy", "list") if c["phase"] not in ("landed", "failed", "closed")]
                if len(open_) < 3:
                    plan = tmp_path / "plan.toml"
                    ways = [f" ({chance.choice(WAYS)})" if chance.random() < 0.2 else "" for _ in range(4)]
                    items = (f'[[beads]]\nkey = "{n}"\ntitle = "Part {n}{way}"\n' for n, way in enumerate(ways))
                    plan.write_text("".join(items))
                    more = chance.choice([[], ["--merge-mode", "review-and-merge"]])
                    title = f"Convoy {len(convoys)}"
                    made = desk("convoy", "create", "proj", "--title", title, "--file", str(plan), *more)
                    convoys.append(made["id"])
                for _ in range(max(0, 20 - len(live(desk.beads())))):
                    way = f" ({chance.choice(WAYS)})" if chance.random() < 0.4 else ""
                    beads.append(desk("sling", "proj", "--title", f"Bead {len(beads)}{way}")["id"])
            pid = chance.choice(_parts(up.process.pid) or [0])
            if pid and chance.random() < 0.25:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            time.sleep(chance.uniform(0.5, 3))
        until(lambda: all(b["phase"] == "awaiting_human" for b in live(desk.beads())), 900, up.said)
        desk("wait", "--idle", "--timeout", "600")
        asked = {b["id"] for b in live(desk.beads())}  # what waits for a person's word: here, that nothing is needed
        for key in asked:
            desk("bead", "cancel", key, "--reason", "nothing is needed")
        for row in desk.beads():  # and whose agent changed nothing: a person agrees, so that its convoy can land
            if (row["status"], row["resolution"]) == ("failed", "nothing_changed"):
                desk("bead", "confirm", row["id"])
        until(lambda: not live(desk.beads()), 300, up.said)
        desk("wait", "--idle", "--timeout", "600")
        rows = desk.beads()
        ended = desk("convoy", "list", "--all")
        log = up.git("log", "--format=%(trailers:key=Bead,valueonly,separator=%x2C)", f"{begin}..{up.branch}").split()
        merged = [b["id"] for b in rows if b["resolution"] in ("merged", "already_merged")]
        files = set(up.git("ls-tree", "-r", "--name-only", up.branch).splitlines())
        gitlinks = [x for x in up.git("ls-tree", "-r", up.branch).splitlines() if x.startswith("160000")]
        form = "--format=%x1e%H %(trailers:key=Bead,valueonly,separator=%x2C)"
        foreign = strangers(up.git("log", "--name-only", form, f"{begin}..{up.branch}"))
        ends = [(odd_of(b["title"]), outcome(b, files, asked)) for b in rows]
        wrong = [
            f"{b['id']} {b['title']}: {told}: {b['reason']}"
            for b, (way, told) in zip(rows, ends, strict=True)
            if told not in odd.RIGHT.get(way, {"landed", "failed"})
        ]
        lost = [b for b in merged if f"work/{b}.txt" not in files]
        doubled = [b for b in merged if log.count(b) > 1]
        open_beads = [b["id"] for b in rows if b["status"] not in ("closed", "failed")]
        runs = desk("runs", "list", "--all")
        desk.leave()
        worktrees = [p.name for p in (up.home / "workspaces").glob("*")] if (up.home / "workspaces").exists() else []
        doctor = json.loads(up.run("doctor", "--json"))["data"]
        broken = [row for row in doctor if row["state"] == "fail"]
        until(lambda: not _marked(mark), 60, lambda: f"orphans: {_marked(mark)}")
    states = Counter(c["phase"] for c in ended)
    print(
        f"soak: {len(rows)} beads, {len(merged)} done, {len(runs)} runs, {kills} server processes killed; "
        f"convoys {dict(states)}; "
        f"lost {len(lost)}, doubled {len(doubled)}, unended {len(open_beads)}, orphan processes 0, "
        f"leftover worktrees {len(worktrees)}, broken invariants {len(broken)}"
    )
    print(f"soak: odd agents: {dict(sorted(Counter(f'{way} {told}' for way, told in ends if way).items()))}")
    assert (wrong, foreign, gitlinks) == ([], [], [])
    assert (lost, doubled, open_beads, worktrees, broken) == ([], [], [], [], [])
    assert len(merged) > 0
