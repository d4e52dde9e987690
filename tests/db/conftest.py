"""A town without processes: rows, facts and ticks. Time is an argument."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from django.utils import timezone

from agents import runs
from agents.models import Run
from beads import config as configs
from beads import inbox, ledger
from beads.models import Bead, Effect, Rig, Town
from refinery.models import Candidate, Forecast, GateResult, ReviewEntry
from refinery.store import entries
from refinery.tick import reconciler

SHA = {name: (name * 40)[:40] for name in "abcdef0123456789"}


class Place:
    """One town, one rig, and the outside world played by facts."""

    def __init__(self, **refinery: Any) -> None:
        config = {
            "refinery": {"code_review": False, "gates": ["true"], "triage": "off", **refinery},
            "agents": {"polecat": {"command": ["polecat"]}, "refinery": {"command": ["refinery"]}},
        }
        self.now = timezone.now()
        self.secrets: dict[str, str] = {}  # of shims, by their runs' tokens
        self.foresees = True  # git answers by itself that nobody stands on anybody
        self.town: Town = ledger.create_town("main", configs.validate(config))
        self.rig: Rig = ledger.create_rig(self.town, "proj", "/nowhere.git", "main")

    def tick(self, rounds: int = 8) -> None:
        """Tick until it is quiet; more than `rounds` means that rules fight."""
        for _ in range(rounds):
            self.now += dt.timedelta(milliseconds=1)
            changed = reconciler.tick(self.town, self.now).changed
            if not changed and not (self.foresees and self.foreseen()):
                return
        raise AssertionError("the plan does not come to rest")

    def later(self, **delta: float) -> None:
        self.now += dt.timedelta(**delta)

    def bead(self, title: str = "Work", *after: Bead) -> Bead:
        return ledger.create_bead(self.town, self.rig, ledger.Draft(title), actor="test", after=after)

    def entry(
        self, branch: str = "feature", head: str = SHA["a"], source: Bead | None = None, **more: Any
    ) -> ReviewEntry:
        return entries.submit(
            self.rig,
            entries.NewEntry(
                branch=branch, head=head, target="main", title=branch, author="test", source=source, **more
            ),
        )[0]

    def start(self, run: Run) -> str:
        """The runner picks it, the shim claims it; returns the token."""
        while picked := runs.pick("runner", self.now):
            if picked[0].pk == run.pk:
                told = runs.claim(run.pk, picked[1], self.now)
                self.secrets[told.token] = told.secret
                return told.token
        raise AssertionError(f"{run} was not to be picked")

    def running(self, **match: Any) -> tuple[Run, str]:
        run = Run.objects.get(state="queued", **match)
        token = self.start(run)
        return Run.objects.get(pk=run.pk), token

    def say(self, run: Run, kind: str, **payload: Any) -> None:
        """What a tool call of the run records."""
        inbox.record(self.town, kind, run.pk, payload, actor="agent", dedupe_key=f"result:{run.pk}")

    def exit(self, run: Run, code: int = 0, head: str = "", **more: Any) -> None:
        report = {"exit_code": code, "head_sha": head, "published": bool(head), **more}
        runs.record_exit(run.pk, report, self.now)

    def built(self, entry: ReviewEntry, tree: str = SHA["c"], base: str = SHA["b"]) -> str:
        """The build effect's answer; returns the candidate."""
        entry.refresh_from_db()
        sha = f"{entry.build_no:040x}"
        payload = {"build_no": entry.build_no, "result": "built", "head": entry.head_sha}
        inbox.record(self.town, "candidate.built", entry.pk, payload | {"base": base, "sha": sha, "tree": tree})
        self.tick()
        return sha

    def conflicts(self, entry: ReviewEntry, *files: str, base: str = SHA["b"]) -> None:
        """The build effect's answer: it conflicts with the target."""
        entry.refresh_from_db()
        payload = {"build_no": entry.build_no, "result": "conflict", "head": entry.head_sha, "files": list(files)}
        inbox.record(self.town, "candidate.built", entry.pk, payload | {"base": base})
        self.tick()

    def foreseen(
        self, stacks: Sequence[tuple[str, str]] = (), clashes: Sequence[tuple[str, str, str]] = (), base: str = ""
    ) -> bool:
        """The foresee effects' answers: (upper, lower) heads, and (a, b, file); False when nothing was asked."""
        asked = Effect.objects.filter(kind="foresee", state="pending")
        for forecast in Forecast.objects.filter(pk__in=[e.payload["forecast"] for e in asked]):
            told = {"number": forecast.number, "base": base or forecast.tip or SHA["b"]}
            told |= {"heads": forecast.asked, "paired": forecast.asked, "stacks": [list(pair) for pair in stacks]}
            told["clashes"] = [{"a": a, "b": b, "files": [file]} for a, b, file in clashes]
            inbox.record(self.town, "lane.foreseen", str(forecast.pk), told)
        return bool(asked.update(state="done"))

    def vouch(self, base: str = SHA["b"]) -> None:
        """A check has shown that the gates pass on the target itself, at `base`."""
        if Candidate.objects.filter(sha=base).exists():
            return
        entry, new = entries.open_check(self.rig, "main", "test")
        assert new
        seen = {"head_sha": base, "base_sha": base, "sha": base, "tree_sha": SHA["9"], "result": "built"}
        candidate = Candidate.objects.create(entry=entry, build_no=1, **seen)
        own = {"town": self.town, "rig": self.rig, "bead": entry.bead, "kind": "gates", "purpose": "check"}
        run = Run.objects.create(**own, attempt=1, state="ended", outcome="done", ended_at=self.now)
        for gate in configs.effective(self.town.config, self.rig.config).refinery.gates:
            told = {"gate": gate.name, "command": gate.command, "outcome": "pass", "tree_sha": candidate.tree_sha}
            GateResult.objects.create(entry=entry, candidate=candidate, run=run, **told)
        entries.close(entry, "checked", "gates_sound", "they pass", now=self.now)

    def gated(self, code: int = 0) -> None:
        """The live gates run ends with `code`; on the target itself they are known to pass."""
        run, _ = self.running(kind="gates")
        if code:
            self.vouch()
        raw = {"exit_code": code, "signal": None, "timed_out": False}
        self.exit(run, code, steps=[{"name": "true", "outcome_raw": raw, "output": ""}])
        self.tick()

    def effects(self, kind: str) -> list[Effect]:
        return list(Effect.objects.filter(kind=kind).order_by("pk"))


@pytest.fixture
def place(db: None) -> Place:
    """The usual town."""
    return Place()


@pytest.fixture
def reviewed(db: None) -> Place:
    """A town whose refinery reviews, without gates."""
    return Place(code_review=True, gates=[])
