"""A rig's own credential over ssh, with a real sshd; and commits that are signed with a key."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import access
from agents.models import Run
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads import ledger, secrets
from beads.actors import Actor
from beads.errors import Conflict, Invalid, Refused
from beads.models import Rig
from refinery.decisions import towns
from refinery.git import repo as git
from refinery.git.mirror import repo_of
from tests.acceptance.conftest import AGENTS, TOOLS, Stage
from tests.ports import free_port

# -- over ssh, with a real sshd --------------------------------------------------------------------------------------

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)
needs_sshd = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")


def new_key(file: Path, kind: str = "ed25519") -> str:
    """Make a key pair; returns the private key."""
    file.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(file)], check=True, input=b"y\n")
    return file.read_text()


class Sshd:
    """A real sshd on loopback that lets one key in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.deploy = new_key(root / "deploy")
        new_key(root / "host")
        shutil.copy(root / "deploy.pub", root / "authorized")
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def start(self) -> None:
        for port in [self.port] if self.port else [free_port() for _ in range(5)]:
            config = {
                "Port": port, "ListenAddress": "127.0.0.1", "HostKey": self.root / "host", "PidFile": "none",
                "AuthorizedKeysFile": self.root / "authorized", "StrictModes": "no", "UsePAM": "no",
                "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes",
            }  # fmt: skip
            (self.root / "config").write_text("".join(f'{k} "{v}"\n' for k, v in config.items()))
            command = [str(SSHD), "-D", "-e", "-f", str(self.root / "config")]
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert self.process.stderr is not None
            said = ""
            for line in self.process.stderr:
                said += line
                if "Server listening" in line:
                    self.port = port
                    self.reader = threading.Thread(target=self.process.stderr.read)
                    self.reader.start()
                    return
            self.stop()
        raise AssertionError(f"sshd did not start: {said}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            if self.reader is not None:
                self.reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = self.reader = None

    def url(self, path: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    made = Sshd(tmp_path / "sshd")
    made.start()
    try:
        yield made
    finally:
        made.stop()


def with_key(stage: Stage, sshd: Sshd, **config: Any) -> Rig:
    town = ledger.create_town("main", configs.validate({"refinery": {"code_review": False, "gates": ["true"]}}))
    secrets.set_secret(town, "DEPLOY", sshd.deploy, "test")
    wanted = configs.validate({"git": {"credential": "DEPLOY", **config}})
    stage.town = town
    stage.rig = towns.add_rig("main", "proj", sshd.url(stage.remote), None, wanted)
    return stage.rig


@pytest.mark.long
@needs_sshd
def test_a_branch_lands_through_a_deploy_key_that_only_the_server_has(
    stage: Stage, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "/bin/false")  # the account's own way does not count
    rig = with_key(stage, sshd)
    (pinned,) = access.host_keys(rig)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(sshd.root / "host.pub")], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[1] in pinned and f"[127.0.0.1]:{sshd.port}" in pinned
    head = stage.commit("feature", {"new.txt": "new\n"})
    entry = stage.await_phase(stage.submit("feature"), "merged")
    assert entry.head_sha == head and stage.file("new.txt") == "new"
    file = access.folder_of(rig) / "DEPLOY.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for run in Run.objects.all():
        for path in (Path(stage.runner.home) / "runs" / run.pk).rglob("*"):
            assert not path.is_file() or sshd.deploy.splitlines()[2] not in path.read_text(errors="replace")
    secrets.remove(stage.town, "DEPLOY", "test")
    assert not file.exists()


@pytest.mark.long
@needs_sshd
def test_a_polecat_works_on_a_remote_that_only_the_server_can_reach(
    stage: Stage, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key came with the line ends of another system, and without the last one."""
    monkeypatch.setenv("GIT_SSH_COMMAND", "/bin/false")
    sshd.deploy = sshd.deploy.strip().replace("\n", "\r\n")
    with_key(stage, sshd, publish="always")
    agents = {"polecat": {"command": [sys.executable, str(AGENTS / "polecat.py")]}}
    wanted = configs.validate({"agents": agents, "sandbox": {"read_only": TOOLS}})
    ledger.set_config(stage.town, {**stage.town.config, **wanted})
    stage.town.refresh_from_db()
    bead = stage.sling("Add a file", "echo new > new.txt; git add -A; git commit -qm new")
    assert stage.await_bead(bead, "closed", "failed").status == "closed"
    assert stage.file("new.txt") == "new"


@needs_sshd
def test_a_changed_host_key_is_refused_until_somebody_renews_it(stage: Stage, sshd: Sshd) -> None:
    rig = with_key(stage, sshd)
    before = access.host_keys(rig)
    sshd.stop()
    new_key(sshd.root / "host")
    sshd.start()
    with pytest.raises(GitFailed, match="`gastown rig host-key proj --renew` trusts the new one") as failed:
        repo_of(rig).ls_remote(rig.remote_url, "main")
    assert failed.value.kind == "host_key"
    assert access.host_keys(rig) == before
    towns.renew_host_key(rig, by=Actor("", "test"))
    assert access.host_keys(rig) != before and len(access.host_keys(rig)) == 1
    assert repo_of(rig).ls_remote(rig.remote_url, "main") == stage.sha()
    sshd.stop()
    with pytest.raises(Refused):  # it cannot be asked: what was pinned stays
        towns.renew_host_key(rig, by=Actor("", "test"))
    assert len(access.host_keys(rig)) == 1


@needs_sshd
def test_a_wrong_key_is_refused_with_nothing_half_done(stage: Stage, sshd: Sshd, tmp_path: Path) -> None:
    town = ledger.create_town("main", configs.validate({"refinery": {"gates": ["true"]}}))
    secrets.set_secret(town, "DEPLOY", new_key(tmp_path / "other"), "test")
    config = configs.validate({"git": {"credential": "DEPLOY"}})
    with pytest.raises(Refused, match="Permission denied") as refused:
        towns.add_rig("main", "proj", sshd.url(stage.remote), None, config)
    assert refused.value.code == "auth"
    assert not Rig.objects.exists()
    assert [p.name for p in (Path(stage.runner.home) / "keys").iterdir()] == ["secrets"]
    secrets.set_secret(town, "DEPLOY", "user:token", "test")
    with pytest.raises(Invalid, match="is no ssh key, and the remote is ssh"):
        towns.add_rig("main", "proj", sshd.url(stage.remote), None, config)


def test_a_rig_without_an_ssh_key_has_no_host_key_to_renew(stage: Stage) -> None:
    rig = stage.open(agents=False)
    assert access.host_keys(rig) == []
    with pytest.raises(Conflict, match="nothing is pinned"):
        towns.renew_host_key(rig, by=Actor("", "test"))


# -- signed commits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "method"), [("ed25519", "squash"), ("rsa", "merge"), ("ed25519", "rebase")])
def test_what_the_refinery_commits_is_signed_and_built_the_same_again(
    stage: Stage, tmp_path: Path, kind: str, method: str
) -> None:
    stage.open(agents=False)
    secrets.set_secret(stage.town, "SIGNER", new_key(tmp_path / "signer", kind), "test")
    ledger.set_config(stage.rig, configs.validate({"git": {"signing_key": "SIGNER"}}))
    rig = Rig.objects.get()
    head = stage.commit("feature", {"new.txt": "new\n"})
    stage.commit("main", {"other.txt": "other\n"})
    repo = repo_of(rig)
    base = repo.fetch_branch(rig.remote_url, "main")
    repo.fetch_branch(rig.remote_url, "feature")
    spec = git.CandidateSpec(head, base, method, "A title", ("Refinery", "refinery@example.org"), 1_700_000_000)
    built = repo.build_candidate(spec)
    assert isinstance(built, git.Built)
    assert repo_of(rig).build_candidate(spec) == built
    signers = tmp_path / "signers"
    signers.write_text(f"refinery@example.org {(tmp_path / 'signer.pub').read_text()}")
    stage.git("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", built.sha, cwd=repo.path)
    sealed = repo.seal(base, built.sha, built.tree, "A batch", spec.committer, spec.date)
    stage.git("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", sealed, cwd=repo.path)


def test_a_kind_of_key_that_never_signs_alike_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage.open(agents=False)
    ledger.set_config(stage.rig, configs.validate({"git": {"signing_key": "SIGNER"}}))
    rig = Rig.objects.get()
    for value, needle in (
        (new_key(tmp_path / "signer", "ecdsa"), "neither an ed25519 nor an RSA key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "it is damaged"),
        ("token", "is no private ssh key"),
    ):
        secrets.set_secret(stage.town, "SIGNER", value, "test")
        with pytest.raises(GitFailed, match=needle):
            access.signing_key(rig)
