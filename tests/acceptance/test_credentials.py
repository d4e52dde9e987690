"""Credentials in a remote's URL reach the remote, and nobody's eyes: not the arguments of processes, not an error."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.gitcmd import GitFailed
from refinery.git import repo as git
from tests.acceptance.test_runs import alive

USER, PASSWORD = "ann@example.org", "s3cr%t/pass word"
QUOTED = "ann%40example.org:s3cr%25t%2Fpass%20word"
SEEN: list[int] = []


class Guarded(SimpleHTTPRequestHandler):
    """A repository as files, for one person; notes which processes show the password meanwhile."""

    def do_GET(self) -> None:
        """A file, or a question for the password."""
        SEEN.extend([*alive(PASSWORD), *alive(QUOTED.partition(":")[2])])
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """(host and path of a repository behind a password, the head of its branch)."""
    who = ["git", "-c", "user.name=Ann", "-c", "user.email=a@x.org"]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "r.git")], check=True)
    run = partial(subprocess.run, cwd=tmp_path / "r.git", check=True, capture_output=True, text=True)
    tree = run(["git", "hash-object", "-t", "tree", "-w", "/dev/null"]).stdout.strip()
    head = run([*who, "commit-tree", tree, "-m", "start"]).stdout.strip()
    run(["git", "update-ref", "refs/heads/main", head])
    run(["git", "update-server-info"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}/r.git", head
    server.shutdown()
    server.server_close()


def test_the_credentials_of_a_url_open_the_remote_and_are_in_no_processs_arguments(
    served: tuple[str, str], tmp_path: Path
) -> None:
    place, head = served
    SEEN.clear()
    repo = git.Repo.open_or_create(tmp_path / "mirror.git")
    assert repo.fetch_branch(f"http://{QUOTED}@{place}", "main") == head
    assert SEEN == []


@pytest.mark.parametrize("credentials", ["", "ann%40example.org:wrong-one@", "ann%40example.org@"])
def test_wrong_ones_are_refused_without_being_told(served: tuple[str, str], tmp_path: Path, credentials: str) -> None:
    repo = git.Repo.open_or_create(tmp_path / "mirror.git")
    with pytest.raises(GitFailed) as failed:
        repo.ls_remote(f"http://{credentials}{served[0]}", "main")
    assert failed.value.kind == "auth"
    assert "wrong-one" not in failed.value.message and "example.org" not in failed.value.message
