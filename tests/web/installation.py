"""A real installation for browsers: `manage.py up` on a home of its own, a git remote, the demo's scripted agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gastown_site.demo import story
from gastown_site.demo.cast import Cast
from tests.ports import free_port
from tests.seed import environment, seed

ROOT = Path(__file__).parents[2]
PASSWORD = "correct-horse-battery"
# Where a system's Chromium may be; playwright's own download is not needed.
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PEOPLE = f"""
from django.contrib.auth.models import User
from beads import people
from beads.models import Town
for name, role in (("vera", "viewer"), ("rita", "reviewer")):
    user = User.objects.create_user(name, password="{PASSWORD}")
    for town in Town.objects.all():
        people.grant(user, town, people.role_named(role), "test")
User.objects.create_superuser("olga", password="{PASSWORD}")
"""
SETTLE = """
import tomllib
from beads import config, ledger
from refinery.decisions import towns
told = {told!r}
ledger.create_town(told["town"], config.validate(tomllib.loads(told["config"])))
for slug, text in told["rigs"].items():
    towns.add_rig(told["town"], slug, {remote!r}, {branch!r}, config.validate(tomllib.loads(text)), by_owner=True)
"""


def chromium() -> str | None:
    """The system's Chromium."""
    return next((path for path in CHROMIUM if os.access(path, os.X_OK)), None)


def until(condition: Callable[[], Any], seconds: float = 60, say: Callable[[], str] = str) -> Any:
    """Wait for a condition; fails with what `say` returns."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not come to pass: {say()}"
        time.sleep(0.05)
    return found


class Installation:
    """`up`, and commands typed beside it."""

    def __init__(self, home: Path, pace: str) -> None:
        port = free_port()
        self.env = environment(home, DEMO_PACE=pace)
        self.home = home
        self.log = home.parent / "up.log"
        self.url = f"http://127.0.0.1:{port}"
        self.remote = home.parent / "remote.git"
        self.branch = story.make_remote(self.remote)
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, env=self.env, stdout=out, stderr=out)

    def ready(self) -> None:
        """Wait until it serves."""
        until(lambda: "ready: " in self.said() or self.process.poll() is not None, 90, self.said)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        """What `up` has printed."""
        return self.log.read_text(errors="replace")

    def run(self, *words: str) -> str:
        """One command; returns what it printed."""
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def gastown(self, *words: str) -> Any:
        """One command with `--json`; returns its data."""
        return json.loads(self.run(*words, "--json"))["data"]

    def git(self, *words: str) -> str:
        """Git in the remote."""
        done = subprocess.run(["git", *words], cwd=self.remote, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def push(self, branch: str, files: dict[str, str]) -> None:
        """A person's branch on the remote, with one commit."""
        clone = self.home.parent / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        self.git("clone", "--quiet", str(self.remote), str(clone))
        for name, text in files.items():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_text(text)
        self.git("-C", str(clone), "add", "-A")
        self.git(*who, "-C", str(clone), "commit", "--quiet", "-m", f"Change {', '.join(files)}")
        self.git("-C", str(clone), "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")

    def settle_in(self, town: str = "main", **rigs: str) -> None:
        """People, a town with the demo's config, a rig named like it, and more rigs with their configs (TOML).

        One process does it all: commands take a second each.
        """
        told = {"town": town, "config": story.config(Cast()), "rigs": {town: "", **rigs}}
        self.run("shell", "-c", SETTLE.format(told=told, remote=str(self.remote), branch=self.branch) + PEOPLE)

    def convoy(self, rig: str, plan: str, title: str, *more: str) -> str:
        """One of the demo's convoys; returns its id."""
        file = str(story.HERE / f"{plan}.toml")
        return str(self.gastown("convoy", "create", rig, "--title", title, "--file", file, *more)["id"])

    def stop(self) -> float:
        """SIGTERM; returns how many seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - began


@contextmanager
def installation(directory: Path, pace: str = "0.2") -> Iterator[Installation]:
    """A running installation under `directory`, which an unprivileged database server must be able to reach."""
    home = directory / "home"
    home.mkdir(mode=0o755)
    for parent in (directory, *directory.parents):
        if parent == Path("/tmp"):
            break
        if parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    seed(home)
    made = Installation(home, pace)
    try:
        made.ready()
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()
