"""A town over a real git repository: builds and landings are real, gates and time are played."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from beads import config as configs
from beads import ledger, people
from beads.actors import Actor
from beads.models import Town, TownRole
from refinery.decisions import merge_queue
from refinery.executor import perform
from refinery.models import ReviewEntry
from tests.db.conftest import Place

ANN = ("Ann", "ann@example.org")
TYPING = Actor("cli", "ann")


class Ground:
    """A town whose rig is a real repository; builds are real, gates and time are played."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.remote, self.work = root / "remote.git", root / "work"
        self.git("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=root)
        self.git("init", "-q", "-b", "main", str(self.work), cwd=root)
        self.place = Place(code_review=False, gates=[], allow_no_gates=True, merge_strategy="pr")
        if config:
            merged = {**self.place.town.config, **config}
            ledger.set_config(self.place.town, configs.validate(merged))
            self.place.town.refresh_from_db()
        self.rig = ledger.create_rig(self.place.town, "real", str(self.remote), "main")
        self.push("main", {"a.py": "def f():\n    return 1\n", "keep.txt": "".join(f"{n}\n" for n in range(40))}, None)

    def git(self, *words: str, cwd: Path | None = None, who: tuple[str, str] = ANN) -> str:
        command = ["git", "-c", f"user.name={who[0]}", "-c", f"user.email={who[1]}", *words]
        done = subprocess.run(command, cwd=cwd or self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def push(
        self, branch: str, files: dict[str, str | bytes | None], start: str | None = "main", who: tuple[str, str] = ANN
    ) -> str:
        """Commit files (None: deleted) and push; `start` None: on top of what is checked out."""
        if start is not None:
            self.git("checkout", "-q", "-B", branch, start)
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"Change {', '.join(files)[:60]}", who=who)
        self.git("push", "-q", "-f", str(self.remote), f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def submit(self, branch: str = "feature", by: Actor = TYPING) -> ReviewEntry:
        entry, _ = merge_queue.submit(self.rig, merge_queue.Submission(branch, title=f"Title of {branch}"), by=by)
        self.settle()
        return ReviewEntry.objects.get(pk=entry.pk)

    def settle(self) -> None:
        """Tick and carry out what the plan wants done, until it is quiet."""
        for _ in range(6):
            self.place.tick()
            waiting = [e for kind in ("build", "land") for e in self.place.effects(kind) if e.state == "pending"]
            if not waiting:
                return
            for effect in waiting:
                perform.run_effect(effect.pk)


def person(name: str, mail: str = "", role: TownRole = TownRole.REVIEWER) -> Client:
    """Somebody who may review, unless told otherwise."""
    user = User.objects.create_user(name, mail)
    for town in Town.objects.all():
        people.grant(user, town, role, "test")
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, entry: ReviewEntry, query: str = "") -> str:
    """The review page's HTML."""
    answer = client.get(f"/reviews/{entry.pk}/{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def post(client: Client, entry: ReviewEntry, verb: str, **form: Any) -> Any:
    """What a form of the page sends."""
    return client.post(f"/reviews/{entry.pk}/{verb}/", {"head": entry.head_sha, **form})
