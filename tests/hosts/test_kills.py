"""Who asks the host is killed after it has acted and before that is recorded, at every kind of act: it is done again,
and nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from agents.models import Mail
from beads.actors import Actor
from beads.models import Bead, Effect
from refinery.core import effects
from refinery.decisions import merge_queue
from refinery.executor import perform
from refinery.models import HostedPull, ReviewEntry
from tests.hosts.conftest import Hosted

KINDS = {kind.name for kind in get_args(effects.OfHost)}
EXECUTOR = """
import sys, django
django.setup()
from refinery.executor import perform
perform.run_effect(int(sys.argv[1]))
"""


class Executor:
    """Carries out what is asked of the host, each piece of work by a process that is killed, and then once more."""

    def __init__(self, armed: Path) -> None:
        self.armed = armed
        self.killed: list[str] = []
        self.looks = 0

    def step(self) -> None:
        due = Effect.objects.filter(state="pending", kind__in=KINDS, next_try_at__lte=timezone.now())
        for effect in due.order_by("pk"):
            if effect.kind not in ("poll_host", "read_pull") or effect.kind not in self.killed:
                self._kill(effect)
            perform.run_effect(effect.pk)

    def _kill(self, effect: Effect) -> None:
        point = self.armed / f"effect.acted.{effect.kind}"
        point.touch()
        done = subprocess.run([sys.executable, "-c", EXECUTOR, str(effect.pk)], env=self._env(), check=False)
        if not point.exists():
            assert done.returncode == -signal.SIGKILL
            assert Effect.objects.get(pk=effect.pk).state == "pending"
            self.killed.append(effect.kind)
        point.unlink(missing_ok=True)

    def _env(self) -> dict[str, str]:
        told: dict[str, Any] = connection.settings_dict
        host = quote(str(told["HOST"]), safe="")
        url = f"postgres://{told['USER']}:{told['PASSWORD']}@{host}:{told['PORT']}/{told['NAME']}"
        more = {"DATABASE_URL": url, "GASTOWN_CRASH_AT": str(self.armed), "GASTOWN_URL": settings.GASTOWN_URL}
        more |= {"GASTOWN_HOME": settings.GASTOWN_HOME, "GASTOWN_OWNER_CONFIG": settings.GASTOWN_OWNER_CONFIG}
        more["GASTOWN_SECRET_KEY"] = settings.SECRET_KEY
        return os.environ | more


@pytest.mark.long
def test_killed_after_each_act_at_the_host_nothing_is_there_twice(hosted: Hosted, tmp_path: Path) -> None:
    hosted.open(agents=True, merge_strategy="pr", gates=["test -f a.py"])
    stage, armed = hosted.stage, tmp_path / "armed"
    armed.mkdir()
    executor = Executor(armed)
    stage.hold = set(KINDS)
    step = stage.step

    def both() -> None:
        step()
        executor.step()

    stage.step = both  # type: ignore[method-assign]
    bead = stage.sling("Write it", "echo 'answer = 41' > a.py\n---rework---\necho 'answer = 42' > a.py")
    stage.until(lambda: HostedPull.objects.first() and not hosted.pull().draft)
    pull = hosted.pull()
    first = pull.head
    hosted.github.review(pull, "sam", "COMMENTED", "what is it for?")
    hosted.github.review(pull, "rita", "CHANGES_REQUESTED", "not yet", [("a.py", 1, "42, surely")])
    hosted.deliver()
    stage.until(lambda: pull.head != first)
    entry = stage.until(lambda: (e := hosted.entry()) and e.head_sha == pull.head and e)
    stage.await_phase(entry, "awaiting_human")
    hosted.github.review(pull, "rita", "APPROVED")
    hosted.deliver()
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    stage.until(lambda: HostedPull.objects.get().ended_at)
    assert set(executor.killed) == KINDS
    assert len(hosted.github.pulls) == 1
    assert "does not count" not in hosted.said()
    assert sorted(v.decision for v in entry.verdicts.filter(run=None)) == ["approve", "request_changes"]
    assert Mail.objects.filter(kind="REWORK_REQUEST").count() == 1
    assert Bead.objects.filter(purpose="rework").count() == 1
    assert entry.bead.events.filter(reason__contains="what is it for?").count() == 1
    assert len([r for r in hosted.server.requests if r.startswith("POST /repos/acme/proj/issues/1/comments")]) == 1
    assert ReviewEntry.objects.exclude(kind="check").count() == 1
    assert stage.file("a.py") == "answer = 42"
    stage.commit("other", {"b.txt": "b\n"})
    other = stage.submit("other")
    stage.until(lambda: hosted.row(2))
    merge_queue.reject(other, by=Actor("web", "rita"), reason="not wanted")
    stage.until(lambda: HostedPull.objects.get(number=2).ended_at)
    assert hosted.pull(2).state == "closed"
    assert len([r for r in hosted.server.requests if r == "PATCH /repos/acme/proj/pulls/2"]) == 1
