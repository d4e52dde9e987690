"""Rows of the scenarios that need real starts, real remotes and real reworks, and have no other home."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from agents.models import Run
from agents.runtime import gitcmd
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.models import Bead
from refinery.decisions import towns
from refinery.executor import perform
from refinery.models import Landing, ReviewEntry
from tests.acceptance.conftest import Stage


def test_r9_credentials_are_matched_by_host_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git asks the credential helper of `GASTOWN_GIT_CONFIG`; the port is part of what it is asked for."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            asked.append(given)
            self.send_response(401 if not given else 404)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    store = tmp_path / "credentials"
    store.write_text(f"http://ann:secret@127.0.0.1:{port}\nhttp://eve:wrong@127.0.0.1:{port + 1}\n")
    config = tmp_path / "gitconfig"
    config.write_text(f"[credential]\n\thelper = store --file={store}\n")
    monkeypatch.setenv("GASTOWN_GIT_CONFIG", str(config))
    try:
        with pytest.raises(gitcmd.GitFailed):
            gitcmd.run_git(["ls-remote", f"http://127.0.0.1:{port}/repo.git"], cwd=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert "Basic YW5uOnNlY3JldA==" in asked  # ann:secret


def test_r11_a_slow_step_delays_a_start_and_does_not_half_start_it(stage: Stage) -> None:
    """A fetch that takes longer than the start deadline: the runner says that it is still preparing."""
    stage.open()
    ledger.set_config(stage.rig, configs.validate({"dispatch": {"start_deadline": "4s"}}))
    stage.rig.refresh_from_db()
    wrapper = stage.root / "bin" / "git"
    gate = stage.root / "go"
    wrapper.parent.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    waits = f'case " $* " in *" fetch "*) while [ ! -e "{gate}" ]; do sleep 0.05; done;; esac'
    wrapper.write_text(f'#!/bin/sh\n{waits}\nexec {real} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{wrapper.parent}:{before}"
    try:
        bead = stage.sling("Slow start", "echo 1 > one.txt")
        stage.until(lambda: stage.runner.starting)
        seconds = Run.objects.get().start_seconds
        far = timezone.timedelta(seconds=2 * seconds)  # type: ignore[attr-defined]

        def delayed() -> bool:
            """The runner, which is still preparing, has pushed the deadline on again and again."""
            run = Run.objects.get()
            return bool(run.start_deadline and run.picked_at and run.start_deadline > run.picked_at + far)

        stage.until(delayed)
        assert (Run.objects.get().state, Run.objects.get().start_error) == ("starting", "")
    finally:
        gate.touch()
        os.environ["PATH"] = before
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert Run.objects.filter(kind="polecat").count() == 1


@pytest.mark.parametrize("where", ["standalone", "convoy"])
def test_r13_r23_rework_is_picked_up_with_and_without_a_convoy(stage: Stage, where: str) -> None:
    stage.open(gates=["! grep -r broken ."])
    script = "echo broken > a.txt\n---rework---\necho fine > a.txt"
    if where == "convoy":
        bead = stage.convoy("C", {"a": (script, [])}).beads.get()
    else:
        bead = stage.sling("Alone", script)
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    rework = Bead.objects.get(purpose="rework")
    assert (rework.status, Run.objects.filter(bead=rework, outcome="done").count()) == ("closed", 1)
    assert ReviewEntry.objects.get(source=bead).rework_count == 1


def test_m15_intermediate_merges_pushed_at_once_from_inside_and_outside_all_land_once(stage: Stage) -> None:
    stage.open(train={"window": 8})
    convoy = stage.convoy("Crowd", {n: (f"echo {n} > {n}.txt", []) for n in ("a", "b", "c")})
    stage.hold.add("land")
    stage.until(lambda: Landing.objects.exists())
    branch = convoy.branches.get().name
    outside = stage.commit(branch, {"outside.txt": "o\n"}, start=branch)
    stage.hold.clear()
    stop = threading.Event()

    def another() -> None:
        from beads.models import Effect

        try:
            while not stop.is_set():
                for effect in Effect.objects.filter(state="pending", kind="land"):
                    perform.run_effect(effect.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=another)
    thread.start()
    try:
        assert stage.await_bead(convoy.bead, "closed", "failed").resolution == "merged"
    finally:
        stop.set()
        thread.join()
    names = stage.git("ls-tree", "--name-only", "main", cwd=stage.remote).split()
    assert {"a.txt", "b.txt", "c.txt", "outside.txt"} <= set(names)
    subjects = stage.git("log", "--no-merges", "--format=%s", "main", cwd=stage.remote).splitlines()
    assert [subjects.count(n) for n in ("a", "b", "c")] == [1, 1, 1]
    assert stage.git("merge-base", "main", outside, cwd=stage.remote) == outside


def test_the_refinery_may_resolve_a_conflict_on_a_branch_of_its_own(stage: Stage) -> None:
    stage.open(require_clean_merge=False, gates=["test -s signs.txt"], code_review=False)
    stage.release.touch()
    towns.park(stage.rig, by=Actor("", "test"))
    stage.rig.refresh_from_db()
    stage.commit("one", {"signs.txt": "one\nleft\nthree\n"})
    stage.commit("two", {"signs.txt": "one\nright\nthree\n"})
    first, second = stage.submit("one"), stage.submit("two")
    towns.unpark(stage.rig, by=Actor("", "test"))
    stage.await_phase(first, "merged")
    resolver = stage.until(lambda: Run.objects.filter(purpose="resolve").first())
    assert resolver.branch.startswith("gt/proj-refinery/")
    entry = stage.await_phase(second, "merged", "failed", "blocked")
    assert (entry.state, entry.branch) == ("merged", resolver.branch)
    assert {"left", "right"} <= set(stage.file("signs.txt").splitlines())
    assert not Bead.objects.filter(purpose="conflict").exists()
