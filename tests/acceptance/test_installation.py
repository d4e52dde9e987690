"""The installation as an operator meets it: commands in processes of their own, `up`, plugs pulled, the demo."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.seed import environment, seed

ROOT = Path(__file__).parents[2]


def manage(home: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "manage.py"), *words]
    env = environment(home, **more)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def postmasters(home: Path) -> list[int]:
    """The pids of servers over this home's data. A child that such a server has just forked is called like it."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words and words[0].endswith(b"postgres") and any(str(home).encode() in w for w in words):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return [pid for pid, parent in found.items() if parent not in found]


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


def reachable(path: Path) -> Path:
    """Let an unprivileged server into a test's directory."""
    for parent in (path, *path.parents):
        if parent == Path("/tmp"):
            break
        if parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A home that is not there yet, in a path with spaces, that an unprivileged server can reach."""
    return reachable(tmp_path) / "a home"


@pytest.fixture
def home(fresh: Path) -> Path:
    """A home that has its database."""
    fresh.mkdir()
    seed(fresh)
    return fresh


@pytest.mark.long
def test_the_database_comes_with_the_command_and_leaves_with_it(fresh: Path) -> None:
    made = manage(fresh, "town", "create", "main", "--json")
    assert json.loads(made.stdout)["ok"] is True, made.stderr
    assert not postmasters(fresh)
    listed = json.loads(manage(fresh, "town", "list", "--json").stdout)
    assert [t["slug"] for t in listed["data"]] == ["main"]


@pytest.mark.long
def test_two_commands_at_once_share_one_server(fresh: Path) -> None:
    command = [sys.executable, str(ROOT / "manage.py"), "town", "create"]
    both = [subprocess.Popen([*command, n], env=environment(fresh), stderr=subprocess.PIPE) for n in ("one", "two")]
    assert [p.communicate(timeout=120)[1] and p.returncode for p in both].count(1) == 0
    assert {t["slug"] for t in json.loads(manage(fresh, "town", "list", "--json").stdout)["data"]} == {"one", "two"}
    assert not postmasters(fresh)


@pytest.mark.long
def test_a_killed_server_and_a_killed_holder_are_recovered(home: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from gastown_site import database; "
        "database.ensure_running(); print('up', flush=True); time.sleep(600)"
    )
    manage(home, "town", "create", "main")
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT)], env=environment(home), stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "up\n"
        (server,) = postmasters(home)
        assert os.geteuid() != 0 or Path(f"/proc/{server}").stat().st_uid != 0
        os.kill(server, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    until(lambda: not postmasters(home))
    assert manage(home, "town", "list").stdout.splitlines()[1].startswith("main")
    assert not postmasters(home)


@pytest.mark.long
def test_what_is_typed_wrong_gets_one_line_and_its_exit_code(home: Path, tmp_path: Path) -> None:
    assert manage(home, "mq", "frobnicate").returncode == 2
    assert manage(home, "sling").returncode == 2
    wrong = manage(home, "bead", "show", "gt-none")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (1, "", "error: no bead gt-none\n")
    refused = json.loads(manage(home, "rig", "add", "x", "/nowhere", "--json").stdout)
    assert refused["error"]["details"]["field"] == "remote_url"
    (tmp_path / "bad.toml").write_text("[refinery]\ngatez = []\n")
    bad = manage(home, "town", "create", "t", "--config", str(tmp_path / "bad.toml"))
    assert "unknown key refinery.gatez; did you mean refinery.gates?" in bad.stderr
    assert json.loads(manage(home, "town", "list", "--json").stdout)["data"] == []


def test_a_rig_whose_mirror_was_half_made_is_added_the_next_time(home: Path, tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    armed.mkdir()
    (armed / "repo.made").touch()
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    words = ["git", "-c", "user.name=Ann", "-c", "user.email=a@x.org", "-C", str(remote)]
    tree = subprocess.run([*words, "hash-object", "-t", "tree", "-w", "/dev/null"], check=True, capture_output=True)
    made = [*words, "commit-tree", tree.stdout.decode().strip(), "-m", "start"]
    first = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*words, "update-ref", "refs/heads/main", first], check=True)
    killed = manage(home, "rig", "add", "proj", str(remote), GASTOWN_CRASH_AT=str(armed))
    assert killed.returncode == -signal.SIGKILL and not list(armed.iterdir())
    added = manage(home, "rig", "add", "proj", str(remote))
    assert added.returncode == 0, added.stderr


def test_a_home_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = manage(blocked / "home", "town", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("error: GASTOWN_HOME ") and done.stderr.count("\n") == 1


def test_a_port_in_use_is_refused_before_anything_starts(fresh: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = manage(fresh, "up", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert not (fresh / "pg" / "data").exists()


PARTS = ("web", "cluster", "reconciler", "executor", "runner")


class Up:
    """A running `manage.py up`; `root`: of which code."""

    def __init__(self, home: Path, port: int = 0, root: Path = ROOT, **env: str) -> None:
        self.port = port or free_port()
        home.mkdir(exist_ok=True)
        self.home, self.log = home, home / "up.log"
        with self.log.open("wb") as log:
            command = [sys.executable, str(root / "manage.py"), "up", "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=environment(home, **env), stdout=log, stderr=log)

    def ready(self) -> Up:
        """Wait until it says so: on a machine that has much else to do that takes a while."""
        until(lambda: "ready: " in self.text() or self.process.poll() is not None, 180)
        assert self.process.poll() is None, self.text()
        return self

    def end(self) -> None:
        """SIGTERM, and all of it is gone."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.text()
        assert not postmasters(self.home)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def parts(self) -> dict[str, int]:
        """Part name → pid, by what `ps` calls our children."""
        found: dict[str, int] = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
                found |= {name: int(pid) for name in PARTS if name in title.split()}
        return found

    def kill(self, part: str) -> None:
        """Kill a part and wait until it is back."""
        pid = until(lambda: self.parts().get(part))
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.parts().get(part, pid) != pid)


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    """An installation that runs."""
    started = Up(home)
    try:
        yield started.ready()
    finally:
        started.end()


