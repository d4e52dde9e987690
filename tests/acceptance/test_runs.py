"""Runs as real processes: leases, fences, stops, daemons, salvage, and starts that go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents import runs, tokens
from agents.models import Mail, Run
from beads import config as configs
from beads import ledger
from beads.models import Bead, Effect
from refinery.decisions import operators
from refinery.models import ReviewEntry
from tests.acceptance.conftest import AGENTS, WHO, Stage


def play(stage: Stage, script: str, **dispatch_config: Any) -> Bead:
    """A town whose polecat is this Python script, and one bead for it; returns the bead."""
    path = stage.root / "agent.py"
    path.write_text(f"import os, signal, subprocess, sys, time\nsys.path.insert(0, {str(AGENTS)!r})\n{script}")
    stage.open()
    overrides = {
        "agents": {"polecat": {"command": [sys.executable, str(path)]}},
        "dispatch": {"backoff": ["1h"], "heartbeat": "1s", "lease": "20s", **dispatch_config},
    }
    ledger.set_config(stage.rig, configs.validate(overrides))
    stage.rig.refresh_from_db()
    return stage.sling("Task", "")


def running(stage: Stage) -> Run:
    """The run, once its command has written `ready` into its worktree."""
    ready = Path(stage.runner.home) / "workspaces"
    stage.until(lambda: list(ready.glob("*/tree/ready")))
    return Run.objects.get(state="running")


def ended(stage: Stage, run: Run) -> Run:
    stage.until(lambda: Run.objects.get(pk=run.pk).state == "ended")
    return Run.objects.get(pk=run.pk)


def alive(mark: str) -> list[int]:
    """Processes that carry a mark in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


HANG = "open('ready', 'w').close()\nwhile True: time.sleep(0.05)\n"
DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", sys.argv[0] and MARK])
    os._exit(0)
