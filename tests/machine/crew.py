"""What programs do in the model: runners, shims, agents and executors, and what becomes of them."""

from __future__ import annotations

import contextlib
from typing import Any

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from agents import runs, tokens
from agents.api import tools
from agents.models import Run
from agents.runtime.gitcmd import GitFailed
from beads.errors import Superseded
from beads.models import Bead, Effect
from refinery.executor import perform
from refinery.models import ReviewEntry
from tests.machine.ground import COUNTS, Ground, choose, picks
from tests.machine.remote import Killed


class Crew(Ground):
    """Runners, agents and executors, honest or not, alive or not."""

    # -- runners and agents --

    @rule(fate=st.sampled_from(["claims", "claims", "claims", "fails", "vanishes"]))
    def pick_run(self, fate: str) -> None:
        """A runner picks a run; its shim claims it, or the host spoils it, or nothing is heard again."""
        picked = runs.pick("runner", self.now())
        if picked is None:
            return
        run, secret = picked
        self.secrets[run.pk] = secret
        if fate == "fails":
            runs.start_failed(run.pk, "no space left on device")
        elif fate == "claims":
            self.claim(run.pk)

    @precondition(lambda self: self.secrets)
    @rule(pick=picks)
    def late_claim(self, pick: int) -> None:
        """A shim that is late, or another one, claims."""
        if self.secrets:
            run_id = choose(sorted(self.secrets), pick)
            before = Run.objects.get(pk=run_id)
            try:
                self.claim(run_id)
            except Superseded:
                return
            assert before.state == "starting"

    def claim(self, run_id: str) -> None:
        run = Run.objects.get(pk=run_id)
        start = run.start_sha or self.remote.branches.get(run.target, "")
        if not start:
            runs.start_failed(run_id, "the target is gone")
            return
        runs.prepared(run_id, start_sha=start, log_path="", sandbox="none") if run.state == "starting" else None
        self.tokens[run_id] = runs.claim(run_id, self.secrets[run_id], self.now()).token
        self.heads[run_id] = start

    def speaking(self, pick: int) -> Run | None:
        """A run whose shim is up: the server may have fenced it by now."""
        ids = sorted(self.tokens)
        return Run.objects.select_related("town", "agent", "bead").get(pk=choose(ids, pick)) if ids else None

    def work(self, run: Run, pick: int) -> None:
        """Commits in the run's worktree."""
        if run.purpose in ("review", "triage", "gates"):
            return
        files = {**self.remote.files(self.heads[run.pk])}
        if run.purpose in ("conflict", "resolve"):
            conflict = run.brief["conflict"]
            self.number += 1
            files |= self.remote.files(conflict["base_sha"])
            files |= dict.fromkeys(conflict["files"], str(self.number))
            sha = self.remote.make(files, [self.heads[run.pk], conflict["base_sha"]], salt=run.pk)
        else:
            good = {name: value.removeprefix("bad") for name, value in files.items()}
            sha = self.remote.make({**good, **self.change(pick)}, [self.heads[run.pk]], salt=run.pk)
        self.heads[run.pk] = sha
        if run.agent is not None:
            self.remote.makers[sha] = f"{run.agent.name}@gastown.invalid"

    @precondition(lambda self: self.tokens)
    @rule(
        pick=picks,
        work=st.booleans(),
        what=st.sampled_from(["done", "done", "changes", "mail", "escalate", "file", "beat"]),
    )
    def agent_speaks(self, pick: int, work: bool, what: str) -> None:
        """An agent works and calls a tool; also one that was fenced long ago."""
        run = self.speaking(pick)
        if run is not None and run.kind != "gates":
            if work:
                self.work(run, pick)
            self.say(run, what)

    def say(self, run: Run, what: str) -> None:
        calls: dict[str, tuple[str, dict[str, Any]]] = {
            "done": ("gt_done", {"summary": "done"}),
            "changes": ("gt_request_changes", {"feedback": "not like this"}),
            "mail": ("gt_mail_send", {"to": "overseer", "subject": "hello", "body": ""}),
            "escalate": ("gt_escalate", {"title": "help"}),
            "file": ("gt_bead_create", {"title": "more"}),
        }
        before = self.picture()
        known = tokens.live_run(self.tokens[run.pk])
        if known is None:
            assert Run.objects.get(pk=run.pk).state == "ended"
            return
        with self.refusable():
            if what == "beat":
                runs.heartbeat(run.pk, self.now(), activity_at=self.now())
            else:
                name, arguments = calls[what]
                tools.call(name, known, arguments, self.now(), None)
        # from doors, only facts, and new beads in their first status
        now = self.picture()
        assert {row for row in now if row[1:] != ("open",) or what != "file"} <= before <= now
        assert what == "file" or now == before

    def picture(self) -> set[tuple[Any, ...]]:
        entries = ReviewEntry.objects.values_list("pk", "state", "held", "build_no", "admitted_at")
        return {*entries, *Bead.objects.filter(type="issue").values_list("pk", "status")}

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, code=st.sampled_from([0, 0, 0, 1]), published=st.booleans(), flaky=picks)
    def run_exits(self, pick: int, code: int, published: bool, flaky: int) -> None:
        """A run's command ends and its shim reports."""
        run = self.speaking(pick)
        if run is not None:
            self.exit(run, code, published or pick % 2 == 0, error=flaky == 7, flake=flaky == 6)

    def exit(self, run: Run, code: int = 0, published: bool = True, error: bool = False, flake: bool = False) -> None:
        head = self.heads.pop(run.pk)
        report: dict[str, Any] = {"exit_code": code, "head_sha": "", "published": False}
        if run.kind == "gates":
            bad = any(value.startswith("bad") for value in self.remote.files(run.start_sha).values())
            status = 127 if error else int(bad or flake or self.away)
            raw = {"exit_code": status, "signal": None, "timed_out": False}
            report["steps"] = [{"name": s["name"], "outcome_raw": raw, "output": ""} for s in run.steps]
            report["exit_code"] = status
        else:
            report |= self.work_of(run, head, published)
        token = self.tokens.pop(run.pk)
        assert tokens.live_run(token) or tokens.fenced_run(token)
        with contextlib.suppress(Superseded):
            runs.record_exit(run.pk, report, self.now())

    def work_of(self, run: Run, head: str, arrives: bool) -> dict[str, Any]:
        """What its shim tells of the work; where the runs' branches are on the remote, as one of an older release."""
        if not run.branch:
            return {"head_sha": head, "published": True}
        if run.attempt % 3 == 0:
            if arrives:
                self.remote.push(run.branch, head)
            return {"head_sha": head, "published": arrives, "on_remote": arrives}
        if not arrives:
            return {"work": "unsaved", "error": "the disk is full"}
        known = self.remote.branches.get(run.target, "")
        fresh = not known or not self.remote.is_ancestor(head, known)
        return {"head_sha": head, "published": True, "work": "new" if fresh else "nothing"}

    @precondition(lambda self: self.tokens)
    @rule(pick=picks)
    def shim_dies(self, pick: int) -> None:
        """A shim is killed: nothing is heard of its run again."""
        run = self.speaking(pick)
        if run is not None:
            del self.tokens[run.pk], self.heads[run.pk]
            COUNTS["fault: shim killed"] += 1

    # -- executors --

    @rule(
        pick=picks,
        trouble=st.sampled_from(["", "", "", "unreachable", "refused", "killed", "twice"]),
        when=st.sampled_from(["ls-remote", "fetch", "push", "pushed"]),
    )
    def run_effect(self, pick: int, trouble: str, when: str) -> None:
        """An executor runs an effect; the network fails, or it is killed, before or after it acted."""
        due = list(Effect.objects.filter(state="pending").order_by("pk"))
        if not due:
            return
        effect = choose(due, pick)

        def weather(where: str) -> None:
            if where != when:
                return
            if trouble == "unreachable":
                raise GitFailed("could not resolve host", kind="unreachable")
            if trouble == "refused" and where != "pushed":
                raise GitFailed("couldn't find remote ref", kind="missing_ref")
            if trouble == "killed":
                raise Killed

        self.remote.weather = weather
        if trouble:
            COUNTS[f"fault: effect {trouble}"] += 1
        try:
            with transaction.atomic(), contextlib.suppress(Killed):
                perform.run_effect(effect.pk)
        finally:
            self.remote.weather = lambda where: None
        if trouble == "twice":
            Effect.objects.filter(pk=effect.pk).update(state="pending")
            perform.run_effect(effect.pk)
