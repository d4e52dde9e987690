"""A whole town under hypothesis: everything that people, agents, executors and the weather may do, in any order.

The real doors, rules, writers and effect handlers on real PostgreSQL; the remote is in memory, the clock is ours.
After every step all invariants hold, and what is on the remote was gated. At the end the faults stop, agents and
executors do their work, and everything must come to an end or wait for something that a person can see and do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.db import connection, transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agents import runs, tokens
from agents.api import tools
from agents.models import Run
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.errors import GastownError, Superseded
from beads.models import Bead, Convoy, Effect, Fact, Rig, Town
from refinery.core import readiness, stages, standing
from refinery.core.rules import Decision
from refinery.decisions import gatechecks, guards, merge_queue, operators, reviews, towns, work
from refinery.executor import branches as on_remote
from refinery.executor import build, foresee, land, perform
from refinery.models import GateResult, Landing, ReviewEntry
from refinery.tick import invariants, reconciler, snapshot
from refinery.tick.apply import apply_plan
from tests.machine.remote import Killed, Remote

FILES = ("a", "b", "c", "d", "e", "f")  # of a dozen changes some are rivals; with three files all were, for ever
WHO = Actor("test", "alice")
LOSABLE = (
    "candidate.built",
    "lane.foreseen",
    "landing.concluded",
    "branch.seen",
    "run.exited",
    "run.published",
    "run.start_failed",
)
TIMELESS = frozenset({1, 2, 3, 4, 5, 6, 7, 12, 14, 17, 18})  # the others allow for the time that a tick takes
COUNTS: Counter[str] = Counter()  # steps and faults, over all examples of a session

picks = st.integers(min_value=0, max_value=7)
branches = st.sampled_from(["one", "two", "three"])


def choose(rows: list[Any], pick: int) -> Any:
    """One of the rows."""
    return rows[pick % len(rows)]


@dataclass(frozen=True)
class Choices:
    """What a town's config may be."""

    review: bool
    auto: bool
    pr: bool
    clean: bool
    gates: list[str]
    polecats: int
    agents: str
    method: str
    batch: int
    when: str
    filed: str

    def config(self) -> dict[str, Any]:
        """As it is written down."""
        commands: dict[str, Any] = {"polecat": {"command": ["p"]}, "refinery": {"command": ["r"]}}
        if self.agents == "none":
            commands = {}
        elif self.agents == "no refinery":
            commands.pop("refinery")
        return {
            "refinery": {
                "code_review": self.review,
                "auto_merge": self.auto,
                "merge_strategy": "pr" if self.pr else "direct",
                "merge_method": self.method,
                "require_clean_merge": self.clean,
                "gates": [{"name": name, "run": name, "when": self.when} for name in self.gates],
                "batch": {"max": self.batch, "wait": "20s"},
                "allow_no_gates": True,
                "max_rework_cycles": 2,
                "push_retries": 3,
            },
            "dispatch": {"max_polecats": self.polecats, "max_attempts": 3, "backoff": ["10s", "1m"]},
            "agents": commands,
            "limits": {"filed_beads": self.filed, "beads_per_run": 2, "escalations_per_run": 2, "mail_per_run": 2},
        }


