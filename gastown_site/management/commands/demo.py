"""`demo`: the main job on a real repository, from nothing to landed convoys, then it serves until Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.live import Live
from rich.table import Table

from agents import usage
from agents.models import Run
from agents.presets import PRESETS
from agents.runtime.gitcmd import run_git
from beads import secrets
from beads.channels import WAKE_CHANNEL, listen_parameters
from beads.errors import GastownError, Refused
from beads.models import Town
from beads.replies import refuse
from gastown_site import database, home
from gastown_site.demo import cast, story
from gastown_site.parts import forks
from refinery.pages import spending
from refinery.tick import reconciler

DEADLINE = 225.0
REAL_DEADLINE = 3600.0  # real agents: each start takes seconds of a processor
_MARKS = {"open": "·", "in_progress": "▶", "in_review": "◆", "closed": "✔", "failed": "✘"}


class Command(BaseCommand):
    help = (
        "Two convoys on a clone of this project, by scripted agents, or by real ones (--agents PRESET) with your key "
        "or a scripted model; DEMO_EXIT=1 exits when all has landed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Arguments."""
        parser.add_argument("--port", type=int, default=0, help="0: any free one")
        parser.add_argument("--agents", metavar="PRESET", default="", help=f"real agents: {', '.join(PRESETS)}")
        parser.add_argument("--model", default="", help="theirs, as their own --model takes it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the whole demo."""
        self.console = Console(highlight=False)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # end like Ctrl-C: nothing is left running
        try:
            self.cast = cast.choose(options["agents"], options["model"], os.environ)
            with cast.on_stage(self.cast, os.environ.get("DEMO_PACE", "0.8")) as self.cast:
                code = self._demo(options["port"])
        except GastownError as error:
            refuse(error, as_json=False)
        except KeyboardInterrupt:
            code = 130
        sys.exit(code)

    def _demo(self, port: int) -> int:
        home.ensure()
        database.ensure_running()
        database.ensure_migrated()
        port = port or _free_port()
        name = f"demo-{int(time.time())}"
        stage = Path(settings.GASTOWN_HOME) / "stage" / name
        stage.mkdir(parents=True)
        branch = story.make_remote(stage / "remote.git")
        since = run_git(["rev-parse", branch], cwd=stage / "remote.git").text
        self.console.print(f"remote: a bare clone of this project, {stage / 'remote.git'}, branch {branch}")
        up = self._start(port, stage)
        try:
            self._await_ready(up, stage / "up.log")
            town = self._set_up(name, stage, branch)
            url = f"http://127.0.0.1:{port}/towns/{name}/"
            self.console.print(f"watch it: {url}")
            said = (stage / "up.log").read_text(errors="replace").splitlines()
            for line in [line for line in said if line.startswith(("first start: ", "(or log in"))]:
                self.console.print(line, soft_wrap=True)  # a link in one piece
            landed = self._watch(town, up)
            kept = self._report(town, stage, branch, since, landed)
            if os.environ.get("DEMO_EXIT"):
                self._await_ends(town)
                return int(not kept)
            return self._serve(up, url)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)

    def _await_ends(self, town: Town) -> None:
        """Let the last agents end while there is a server to tell: the last reviewer is still at its last words."""
        end = time.monotonic() + 60
        while Run.objects.live().filter(town=town).exists() and time.monotonic() < end:
            time.sleep(0.5)

    def _start(self, port: int, stage: Path) -> subprocess.Popen[bytes]:
        """`gastown up`, on this database, logging to the stage."""
        env = {k: v for k, v in os.environ.items() if k not in ("GASTOWN_URL", self.cast.secret)}
        env["DATABASE_URL"] = os.environ.get("DATABASE_URL") or database.url()
        env["GASTOWN_HOME"] = str(home.path())
        with (stage / "up.log").open("wb") as log:
            command = [sys.executable, "-m", "gastown_site.cli", "up", "--port", str(port)]
            return subprocess.Popen(
                command,
                env=env,
                cwd=story.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=forks.die_with_parent,
            )

    def _await_ready(self, up: subprocess.Popen[bytes], log: Path) -> None:
        end = time.monotonic() + 60
        while "ready: " not in log.read_text(errors="replace"):
            if up.poll() is not None or time.monotonic() > end:
                tail = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise Refused(f"the server did not come up: {' '.join(tail)} (see {log})")
            time.sleep(0.1)

    def _set_up(self, name: str, stage: Path, branch: str) -> Town:
        """The commands that a user would type."""
        (stage / "town.toml").write_text(story.config(self.cast))
        for line in self.cast.lines():
            self.console.print(line, style="red", soft_wrap=True, markup=False)
        self._type("town", "create", name, "--config", str(stage / "town.toml"))
        if self.cast.secret:
            self.console.print(f"$ gastown secret set {self.cast.secret} --town {name}", style="dim", soft_wrap=True)
            key = os.environ.get(self.cast.secret) or "of-no-account"
            secrets.set_secret(Town.objects.get(slug=name), self.cast.secret, key, "demo")
        remote = str(stage / "remote.git")
        self._type("rig", "add", name, remote, "--town", name, "--default-branch", branch)
        square, signs = str(story.HERE / "square.toml"), str(story.HERE / "signs.toml")
        self._type("convoy", "create", name, "--title", "Town square", "--file", square)
        mode = ("--merge-mode", "review-and-merge")
        self._type("convoy", "create", name, "--title", "Road signs", "--file", signs, *mode)
        return Town.objects.get(slug=name)

    def _type(self, *words: str) -> Any:
        """Type one command, and show it."""
        self.console.print(f"$ gastown {' '.join(words)}", style="dim", soft_wrap=True)
        out = io.StringIO()
        call_command(*words, "--json", stdout=out)
        return json.loads(out.getvalue())["data"]

    def _watch(self, town: Town, up: subprocess.Popen[bytes]) -> bool:
        """Show progress at each wake-up until both convoys have ended; False at the deadline."""
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=4) as live:
                return self._follow(town, up, lambda rows: live.update(_table(rows)))
        seen: set[str] = set()

        def lines(rows: list[dict[str, Any]]) -> None:
            for convoy in rows:
                for bead in convoy["beads"]:
                    line = f"{convoy['title']}: {bead['title']}: {bead['status']}, {bead['reason']}"
                    if line not in seen:
                        seen.add(line)
                        self.stdout.write(line)
                        self.stdout.flush()

        return self._follow(town, up, lines)

    def _follow(self, town: Town, up: subprocess.Popen[bytes], show: Callable[[list[dict[str, Any]]], None]) -> bool:
        end = time.monotonic() + DEADLINE
        if self.cast.preset:
            end += REAL_DEADLINE
        with psycopg.connect(**listen_parameters(), autocommit=True) as listener:
            listener.execute(f"listen {WAKE_CHANNEL}")
            while time.monotonic() < end:
                rows = story.progress(town)
                show(rows)
                if all(row["status"] in ("closed", "failed") for row in rows):
                    return True
                if up.poll() is not None:
                    return False
                list(listener.notifies(timeout=0.5, stop_after=1))
        return False

    def _report(self, town: Town, stage: Path, branch: str, since: str, landed: bool) -> bool:
        """What landed, judged from a fresh clone of the remote; True when all is as promised."""
        log = story.landed_log(stage / "remote.git", branch, stage / "clone", since)
        self.console.print(f"\nlanded on {branch} of the remote (git log --oneline):\n{log}", markup=False)
        if self.cast.preset:
            charged = "as the provider counts them"
            if self.cast.scripted:
                charged = "scripted: nothing is charged"
            spent = spending.words(usage.total(spending.of_town(town).rows))
            self.console.print(f"models used: {spent} ({charged})", markup=False)
        wrong = story.shortcomings(town, stage / "clone", since, self.cast)
        if not landed:
            wrong += [f"{d.subject}: {d.why}" for d in reconciler.explain(town)]
        for line in wrong:
            self.console.print(f"not as promised: {line}", markup=False)
        if not wrong:
            self.console.print("both convoys have landed: exactly the trees that passed the gates")
        return not wrong

    def _serve(self, up: subprocess.Popen[bytes], url: str) -> int:
        """Until Ctrl-C."""
        self.console.print(f"serving {url} until Ctrl-C")
        try:
            up.wait()
        except KeyboardInterrupt:
            return 0
        return 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _table(rows: list[dict[str, Any]]) -> Table:
    """The live picture."""
    table = Table(expand=True, box=None)
    for column in ("", "bead", "wave", "where it stands"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for convoy in rows:
        done, total = convoy["closed"], convoy["total"]
        bar = "█" * (20 * done // max(total, 1)) + "░" * (20 - 20 * done // max(total, 1))
        table.add_row("", f"[bold]{convoy['title']}[/]", "", f"{bar} {done}/{total} {convoy['phase']}")
        for bead in convoy["beads"]:
            table.add_row(_MARKS[bead["status"]], bead["title"], str(bead["wave"]), bead["reason"])
    return table