"""


def test_a_daemon_that_an_agent_leaves_behind_is_gone_when_its_run_has_ended(stage: Stage) -> None:
    mark = f"98{os.getpid()}.5"
    bead = play(stage, f"MARK = {mark!r}\n{DAEMON}\nfrom tool import call\ncall('gt_done', summary='left one')\n")
    stage.await_bead(bead, "closed", "failed")
    assert alive(mark) == []


def test_an_agent_that_ignores_sigterm_is_stopped_and_its_work_is_saved(stage: Stage) -> None:
    script = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('done.txt', 'w').write('committed')\n"
        "subprocess.run('git add -A && git commit -qm work', shell=True, check=True)\n"
        "open('draft.txt', 'w').write('not committed')\n" + HANG
    )
    play(stage, script)
    run = running(stage)
    operators.stop_run(run, by=WHO, reason="enough")
    run = ended(stage, run)
    assert run.outcome == "stopped"
    repo = Path(stage.runner.home) / "repos" / f"{stage.rig.pk}.git"
    assert stage.git("show", f"{run.head_sha}:done.txt", cwd=repo) == "committed"
    assert run.published and not run.on_remote
    assert stage.git("show", f"{run.salvage_ref}:draft.txt", cwd=repo) == "not committed"
    assert not (Path(stage.runner.home) / "workspaces" / run.pk).exists()


def test_r1_a_fenced_run_is_stopped_by_its_shim_and_its_word_no_longer_counts(stage: Stage) -> None:
    bead = play(stage, HANG)
    run = running(stage)
    environs = [Path(f"/proc/{pid}/environ").read_bytes() for pid in alive(str(stage.root / "agent.py"))]
    words = [word for environ in environs for word in environ.split(b"\0")]  # bubblewrap's own has no token
    secret = next(x for x in words if x.startswith(b"GASTOWN_TOKEN=")).partition(b"=")[2].decode()
    ledger.park_rig(stage.rig)
    runs.end(run.pk, "running", "lost", "fenced by the test", timezone.now())  # type: ignore[arg-type]
    stage.until(lambda: not alive(str(stage.root / "agent.py")))
    assert tokens.live_run(secret) is None
    fenced = tokens.fenced_run(secret)
    assert fenced is not None and fenced.pk == run.pk
    stage.step()
    assert Bead.objects.get(pk=bead.pk).status == "open"


def test_a_lease_that_cannot_be_renewed_stops_the_command_before_it_runs_out(stage: Stage, settings: Any) -> None:
    play(stage, HANG, lease="4s")
    run = running(stage)
    until = run.lease_until
    assert until is not None
    # the server goes away for this run only: nothing it sends is heard any more
    Run.objects.filter(pk=run.pk).update(shim_hash="0" * 64)
    stage.until(lambda: not alive(str(stage.root / "agent.py")))
    assert timezone.now() < until + timezone.timedelta(seconds=15)  # type: ignore[attr-defined]


def test_a_start_that_the_host_spoils_costs_no_attempt_and_says_why(stage: Stage) -> None:
    bead = play(stage, "from tool import call\ncall('gt_done')\n")
    hidden = stage.root / "elsewhere.git"
    stage.remote.rename(hidden)
    stage.until(lambda: Run.objects.filter(outcome="start_failed").exists())
    failed = Run.objects.filter(outcome="start_failed").first()
    assert failed is not None and "does not appear to be a git repository" in failed.reason
    hidden.rename(stage.remote)
    bead = stage.await_bead(bead, "closed", "failed", "in_review")
    assert not Run.objects.filter(outcome="failed").exists()


def test_r29_a_crash_is_a_failed_attempt_and_the_next_one_goes_on_from_what_was_published(stage: Stage) -> None:
    script = (
        "from tool import call\n"
        "if os.path.exists('first.txt'):\n    call('gt_done', summary='second time')\n    sys.exit()\n"
        "open('first.txt', 'w').write('1')\n"
        "subprocess.run('git add -A && git commit -qm first', shell=True, check=True)\n"
        "call('gt_checkpoint', data={'so': 'far'})\n"
        "sys.exit(7)\n"
    )
    bead = play(stage, script, backoff=["1ms"])
    bead = stage.await_bead(bead, "closed", "failed")
    assert bead.resolution == "merged"
    first, second = Run.objects.filter(bead=bead).order_by("attempt")
    assert (first.outcome, first.exit_code, second.outcome) == ("failed", 7, "done")
    assert second.start_sha == first.head_sha
    assert second.brief["checkpoint"] == {"so": "far"}
    assert stage.file("first.txt") == "1"


def test_o12_failed_runs_without_commits_leave_no_branch_on_the_remote(stage: Stage) -> None:
    bead = play(stage, "sys.exit(7)\n", backoff=["1ms"], max_attempts=2)
    stage.town.refresh_from_db()
    ledger.set_config(stage.town, configs.validate({**stage.town.config, "git": {"publish": "always"}}))
    bead = stage.await_bead(bead, "failed")
    assert Run.objects.filter(bead=bead, outcome="failed").count() == 2
    assert not Effect.objects.exclude(state="done").exists()
    assert stage.git("branch", "--list", "--format=%(refname:short)", cwd=stage.remote) == "main"


def test_an_agent_is_told_only_what_is_its_own(stage: Stage) -> None:
    script = (
        "import json\nfrom tool import call\n"
        "json.dump(dict(os.environ), open('env.json', 'w'))\n"
        "call('gt_mail_send', to='overseer', subject='Hi', body=open(os.environ['GASTOWN_PROMPT_FILE']).read())\n"
        "subprocess.run('git add -A && git commit -qm env', shell=True, check=True)\n"
        "call('gt_done')\n"
    )
    bead = play(stage, script)
    stage.await_bead(bead, "closed", "failed")
    import json

    told = json.loads(stage.file("env.json"))
    wanted = ["URL", "TOKEN", "RUN", "ROLE", "AGENT", "BEAD", "BRANCH", "TARGET", "PROMPT_FILE"]
    assert {k for k in told if k.startswith("GASTOWN_")} == {f"GASTOWN_{name}" for name in wanted}
    assert not {"DATABASE_URL", "DJANGO_SETTINGS_MODULE"} & set(told)
    assert (told["GASTOWN_ROLE"], told["GASTOWN_BEAD"], told["GASTOWN_TARGET"]) == ("polecat", bead.pk, "main")
    assert "gt_done" in Mail.objects.get().body


@pytest.mark.long
@pytest.mark.parametrize("command", ["exit 0", "kill -9 $$"])
def test_a_gate_that_leaves_a_daemon_leaves_none(stage: Stage, command: str) -> None:
    mark = f"97{os.getpid()}.5"
    stage.open(agents=False, gates=[f"(setsid sleep {mark} &) ; {command}"])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged", "awaiting_human")
    stage.until(lambda: not Run.objects.exclude(state="ended").exists())
    assert alive(f"sleep\0{mark}") == []


def test_a_gate_that_takes_too_long_is_an_error(stage: Stage) -> None:
    stage.open(agents=False, gates=[{"name": "slow", "run": "sleep 600", "timeout": "1s"}])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "awaiting_human", "merged", "failed")
    check = ReviewEntry.objects.get(kind="check")
    assert check.held == "gates_broken"
    assert "cannot be run on main itself" in check.held_text and "timed out" in check.held_text


def test_sigterm_to_the_runner_leaves_shims_alive(stage: Stage) -> None:
    play(stage, HANG)
    run = running(stage)
    stage.runner.stopping = True
    shim = stage.runner.shims[run.pk]
    assert shim.poll() is None
    os.kill(shim.pid, signal.SIGTERM)
    assert ended(stage, run).outcome in ("stopped", "lost")
