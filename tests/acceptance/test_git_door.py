"""A run's door over HTTP: who is let in, what is shown, what is taken. Real git against the real server."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from django.utils import timezone

from agents import runs, work
from agents.models import Run
from agents.runtime import door, workspace
from agents.runtime.workspace import Plan
from beads.errors import Invalid
from refinery.decisions import towns
from refinery.git.mirror import repo_of
from tests.acceptance.conftest import Stage


class Worker:
    """A shim somewhere else: it has its secret, and a clone that it got through the door."""

    def __init__(self, stage: Stage, server: str) -> None:
        self.stage = stage
        stage.open()
        bead = stage.sling("Some work", "true")
        stage.runner.slots = 0  # nobody picks it but we
        stage.until(lambda: Run.objects.filter(bead=bead).exists())
        run, claim = runs.pick("elsewhere", timezone.now()) or (None, "")
        assert run is not None
        self.run = run
        base = repo_of(stage.rig).fetch_branch(str(stage.remote), "main")
        self.space = work.workspace_of(run)
        workspace.make(self.space, Plan(base, "main", {"main": base}, branch=run.branch))
        runs.prepared(run.pk, start_sha=base, log_path="", sandbox="bubblewrap")
        told = runs.claim(run.pk, claim, timezone.now())
        self.token, self.secret = told.token, told.secret
        self.url = f"{server}/git/{run.pk}/"
        self.clone = stage.root / "worker"
        self.git("clone", "-q", self.url, str(self.clone), cwd=stage.root)
        self.git("checkout", "-q", "-b", run.branch)

    def git(self, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        header = f"http.extraHeader=Authorization: Bearer {self.secret}"
        return self.stage.git("-c", header, *words, cwd=cwd or self.clone, check=check)

    def commit(self, name: str) -> str:
        (self.clone / name).write_text(name)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"Add {name}")
        return self.git("rev-parse", "HEAD")

    def push(self, ref: str) -> bool:
        self.git("push", "-q", self.url, f"HEAD:{ref}", check=False)
        return bool(self.git("ls-remote", self.url, ref))

    def arrived(self) -> str:
        return door.head_of(self.space.mirror, self.run.pk)


@pytest.fixture
def worker(stage: Stage, live_server: Any) -> Worker:
    return Worker(stage, live_server.url)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_the_door_shows_the_target_and_the_start_and_takes_the_runs_own_branch(worker: Worker) -> None:
    shown = {line.split("\t")[1] for line in worker.git("ls-remote", worker.url).splitlines()}
    assert shown == {"HEAD", "refs/heads/main", "refs/gastown/start"}
    sha = worker.commit("work.txt")
    assert worker.push(f"refs/heads/{worker.run.branch}")
    assert worker.arrived() == sha
    told = work.settle(worker.run, {"work": "new", "head_sha": "f" * 40, "branches": {}})
    assert (told["head_sha"], told["published"]) == (sha, True)


@pytest.mark.parametrize(
    "ref", ["refs/heads/main", "refs/heads/gt/other/gt-1/1", "refs/tags/v9", "refs/gastown/runs/run-x"]
)
def test_no_other_ref_can_be_written(worker: Worker, ref: str) -> None:
    before = worker.git("ls-remote", worker.url)
    sha = worker.commit("work.txt")
    worker.push(ref)
    assert worker.git("ls-remote", worker.url) == before
    assert worker.arrived() == ""
    assert worker.stage.git("cat-file", "-e", sha, cwd=worker.space.origin, check=False) == ""
    assert not repo_of(worker.stage.rig).has(sha)


def test_what_the_door_refuses_locally_it_refuses_over_http(worker: Worker) -> None:
    inner = worker.clone / "inner"
    worker.git("init", "-q", str(inner))
    (inner / "a").write_text("a")
    worker.git("add", "-A", cwd=inner)
    worker.git("commit", "-q", "-m", "inner", cwd=inner)
    worker.commit("work.txt")
    assert not worker.push(f"refs/heads/{worker.run.branch}")
    assert worker.arrived() == ""


def test_s10_nothing_but_the_shims_secret_opens_it_and_only_while_the_run_lives(worker: Worker) -> None:
    refs = f"{worker.url}info/refs?service=git-receive-pack"
    assert status(refs) == 401
    assert status(refs, Authorization="Bearer nonsense") == 401
    assert status(refs, Authorization=f"Bearer {worker.token}") == 403
    assert status(refs.replace(worker.run.pk, "run-00000000"), Authorization=f"Bearer {worker.secret}") == 403
    assert status(refs, Authorization=f"Bearer {worker.secret}") == 200
    for path in ("HEAD", "objects/info/packs", "config", "..%2f..%2fconfig", "info/refs"):
        assert status(worker.url + path, Authorization=f"Bearer {worker.secret}") == 404
    runs.end(worker.run.pk, "running", "lost", "by the test", timezone.now())  # type: ignore[arg-type]
    assert status(refs, Authorization=f"Bearer {worker.secret}") == 409


def test_g2_s10_the_report_names_a_head_that_never_arrived_and_it_counts_for_nothing(worker: Worker) -> None:
    sha = worker.commit("work.txt")  # it is in the worker's clone, and nowhere else
    told = {"exit_code": 0, "head_sha": sha, "published": True, "work": "new", "branches": {"other": sha}}
    request = urllib.request.Request(
        worker.url.replace(f"/git/{worker.run.pk}/", f"/api/runs/{worker.run.pk}/exit"),
        json.dumps(told).encode(),
        {"Authorization": f"Bearer {worker.secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    run = Run.objects.get(pk=worker.run.pk)
    assert run.exited_at is not None
    assert (run.head_sha, run.published, run.on_remote) == ("", False, False)


def test_gastowns_own_repositories_are_nobodys_remotes(worker: Worker) -> None:
    for path in (worker.space.mirror, worker.space.origin, worker.space.tree):
        for url in (str(path), f"file://{path}"):
            with pytest.raises(Invalid, match="repository of Gastown's own"):
                towns.add_rig("main", "inner", url, "main", {})
