"""A whole town under hypothesis: everything that people, agents, executors and the weather may do, in any order.

The real doors, rules, writers and effect handlers on real PostgreSQL; the remote is in memory, the clock is ours.
After every step all invariants hold, and what is on the remote was gated. At the end the faults stop, agents and
executors do their work, and everything must come to an end or wait for something that a person can see and do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from agents import runs
from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.errors import Superseded
from beads.models import Effect, Fact
from refinery.core import readiness, stages, standing
from refinery.decisions import gatechecks, towns
from refinery.executor import perform
from refinery.models import GateResult, Landing, ReviewEntry
from refinery.tick import invariants, reconciler, snapshot
from refinery.tick.apply import apply_plan
from tests.machine.crew import Crew
from tests.machine.ground import COUNTS, FILES, WHO, choose, picks
from tests.machine.people import People

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


@dataclass(frozen=True)
class Chosen:
    """What differs from town to town."""

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


configs_chosen = st.builds(
    Chosen,
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


class Machine(People, Crew):
    """One town with all who are in it, and what must always hold."""

    def teardown(self) -> None:
        """End well, then forget everything."""
        try:
            if hasattr(self, "town"):
                self.converge()
                self.holds()
        finally:
            transaction.set_rollback(True)
            self.stack.close()

    @initialize(chosen=configs_chosen)
    def open(self, chosen: Chosen) -> None:
        """A town with one of many configs."""
        commands: dict[str, Any] = {"polecat": {"command": ["p"]}, "refinery": {"command": ["r"]}}
        if chosen.agents == "none":
            commands = {}
        elif chosen.agents == "no refinery":
            commands.pop("refinery")
        config = {
            "refinery": {
                "code_review": chosen.review,
                "auto_merge": chosen.auto,
                "merge_strategy": "pr" if chosen.pr else "direct",
                "merge_method": chosen.method,
                "require_clean_merge": chosen.clean,
                "gates": [{"name": name, "run": name, "when": chosen.when} for name in chosen.gates],
                "batch": {"max": chosen.batch, "wait": "20s"},
                "allow_no_gates": True,
                "max_rework_cycles": 2,
                "push_retries": 3,
            },
            "dispatch": {"max_polecats": chosen.polecats, "max_attempts": 3, "backoff": ["10s", "1m"]},
            "agents": commands,
            "limits": {"filed_beads": chosen.filed, "beads_per_run": 2, "escalations_per_run": 2, "mail_per_run": 2},
        }
        self.gated = bool(chosen.gates)
        self.remote.commit("main", dict.fromkeys(FILES, "0"))
        self.outside.add(self.remote.branches["main"])
        self.town = ledger.create_town("main", configs.validate(config))
        self.rig = ledger.create_rig(self.town, "proj", "/nowhere.git", "main")

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
