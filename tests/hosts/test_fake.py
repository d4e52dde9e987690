"""The tests' GitHub is as GitHub describes itself, and its description refuses what is not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hosts import description
from tests.hosts.server import Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    remote, clone = tmp_path / "remote.git", tmp_path / "clone"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    git(tmp_path, "init", "-q", "-b", "main", str(clone))
    git(clone, "commit", "-q", "--allow-empty", "-m", "first")
    git(clone, "push", "-q", str(remote), "HEAD:refs/heads/main")
    git(clone, "commit", "-q", "--allow-empty", "-m", "second")
    git(clone, "push", "-q", str(remote), "HEAD:refs/heads/feature")
    with serving(remote) as made:
        yield made


def git(cwd: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=ann", "-c", "user.email=ann@example.org", *words], cwd=cwd, check=True, timeout=30
    )


@description.needed
def test_every_answer_is_as_github_describes_it(server: Server) -> None:
    github = server.github
    github.people["ann"] = "admin"
    pull = github.open("ann", "feature", "Title", "Body")
    github.say(pull, "ann", "hello")
    github.review(pull, "ann", "CHANGES_REQUESTED", "no", [("a.py", 1, "why?")])
    with httpx.Client(base_url=github.url, headers={"Authorization": f"Bearer {github.token}"}) as client:
        place = "/repos/acme/proj"
        for path in (
            place,
            f"{place}/pulls?state=all&sort=updated&direction=desc&per_page=100",
            *(f"{place}/pulls/1{end}" for end in ("", "/reviews", "/comments", "/commits?per_page=100")),
            f"{place}/issues/1/comments?per_page=100",
            f"{place}/issues/comments?since=2020-01-01T00:00:00Z&sort=updated",
            f"{place}/collaborators/ann/permission",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert client.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
        assert client.post(f"{place}/issues/1/comments", json={"body": "x"}).status_code == 201
        assert client.post(f"{place}/statuses/{pull.head}", json={"state": "success"}).status_code == 201
        assert client.patch(f"{place}/pulls/1", json={"state": "closed"}).status_code == 200
        assert client.post(f"{place}/pulls", json={"head": "feature", "base": "main", "title": "T"}).status_code == 201
    assert not server.complaints, "\n".join(server.complaints)


@description.needed
def test_what_github_does_not_know_is_complained_of() -> None:
    path = "/repos/acme/proj/pulls"
    assert "there is no POST" in description.wrong_request("POST", "/repos/acme/proj/nothing", {}, {})[0]
    assert "no parameter since" in description.wrong_request("GET", path, {"since": "x"}, None)[0]
    assert description.wrong_request("POST", path, {}, {"title": "x", "head": 1, "base": "main"})
    assert "no field colour" in description.wrong_request("PATCH", f"{path}/1", {}, {"colour": "red"})[-1]
    assert description.wrong_answer("GET", f"{path}/1", 200, {"number": 1})