class Machine(RuleBasedStateMachine):
    """One town, one rig, one remote."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.random = random.Random(7)
        self.remote = Remote()
        self.stack = contextlib.ExitStack()
        enter = self.stack.enter_context
        enter(transaction.atomic())
        enter(mock.patch("django.utils.timezone.now", self.now))
        enter(mock.patch("secrets.choice", self.random.choice))
        for module in (perform, foresee, build, land, on_remote, guards, merge_queue, towns):
            enter(mock.patch.object(module, "repo_of", lambda rig: self.remote))
        self.tokens: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.heads: dict[str, str] = {}
        self.stale: list[Decision] = []
        self.kept: list[dict[str, Any]] = []  # facts that are late
        self.outside: set[str] = set()
        self.dirty = True  # something was written since `holds` last looked
        self.seen: dict[str, str] = {}  # branch → head, as it was when all its commits were found in order
        enter(connection.execute_wrapper(self._watch))
        self.number = 0
        self.away = False  # what the gates need

    def now(self) -> dt.datetime:
        """The clock: never the same moment twice."""
        self.clock += dt.timedelta(microseconds=100)
        return self.clock

    def _watch(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.dirty = self.dirty or sql.startswith(("INSERT", "UPDATE", "DELETE"))
        return execute(sql, params, many, context)

    def teardown(self) -> None:
        """End well, then forget everything."""
        try:
            if hasattr(self, "town"):
                self.converge()
                self.holds()
        finally:
            transaction.set_rollback(True)
            self.stack.close()

    @initialize(
        choices=st.builds(
            Choices,
            review=st.booleans(),
            auto=st.booleans(),
            pr=st.booleans(),
            clean=st.booleans(),
            gates=st.sampled_from([["test"], ["test", "lint"], []]),
            polecats=st.integers(1, 3),
            agents=st.sampled_from(["all", "all", "none", "no refinery"]),
            method=st.sampled_from(["squash", "merge"]),
            batch=st.sampled_from([1, 2, 4]),
            when=st.sampled_from(["landing", "landing", "both"]),
            filed=st.sampled_from(["staged", "staged", "dispatch"]),
        )
    )
    def open(self, choices: Choices) -> None:
        """A town with one of many configs."""
        self.gated = bool(choices.gates)
        self.remote.commit("main", dict.fromkeys(FILES, "0"))
        self.outside.add(self.remote.branches["main"])
        self.town: Town = ledger.create_town("main", configs.validate(choices.config()))
        self.rig: Rig = ledger.create_rig(self.town, "proj", "/nowhere.git", "main")

    # -- people --

    @contextlib.contextmanager
    def refusable(self) -> Iterator[None]:
        """What a door may refuse, in one clear error; nothing half-done is left."""
        try:
            with transaction.atomic():
                yield
        except GastownError as error:
            assert error.message
            COUNTS["refused"] += 1

    def reload(self) -> None:
        self.town.refresh_from_db()
        self.rig.refresh_from_db()

    def change(self, pick: int) -> dict[str, str]:
        """A change of one file; one in five breaks the gate."""
        self.number += 1
        bad = "bad" if pick % 5 == 4 else ""
        return {FILES[(pick + self.number) % len(FILES)]: f"{bad}{self.number}"}

    @rule(pick=picks, branch=branches, priority=st.integers(0, 4), feature=st.booleans())
    def submit(self, pick: int, branch: str, priority: int, feature: bool) -> None:
        """Somebody pushes a branch and submits it; sometimes to a convoy's feature branch."""
        targets = [b for b in self.remote.branches if b.startswith("convoy/")] if feature else []
        target = targets[0] if targets else "main"
        fresh = branch not in self.remote.branches or pick % 2
        self.remote.commit(branch, self.change(pick), start="main" if fresh else None)
        with self.refusable():
            merge_queue.submit(self.rig, merge_queue.Submission(branch, target=target, priority=priority), by=WHO)

    @rule(branch=branches)
    def submit_again(self, branch: str) -> None:
        """The same branch as it is."""
        with self.refusable():
            merge_queue.submit(self.rig, merge_queue.Submission(branch), by=WHO)

    @rule(branch=branches, pick=picks)
    def push_branch(self, branch: str, pick: int) -> None:
        """A new head that nobody submits."""
        if branch in self.remote.branches:
            self.remote.commit(branch, self.change(pick))

    @rule(branch=branches)
    def delete_branch(self, branch: str) -> None:
        """A branch vanishes."""
        self.remote.branches.pop(branch, None)

    @rule(pick=picks)
    def push_target(self, pick: int) -> None:
        """Somebody pushes to the default branch directly."""
        self.outside.add(self.remote.commit("main", {FILES[pick % len(FILES)]: f"outside{self.now():%f}"}))

    @rule(after=st.booleans(), pick=picks)
    def sling(self, after: bool, pick: int) -> None:
        """A bead, perhaps after another."""
        beads = list(Bead.objects.filter(type="issue", purpose="work").order_by("created_at"))
        with self.refusable():
            blockers = [choose(beads, pick)] if after and beads else []
            work.sling(self.rig, by=WHO, title="Work", body="", priority=pick % 5, after=blockers)

    @rule(pick=picks, on=picks, what=st.sampled_from(["block", "block", "unblock"]))
    def depend(self, pick: int, on: int, what: str) -> None:
        """Somebody lets a bead wait for another one, or no longer."""
        beads = list(Bead.objects.filter(type="issue").order_by("created_at"))
        if len(beads) > 1:
            door = work.block_bead if what == "block" else work.unblock_bead
            with self.refusable():
                door(choose(beads, pick), by=WHO, on=choose(beads, on))

    @rule(pick=picks, on=picks, priority=st.integers(0, 4), own=st.booleans())
    def submit_stacked(self, pick: int, on: int, priority: int, own: bool) -> None:
        """Somebody builds upon a branch that is in the queue; perhaps for a bead of the ledger."""
        below = list(ReviewEntry.objects.filter(state="active", target="main").order_by("created_at"))
        free = list(Bead.objects.filter(type="issue", purpose="work", status="open").order_by("created_at"))
        if not below:
            return
        head = choose(below, on).head_sha
        files = {**self.remote.files(head), **self.change(pick)}
        self.remote.push("stacked", self.remote.make(files, [head], salt=str(self.number)))
        with self.refusable():
            bead = choose(free, pick) if own and free else None
            wanted = merge_queue.Submission("stacked", target="main", bead=bead, priority=priority)
            merge_queue.submit(self.rig, wanted, by=WHO)

    @rule(size=st.integers(1, 3), chained=st.booleans(), staged=st.booleans(), once=st.booleans())
    def convoy(self, size: int, chained: bool, staged: bool, once: bool) -> None:
        """A convoy."""
        plan = [
            {
                "key": str(n),
                "rig": self.rig,
                "title": f"Part {n}",
                "body": "",
                "priority": 2,
                "after": [str(n - 1)] if chained and n else [],
            }
            for n in range(size)
        ]
        mode = "review-then-land" if once else "review-and-merge"
        self.reload()
        with self.refusable():
            work.create_convoy(self.rig, by=WHO, title="Convoy", mode=mode, plan=plan, staged=staged)

    @rule(pick=picks, what=st.sampled_from(["start", "close", "retry"]))
    def steer_convoy(self, pick: int, what: str) -> None:
        """A person steers a convoy."""
        convoys = list(Convoy.objects.select_related("bead__town", "rig").order_by("bead__created_at"))
        if convoys:
            door = {"start": work.start_convoy, "close": work.close_convoy, "retry": work.retry_convoy}[what]
            with self.refusable():
                door(choose(convoys, pick), by=WHO)

    @rule(pick=picks, what=st.sampled_from(["cancel", "retry", "confirm", "release", "release"]))
    def steer_bead(self, pick: int, what: str) -> None:
        """A person cancels, retries or releases a bead, or says that it needed nothing."""
        beads = list(Bead.objects.filter(type="issue").order_by("created_at"))
        if what == "release":
            beads = [bead for bead in beads if bead.unreleased]
        if beads:
            bead = choose(beads, pick)
            with self.refusable():
                match what:
                    case "cancel":
                        work.cancel_bead(bead, by=WHO)
                    case "retry":
                        work.retry_bead(bead, by=WHO)
                    case "confirm":
                        work.confirm_bead(bead, by=WHO)
                    case "release":
                        work.release_bead(bead, by=WHO)

    @rule(
        pick=picks,
        what=st.sampled_from(
            ["approve", "approve", "approve later", "changes", "reject", "retry", "promote", "land now"]
        ),
    )
    def steer_entry(self, pick: int, what: str) -> None:
        """A person reviews or steers an entry."""
        entries = list(ReviewEntry.objects.select_related("rig__town", "bead", "source").order_by("created_at"))
        if not entries:
            return
        entry = choose(entries, pick)
        with self.refusable():
            match what:
                case "approve":
                    reviews.approve(entry, by=WHO, head=entry.head_sha)
                case "approve later":
                    reviews.approve(entry, by=WHO, merge_now=False)
                case "changes":
                    reviews.request_changes(entry, by=WHO, body="not like this")
                case "reject":
                    merge_queue.reject(entry, by=WHO, reason="no")
                case "retry":
                    merge_queue.retry_entry(entry, by=WHO)
                case "land now":
                    merge_queue.land_now(entry, by=WHO, reason="it burns", skip_gates=pick % 4 == 0)
                case "promote":
                    merge_queue.promote(entry, by=WHO, priority=pick % 5)

    @rule()
    def check_gates(self) -> None:
        """Somebody wants to know whether the gates pass on the target itself."""
        self.reload()
        with self.refusable():
            gatechecks.ask(self.rig, by=WHO)

    @rule(away=st.booleans())
    def the_host_breaks(self, away: bool) -> None:
        """What the gates need on the host goes, or comes back."""
        self.away = away

    @rule(what=st.sampled_from(["pause", "resume", "park", "unpark", "protect", "unprotect"]))
    def steer_town(self, what: str) -> None:
        """A person pauses, parks, or protects the branch."""
        self.reload()
        match what:
            case "pause":
                towns.pause(self.town, by=WHO)
            case "resume":
                towns.resume(self.town, by=WHO)
            case "park":
                towns.park(self.rig, by=WHO)
            case "unpark":
                towns.unpark(self.rig, by=WHO)
            case _:
                self.remote.protected = what == "protect"

    @rule(pick=picks)
    def stop_run(self, pick: int) -> None:
        """A person stops a run."""
        live = list(Run.objects.live().order_by("created_at"))
        if live:
            with self.refusable():
                operators.stop_run(choose(live, pick), by=WHO)

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

    # -- facts, ticks, time --

    @rule(pick=picks, fate=st.sampled_from(["lost", "doubled", "late"]))
    def tamper(self, pick: int, fate: str) -> None:
        """An observation gets lost, comes twice, or comes late, behind others."""
        facts = list(Fact.objects.filter(processed_at=None, kind__in=LOSABLE).order_by("pk"))
        if not facts:
            return
        fact = choose(facts, pick)
        COUNTS[f"fault: fact {fate}"] += 1
        copy = {"kind": fact.kind, "subject": fact.subject, "payload": fact.payload, "actor": fact.actor}
        if fate != "doubled":
            fact.delete()
        if fate == "doubled":
            Fact.objects.create(town=self.town, **copy)
        elif fate == "late":
            self.kept.append(copy)

    @precondition(lambda self: self.kept)
    @rule(pick=picks)
    def late_fact(self, pick: int) -> None:
        """What was late arrives."""
        if self.kept:
            Fact.objects.create(town=self.town, **self.kept.pop(pick % len(self.kept)))

    @rule()
    def tick(self) -> None:
        """One tick."""
        self.reload()
        report = reconciler.tick(self.town, self.now())
        assert report.failed == 0

    @rule()
    def plan(self) -> None:
        """Another process looks, and decides."""
        self.stale = reconciler.explain(self.town, self.now())

    @precondition(lambda self: self.stale)
    @rule()
    def stale_plan(self) -> None:
        """What was decided long ago is carried out: each action must see that its time has passed."""
        COUNTS["fault: stale plan"] += 1
        with transaction.atomic():
            done = apply_plan(self.town, self.stale, self.now())
        assert done.failed == 0
        self.stale = []

    @rule(seconds=st.sampled_from([1, 20, 61, 90, 400, 4000, 90000]))
    def time_passes(self, seconds: int) -> None:
        """Time passes; living shims beat."""
        self.clock += dt.timedelta(seconds=seconds)

    # -- what always holds --

    @invariant()
    def holds(self) -> None:
        """All invariants, and the truth on the remote."""
        COUNTS["steps"] += 1
        if not hasattr(self, "town") or not self.dirty:
            return
        self.dirty = False
        found = [b for b in invariants.look(self.town, self.clock) if b.invariant.number in TIMELESS]
        assert not found, [(b.invariant.number, b.invariant.sentence, b.subject) for b in found]
        landed = dict(Landing.objects.exclude(state="abandoned").values_list("candidate__sha", "candidate__tree_sha"))
        for branch, sha in self.remote.branches.items():
            if (branch != "main" and not branch.startswith("convoy/")) or self.seen.get(branch) == sha:
                continue
            self.seen[branch] = sha
            for one in self.remote.first_parents(sha):
                if one in self.outside:
                    break
                tree = self.remote.commits[one].tree
                assert landed.get(one) == tree, f"{one} on {branch} was not landed by us"
                waived = Landing.objects.filter(
                    candidate__sha=one, evidence__contains=[{"outcome": "skipped"}]
                ).exists()
                if self.gated and not waived:
                    assert GateResult.objects.filter(tree_sha=tree, outcome="pass").exists(), f"{one} was not gated"
                    assert not any(v.startswith("bad") for v in self.remote.files(one).values())
        for entry in ReviewEntry.objects.filter(state="merged"):
            target = self.remote.branches.get(entry.target)
            if target is not None:
                assert entry.merge_sha in self.remote.ancestors(target), f"{entry.pk} is merged, and not on the target"
        for run in Run.objects.exclude(bead__filed_by=""):
            assert run.bead.released_at is not None, f"{run.pk} works on {run.bead_id}, which nobody has released"
        twice = Counter(Landing.objects.filter(state="landed").values_list("entry", flat=True))
        assert not twice or max(twice.values()) == 1, twice

    def converge(self) -> None:
        """The faults stop; executors, runners and agents do their work. Everything ends or waits for a person."""
        self.remote.protected = False
        self.reload()
        if self.away:  # left so until everybody waits for it; then somebody mends it
            self.rest()
            waits = [e for e in snapshot.load(self.town, self.clock).entries if e.ground.check]
            assert all(e.ground.check.broken for e in waits if e.ground.check)
            self.away = False
            with self.refusable():
                gatechecks.ask(self.rig, by=WHO)
        towns.resume(self.town, by=WHO)
        towns.unpark(self.rig, by=WHO)
        self.tokens.clear()  # whoever is in work now is killed: a reboot
        self.heads.clear()
        self.secrets.clear()
        self.rest()
        self.all_explained()

    def rest(self) -> None:
        """Everybody does what there is to do, and time passes, until nothing happens any more."""
        quiet = 0
        for _ in range(400):
            moved = self.turn()
            quiet = 0 if moved else quiet + 1
            if quiet == 1:
                self.clock += dt.timedelta(minutes=2)
            elif quiet > 1:
                self.clock += dt.timedelta(hours=3)
            if quiet > 3:
                break
        else:
            raise AssertionError("it does not come to rest")

    def turn(self) -> bool:
        """Everybody does what there is to do, once; True when that was anything."""
        self.reload()
        reports = [reconciler.tick(self.town, self.now())]
        while reports[-1].changed:
            assert len(reports) < 20, [dict(r.actions) for r in reports]
            reports.append(reconciler.tick(self.town, self.now()))
        due = list(Effect.objects.filter(state="pending", next_try_at__lte=self.clock))
        for effect in due:
            perform.run_effect(effect.pk)
        picked = False
        while found := runs.pick("runner", self.now()):
            picked = True
            self.secrets[found[0].pk] = found[1]
            with contextlib.suppress(Superseded):
                self.claim(found[0].pk)
        for run_id in sorted(self.tokens):
            run = Run.objects.select_related("town", "agent", "bead").get(pk=run_id)
            if run.state == "running" and run.kind != "gates":
                self.work(run, 0)
                self.say(run, "done")
            self.exit(run)
        return len(reports) > 1 or bool(due) or picked

    def all_explained(self) -> None:
        """Nothing waits without a reason that a person can see and do something about."""
        world = snapshot.load(self.town, self.clock)
        stuck: list[Any] = []
        for entry in world.entries:
            stands = standing.standing(entry, world.rigs[entry.rig], world.now)
            if stages.phase(stands.stage, admitted=entry.admitted) not in ("awaiting_human", "blocked"):
                stuck.append((entry.id, stands))
            if stands.stage == "blocked" and entry.waiting_for:
                assert all(b.id in {x.id for x in world.beads} for b in entry.waiting_for)
            if stands.stage == "excused":
                assert world.check[entry.ground.check.id].entry.held if entry.ground.check else False
        for check in world.checks:
            assert check.entry.held, check.entry
        told = {d.subject: d for d in reconciler.explain(self.town, self.clock)}
        for bead in world.beads:
            decision = told[f"bead {bead.id}"]
            if decision.rule in ("in-review", "publish-failed"):
                continue
            wait = readiness.bead_wait(world, bead)
            if wait and "waits for a person to release it" in wait:
                assert wait == bead.unreleased or bead.waiting_for
            reasons = ("waits for", "its convoy is staged", "has no agents.polecat", "its convoy's feature branch")
            if not wait or not any(r in wait for r in reasons):
                stuck.append((bead.id, decision))
        for convoy in world.convoys:
            decision = told[f"convoy {convoy.id}"]
            if decision.rule not in ("staged", "needs-attention", "active", "landing", "cut-failed", "observe-failed"):
                stuck.append((convoy.id, decision))
        live = list(Run.objects.live())
        assert not stuck and not live, (stuck, live, list(Fact.objects.filter(processed_at=None)))
