"""Credentials in a remote's URL reach the remote, and nobody's eyes: not the arguments of processes, not an error."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents import access
from agents.runtime import gitcmd, gitdirs, modules
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads import ledger, secrets
from beads.errors import Refused
from beads.models import Rig, Town
from refinery.decisions import towns
from refinery.git import repo as git
from refinery.git.access import Access
from refinery.git.mirror import repo_of
from tests.acceptance.test_runs import alive

USER, PASSWORD = "ann@example.org", "s3cr%t/pass word"
QUOTED = "ann%40example.org:s3cr%25t%2Fpass%20word"
SEEN: list[int] = []
TOLD: list[str | None] = []  # what credentials each request brought


class Guarded(SimpleHTTPRequestHandler):
    """A repository as files, for one person; notes which processes show the password meanwhile."""

    def do_GET(self) -> None:
        """A file, or a question for the password."""
        TOLD.append(self.headers.get("Authorization"))
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


# -- a rig's own credential, over http --------------------------------------------------------------------------------


@pytest.fixture
def town(db: None, settings: Any, tmp_path: Path) -> Town:
    settings.GASTOWN_HOME = str(tmp_path / "home with space")
    Path(settings.GASTOWN_HOME).mkdir()
    return ledger.create_town("main")


def rig_at(town: Town, url: str, credential: str = "DEPLOY") -> Rig:
    config = {"refinery": {"gates": ["true"]}, "git": {"credential": credential}}
    return towns.add_rig("main", "proj", url, None, configs.validate(config))


def test_a_rigs_own_credential_opens_its_remote_and_is_in_no_processs_arguments(
    served: tuple[str, str], town: Town
) -> None:
    place, head = served
    secrets.set_secret(town, "DEPLOY", f"{USER}:{PASSWORD}", "test")
    SEEN.clear()
    rig = rig_at(town, f"http://{place}")
    assert repo_of(rig).fetch_branch(rig.remote_url, "main") == head
    assert SEEN == []
    assert PASSWORD not in rig.remote_url
    secrets.set_secret(town, "DEPLOY", f"{USER}:wrong-one", "test")
    with pytest.raises(GitFailed) as failed:
        repo_of(rig).ls_remote(rig.remote_url, "main")
    assert failed.value.kind == "auth" and "wrong-one" not in failed.value.message
    secrets.set_secret(town, "DEPLOY", PASSWORD, "test")  # a token alone, and the name in the URL
    named = f"http://ann%40example.org@{place}"
    opened = access.variables(town, "DEPLOY", named, access.folder_of(rig), "proj")
    assert repo_of_url(rig, opened).ls_remote(named, "main") == head


def repo_of_url(rig: Rig, opened: dict[str, str]) -> git.Repo:
    return git.Repo(repo_of(rig).path, Access(lambda: opened))


def test_a_credential_goes_to_no_other_host_and_no_redirect_is_followed(
    served: tuple[str, str], town: Town, tmp_path: Path
) -> None:
    class Elsewhere(Guarded):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://{served[0].partition('/')[0]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    TOLD.clear()
    secrets.set_secret(town, "DEPLOY", f"{USER}:{PASSWORD}", "test")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Elsewhere, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/r.git"
        with pytest.raises(Refused, match="it redirects elsewhere"):
            rig_at(town, url)
        assert TOLD == []
        opened = access.variables(town, "DEPLOY", url, tmp_path / "keys", "proj")
        repo = git.Repo.open_or_create(tmp_path / "mirror.git", Access(lambda: opened))
        with pytest.raises(GitFailed) as failed:  # another port is another place
            repo.ls_remote(f"http://{served[0]}", "main")
        assert failed.value.kind == "auth"
    finally:
        server.shutdown()
        server.server_close()
    assert TOLD == [None]


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_large_files_come_with_the_same_credential_and_a_wrong_one_is_tried_once(town: Town, tmp_path: Path) -> None:
    content = b"large\n"
    name = hashlib.sha256(content).hexdigest()
    asked: list[str] = []

    class Lfs(Guarded):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            asked.append(self.path)
            body = b""
            if self.headers.get("Authorization") == f"Basic {wanted}":
                href = f"http://127.0.0.1:{self.server.server_port}/{name}"  # type: ignore[attr-defined]
                one = {"oid": name, "size": len(content), "actions": {"download": {"href": href}}}
                body = json.dumps({"transfer": "basic", "objects": [one]}).encode()
            self.send_response(200 if body else 401)
            self.send_header("Content-Type", "application/vnd.git-lfs+json")
            self.send_header("LFS-Authenticate", 'Basic realm="lfs"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    (tmp_path / name).write_bytes(content)
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{name}\nsize {len(content)}\n"
    (work / "big.bin").write_text(pointer)
    gitcmd.run_git(["add", "big.bin"], cwd=work)
    gitcmd.run_git(["commit", "-q", "-m", "a pointer"], cwd=work)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Lfs, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/r.git"
    try:
        for secret, fine in ((f"{USER}:wrong-one", False), (f"{USER}:{PASSWORD}", True)):
            secrets.set_secret(town, "DEPLOY", secret, "test")
            env = access.variables(town, "DEPLOY", url, tmp_path / "keys", "proj")
            done = gitcmd.run_git(["lfs", "fetch", url, "HEAD"], cwd=work, env=env, check=False, timeout=60)
            assert (done.returncode == 0) is fine, done.stderr
            assert len(asked) < 5
    finally:
        server.shutdown()
        server.server_close()
    assert (work / ".git/lfs/objects" / name[:2] / name[2:4] / name).read_bytes() == content


def test_the_accounts_own_netrc_and_helper_do_not_speak_for_the_rig(
    served: tuple[str, str], town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, head = served
    account = tmp_path / "account"
    account.mkdir()
    host = place.partition(":")[0]
    (account / ".netrc").write_text(f'machine {host} login {USER} password "{PASSWORD}"\n')
    helper = f"!printf 'username={USER}\\npassword={PASSWORD}\\n'"
    subprocess.run(["git", "config", "--file", str(account / "config"), "credential.helper", helper], check=True)
    monkeypatch.setenv("HOME", str(account))
    monkeypatch.setenv("GASTOWN_GIT_CONFIG", str(account / "config"))
    bare = git.Repo.open_or_create(tmp_path / "mirror.git")
    assert bare.ls_remote(f"http://{place}", "main") == head  # a rig without a credential of its own: as ever
    secrets.set_secret(town, "DEPLOY", "ann:wrong-one", "test")
    with pytest.raises(Refused, match="Authentication failed"):
        rig_at(town, f"http://{place}")


def test_a_secret_that_cannot_be_had_stops_its_rig_and_says_what_to_do(served: tuple[str, str], town: Town) -> None:
    secrets.set_secret(town, "DEPLOY", f"{USER}:{PASSWORD}", "test")
    rig = rig_at(town, f"http://{served[0]}")
    secrets.remove(town, "DEPLOY", "test")
    with pytest.raises(GitFailed, match="gastown secret set DEPLOY --town main") as failed:
        repo_of(rig).ls_remote(rig.remote_url, "main")
    assert failed.value.kind == "credential" and failed.value.disposition == "retry"
    secrets.set_secret(town, "DEPLOY", "-----BEGIN KEY-----\nx", "test")
    with pytest.raises(GitFailed, match="is an ssh key, and the remote is http"):
        repo_of(rig).ls_remote(rig.remote_url, "main")
    secrets.set_secret(town, "DEPLOY", "two\nlines", "test")
    with pytest.raises(GitFailed, match="is not one line"):
        repo_of(rig).ls_remote(rig.remote_url, "main")
    assert repo_of(rig).path.is_dir()  # what needs no remote goes on


# -- what a commit only points to -------------------------------------------------------------------------------------


def test_a_private_submodule_comes_with_the_rigs_credential_from_the_rigs_host_alone(
    served: tuple[str, str], town: Town, tmp_path: Path
) -> None:
    place, _ = served
    git_ = partial(subprocess.run, check=True, capture_output=True, text=True)
    who = ["git", "-c", "user.name=Ann", "-c", "user.email=a@x.org", "-c", "protocol.file.allow=always"]
    git_(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "sub.git")])
    git_([*who, "init", "-q", "-b", "main", str(tmp_path / "lib")])
    (tmp_path / "lib" / "lib.txt").write_text("private\n")
    git_([*who, "add", "-A"], cwd=tmp_path / "lib")
    git_([*who, "commit", "-q", "-m", "lib"], cwd=tmp_path / "lib")
    git_([*who, "push", "-q", str(tmp_path / "sub.git"), "main"], cwd=tmp_path / "lib")
    git_([*who, "clone", "-q", str(tmp_path / "r.git"), str(tmp_path / "work")])
    git_([*who, "submodule", "--quiet", "add", str(tmp_path / "sub.git"), "lib"], cwd=tmp_path / "work")
    git_([*who, "config", "-f", ".gitmodules", "submodule.lib.url", "../sub.git"], cwd=tmp_path / "work")
    git_([*who, "add", "-A"], cwd=tmp_path / "work")
    git_([*who, "commit", "-q", "-m", "with a submodule"], cwd=tmp_path / "work")
    git_([*who, "push", "-q", str(tmp_path / "r.git"), "HEAD:main"], cwd=tmp_path / "work")
    for name in ("r.git", "sub.git"):
        git_(["git", "update-server-info"], cwd=tmp_path / name)
    secrets.set_secret(town, "DEPLOY", f"{USER}:{PASSWORD}", "test")
    rig = rig_at(town, f"http://{place}")
    mirror = repo_of(rig)
    head = mirror.fetch_branch(rig.remote_url, "main")
    tree = tmp_path / "tree"
    for name in ("without", "with"):
        (tree / "lib").mkdir(parents=True)
        opened = access.access_of(rig) if name == "with" else {}
        view = gitdirs.View(mirror.path, head, head, "main", rig.remote_url, opened=opened)
        source = modules.Source(mirror.path, rig.remote_url, tmp_path / f"modules {name}", modules.fetcher(view))
        if name == "without":
            with pytest.raises(GitFailed) as failed:
                modules.checkout(tree, source, head, base=head, scratch=tmp_path / "scratch")
            assert failed.value.kind == "auth"
            shutil.rmtree(tree)
            continue
        (made,) = modules.checkout(tree, source, head, base=head, scratch=tmp_path / "scratch")
        assert (tree / "lib" / "lib.txt").read_text() == "private\n" and PASSWORD not in made.url
    TOLD.clear()
    elsewhere = gitdirs.View(mirror.path, head, head, "main", "http://elsewhere.example.org/r.git", opened=opened)
    with pytest.raises(GitFailed):
        modules.fetcher(elsewhere)(mirror.path, f"http://{place}", ["refs/heads/main:refs/gastown/x"])
    assert TOLD == [None]
