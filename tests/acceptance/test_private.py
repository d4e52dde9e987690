"""S13: a home is its owner's alone, as root and as a user, in a path with spaces; another user of the machine sees
nothing of it, and what is meant to be seen (trees, a remote on this machine) is as it ever was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_installation import postmasters, until
from tests.ports import free_port
from tests.seed import environment

ROOT = Path(__file__).parents[2]
FOLDERS = ("repos", "worktrees", "gates", "runs")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


def become(name: str) -> list[str]:
    """The words that make a command somebody else's."""
    entry = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def interpreter(name: str) -> tuple[str, dict[str, str]]:
    """A Python that this user may start, with our packages: ours, or the system's of the same version."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, system):
        found = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))}
        more = {} if program == sys.executable else found
        command = [*become(name), "env", program, "-c", "import psycopg, django"]  # env: setpriv itself may do more
        if not subprocess.run(command, env={**os.environ, **more}, capture_output=True, check=False).returncode:
            return program, more
    pytest.skip(f"{name} may start no Python that has our packages")


@contextlib.contextmanager
def passable() -> Iterator[Path]:
    """A place that every user may pass through. pytest's own are closed again whenever another pytest starts."""
    place = Path(tempfile.mkdtemp(prefix="gastown-place-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class House:
    """A home of an older installation (0755, folders too), whose owner runs commands in it."""

    def __init__(self, place: Path, owner: str) -> None:
        self.owner, self.home = owner, place / "a home"
        self.remote, self.work = place / "remote.git", place / "work"
        for made in (self.home, *(self.home / name for name in FOLDERS), self.work, self.remote):
            made.mkdir()
            made.chmod(0o755)
            os.chown(made, pwd.getpwnam(owner).pw_uid, -1)
        self.as_owner = [] if owner == "root" else become(owner)
        self.python, self.more = interpreter(owner)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`manage.py WORDS` of the owner, whose own umask is the usual one."""
        env = {**environment(self.home), **self.more, "HOME": str(self.home.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [*self.as_owner, self.python, str(ROOT / "manage.py"), *words],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0o022,
        )  # fmt: skip

    def manage(self, *words: str) -> str:
        """One command; what it says."""
        process = self.start(*words)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def git(self, *words: str) -> str:
        """Git of the owner, in the working copy."""
        command = [*self.as_owner, "git", "-c", "user.name=Ann", "-c", "user.email=a@x.org", *words]
        env = {**os.environ, "HOME": str(self.home.parent)}
        done = subprocess.run(
            command, cwd=self.work, env=env, umask=0o022, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def seen_by(self, name: str, *words: str) -> int:
        """The exit code of what somebody else tries."""
        return subprocess.run([*become(name), *words], capture_output=True, check=False, timeout=60).returncode


@pytest.fixture(params=["root", "nobody"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with passable() as place:
        made = House(place, request.param)
        yield made
        assert not postmasters(made.home)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.long
def test_s13_nobody_else_sees_anything_and_gates_and_remotes_are_as_ever(house: House) -> None:
    house.git("init", "-q", "--bare", "-b", "main", str(house.remote))
    house.git("init", "-q", "-b", "main")
    (house.work / "a.txt").write_text("a\n")
    os.chown(house.work / "a.txt", pwd.getpwnam(house.owner).pw_uid, -1)
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "start")
    house.git("push", "-q", str(house.remote), "main")
    house.git("commit", "-q", "--allow-empty", "-m", "more")
    (house.work / "b.txt").write_text("b\n")
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "Add b")
    house.git("push", "-q", str(house.remote), "HEAD:refs/heads/feature")
    gate = 'test "$(umask)" = 0022 && test "$(stat -c %a b.txt .)" = "$(printf "644\\n755")"'
    rig = house.home.parent / "rig.toml"
    rig.write_text(f"[refinery]\ngates = ['''{gate}''']\ncode_review = false\nauto_merge = true\n")
    up = house.start("up", "--port", str(free_port()))
    try:
        until(lambda: (house.home / "keys").is_dir() or up.poll() is not None)
        house.manage("rig", "add", "proj", str(house.remote), "--config", str(rig))
        key = json.loads(house.manage("mq", "submit", "proj", "--branch", "feature", "--json"))["data"]["id"]
        house.manage("wait", "--mq", key, "--timeout", "90")
        assert mode(house.home) == (0o710 if house.owner == "root" else 0o700)
        for child in house.home.iterdir():
            assert mode(child) & 0o077 == 0, f"{child.name} is {mode(child):o}"
        sockets = [p for p in Path("/tmp").glob(f"gastown-{pwd.getpwnam(house.owner).pw_uid}-*") if p.is_dir()]
        assert sockets and all(mode(path) == 0o700 for path in sockets)
        for other in ("daemon", "nobody" if house.owner == "root" else "mail"):
            assert house.seen_by(other, "ls", str(house.home)) != 0
            for name in (*FOLDERS, "secret_key", "keys/metrics_token", "pg/data", "repos/proj.git/HEAD"):
                assert house.seen_by(other, "stat", str(house.home / name)) != 0, name
            assert house.seen_by(other, "git", "-c", "safe.directory=*", "-C", str(house.remote), "log", "main") == 0
    finally:
        up.send_signal(signal.SIGTERM)
        said, _ = up.communicate(timeout=60)
        assert up.returncode == 0, said


@pytest.mark.long
def test_s13_a_fresh_home_is_closed_from_the_first_command_on(house: House) -> None:
    for name in FOLDERS:
        (house.home / name).rmdir()
    house.home.rmdir()
    house.home.parent.chmod(0o777)
    house.manage("town", "create", "main")
    assert mode(house.home) & ~0o010 == 0o700
    loose = [p for p in house.home.rglob("*") if not p.is_relative_to(house.home / "pg/data") and mode(p) & 0o077]
    assert not loose


@pytest.mark.long
def test_a_database_is_not_left_for_an_empty_one_when_its_way_is_closed() -> None:
    """Somebody tightens a directory above the home: that is said, and the town is there when it is opened again."""
    with passable() as place:
        house = House(place, "root")
        house.manage("town", "create", "main")
        place.chmod(0o700)
        shut = house.start("town", "list")
        said, _ = shut.communicate(timeout=120)
        assert shut.returncode == 1
        assert said.startswith("error: the database is in") and "chmod o+x" in said and said.count("\n") == 1
        place.chmod(0o755)
        assert "main" in house.manage("town", "list")
        assert not postmasters(house.home)


@pytest.mark.long
def test_a_database_that_has_a_place_of_its_own_stays_there_when_the_way_is_opened() -> None:
    with passable() as place:
        house = House(place, "root")
        place.chmod(0o700)
        house.manage("town", "create", "main")
        assert not (house.home / "pg" / "data").exists()
        place.chmod(0o755)
        assert "main" in house.manage("town", "list")
        mark = hashlib.sha256(str(house.home / "pg").encode()).hexdigest()[:16]
        shutil.rmtree(Path("/var/lib/gastown-postgres") / mark)