@pytest.mark.long
def test_up_lands_a_branch_and_survives_the_death_of_any_part(up: Up, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "safe.directory=*", "-c", "user.name=Ann", "-c", "user.email=a@x.org", *words]
        return subprocess.run(command, cwd=tmp_path / "work", check=True, capture_output=True, text=True).stdout

    (tmp_path / "work").mkdir()
    git("init", "-q", "--bare", "-b", "main", "../remote.git")
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "start")
    git("push", "-q", "../remote.git", "main")
    (tmp_path / "rig.toml").write_text("[refinery]\ngates = ['true']\ncode_review = false\n")
    added = manage(up.home, "rig", "add", "proj", str(tmp_path / "remote.git"), "--config", str(tmp_path / "rig.toml"))
    assert added.returncode == 0, added.stderr
    for number, part in enumerate(PARTS):
        up.kill(part)
        git("checkout", "-q", "-b", f"b{number}", "main")
        (tmp_path / "work" / f"f{number}").write_text("x")
        git("add", "-A")
        git("commit", "-q", "-m", f"change {number}")
        git("push", "-q", "../remote.git", f"b{number}")
        entry = manage(up.home, "mq", "submit", "proj", "--branch", f"b{number}").stdout.strip()
        waited = manage(up.home, "wait", "--mq", entry, "--timeout", "60", "--json")
        assert waited.returncode == 0, waited.stdout + up.text()
    assert git("ls-remote", "../remote.git", "main")
    git("fetch", "-q", "../remote.git", "main")
    assert len(git("log", "--format=%s", "FETCH_HEAD").splitlines()) == 1 + len(PARTS)


@pytest.mark.long
def test_whatever_kills_it_up_takes_its_parts_along(home: Path) -> None:
    up = Up(home)
    parts: dict[str, int] = {}
    try:
        up.ready()
        parts = until(lambda: found if set(found := up.parts()) == set(PARTS) else None)
    finally:
        up.process.kill()
        up.process.wait(60)
    until(lambda: not [pid for pid in parts.values() if Path(f"/proc/{pid}").exists()])
    assert manage(home, "town", "list").returncode == 0  # the last user of the server that was left running
    assert not postmasters(home)


@pytest.mark.long
def test_the_demo_lands_both_convoys(home: Path) -> None:
    done = manage(home, "demo", DEMO_EXIT="1", DEMO_HOME=str(home), DEMO_PACE="0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both convoys have landed" in done.stdout
    assert "Land convoy: Town square" in done.stdout
    until(lambda: not postmasters(home))


@pytest.mark.long
def test_a_demo_that_is_terminated_leaves_nothing_running(home: Path) -> None:
    command = [sys.executable, str(ROOT / "manage.py"), "demo"]
    env = environment(home, DEMO_HOME=str(home))
    demo = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "in_progress" in line:
            break
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    until(lambda: not postmasters(home))
