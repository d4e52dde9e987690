"""Breaks the project on purpose, one safeguard at a time, and names the test that notices. `python -m tests.mutations`

Each mutation removes one compare-and-swap, constraint, lease check or fence from a copy of the project and runs the
tests that should fail. A mutation that nothing notices is the result that matters: the exit code is then 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """What is removed: in `file`, `old` becomes `new`. `tests`: where it should be noticed."""

    what: str
    file: str
    old: str
    new: str
    tests: str


RACES, RECOVERY = "tests/db/test_races.py", "tests/db/test_recovery.py"
MUTATIONS = (
    Mutation(
        "the mayor is started for a second request while it is at work",
        "refinery/core/rules/mayor.py",
        "    if at_work:\n",
        "    if False:\n",
        "tests/unit/test_mayor_rules.py -k one_at_a_time",
    ),
    Mutation(
        "what the mayor staged before it died is planned again",
        "refinery/core/rules/mayor.py",
        "    if made.convoys or made.beads:\n",
        "    if made.convoys and run.outcome == RunOutcome.DONE:\n",
        "tests/db/test_mayor.py -k costs_no_attempt",
    ),
    Mutation(
        "a form that is sent twice asks the mayor twice",
        "refinery/decisions/mayor.py",
        "        if key and (known := inbox.payload_of(key)):\n",
        "        if key and (known := inbox.payload_of('')):\n",
        "tests/web/test_mayor.py -k sent_twice",
    ),
    Mutation(
        "a bead at work is changed under its agent",
        "beads/ledger.py",
        "filter(pk=bead.pk, status=BeadStatus.OPEN).update(**said",
        "filter(pk=bead.pk).update(**said",
        "tests/db/test_mayor.py -k edits",
    ),
    Mutation(
        "a run's token opens the doors of its shim",
        "agents/runs.py",
        "found.filter(shim_hash=None).filter(Q(token_hash=digest(secret))",
        "found.filter(Q(token_hash=digest(secret))",
        "tests/acceptance/test_git_door.py -k s10",
    ),
    Mutation(
        "a shim's secret opens the doors of another run",
        "agents/api/views.py",
        "        if run.pk != run_id:\n",
        "        if False:\n",
        "tests/web/test_entrance.py -k r8",
    ),
    Mutation(
        "a run's head is what its report says",
        "agents/work.py",
        "arrived = door.head_of(mirror, run.pk)",
        'arrived = str(report.get("head_sha") or "")',
        "tests/acceptance/test_git_door.py -k s10",
    ),
    Mutation(
        "commits are let in without what they need",
        "agents/runtime/door.py",
        "    if complete.returncode:\n",
        "    if False:\n",
        "tests/acceptance/test_workspaces.py -k half",
    ),
    Mutation(
        "a repository inside the repository passes the door",
        "agents/runtime/door.py",
        "problems = policy.refusals(mirror, base, sha, env=env)",
        "problems = list[str]()",
        "tests/acceptance/test_workspaces.py -k g11",
    ),
    Mutation(
        "what a workspace borrows is pruned while it lives",
        "agents/runtime/workspace.py",
        "        _make_tree(space, plan, tags)\n",
        "        _make_tree(space, plan, tags)\n        release(space)\n",
        "tests/acceptance/test_workspaces.py -k pruned",
    ),
    Mutation(
        "a kept tree is not compared with the candidate before the first gate",
        "agents/runtime/trees.py",
        "    look = _compare(slot, view, candidate, stamp, began)\n    if look.faults",
        "    look = _Look()\n    if look.faults",
        "tests/acceptance/test_trees.py",
    ),
    Mutation(
        "a file that a gate has changed and whose times it has put back is kept",
        "agents/runtime/trees.py",
        "                    and not stamp < told.st_ctime_ns <= began\n",
        "",
        "tests/acceptance/test_trees.py",
    ),
    Mutation(
        "what is inside may make user namespaces of its own",
        "agents/runtime/box.py",
        '[*([] if self.nested else ["--disable-userns"]), "--new-session"',
        '["--new-session"',
        "tests/acceptance/test_sandbox.py -k s2",
    ),
    Mutation(
        "what is inside keeps capabilities",
        "agents/runtime/box.py",
        '"--cap-drop", "ALL", "--unshare-pid"',
        '"--cap-add", "ALL", "--unshare-pid"',
        "tests/acceptance/test_sandbox.py -k s2",
    ),
    Mutation(
        "a run goes on without a sandbox where none can be started",
        "agents/runtime/sandbox.py",
        "    if found.kind != BUBBLEWRAP:\n        raise NoSandbox",
        "    if False:\n        raise NoSandbox",
        "tests/acceptance/test_sandbox.py -k no_sandbox",
    ),
    Mutation(
        "the proxy leads to private addresses",
        "agents/runtime/proxy.py",
        "wrong = not_public(address) or",
        'wrong = "" and not_public(address) or',
        "tests/acceptance/test_sandbox.py -k private_address",
    ),
    Mutation(
        "a name that the network does not allow is reached all the same",
        "agents/runtime/proxy.py",
        'if self._policy != ("open",) and not any(',
        "if False and not any(",
        "tests/acceptance/test_sandbox.py -k private_address",
    ),
    Mutation(
        "gt_done without a change is handed over",
        "refinery/core/rules/beads.py",
        'if bead.purpose == Purpose.WORK and run.work == "nothing":',
        "if False:",
        "tests/db/test_races.py -k g1",
    ),
    Mutation(
        "calls of a run in parallel pass its limits",
        "agents/runs.py",
        "    run = _locked(run_id)\n    if run is None or run.state != RunState.RUNNING or run.exited_at is not None:",
        "    run = Run.objects.select_related('town', 'rig', 'bead', 'agent').filter(pk=run_id).first()\n"
        "    if run is None or run.state != RunState.RUNNING or run.exited_at is not None:",
        "tests/db/test_filing.py -k budget",
    ),
    Mutation(
        "whoever guesses passwords is never locked out",
        "gastown_site/lockout.py",
        "            super().authenticate(request, **credentials)\n",
        "            return\n",
        "tests/web/test_entrance.py -k s6",
    ),
    Mutation(
        "one address may guess at many names",
        "gastown_site/lockout.py",
        "return max(pair, PAIR_LIMIT) if address >= ADDRESS_LIMIT else pair",
        "return pair",
        "tests/web/test_entrance.py -k s6",
    ),
    Mutation(
        "a database is left for an empty one where its way is closed",
        "gastown_site/database.py",
        '    if _server_user() is None or (here / "PG_VERSION").exists():',
        "    if _server_user() is None:",
        "tests/acceptance/test_private.py -k database",
    ),
    Mutation(
        "what an old run has written into a mirror's config outlives the upgrade",
        "agents/runner.py",
        "        self._own_mirrors()\n",
        "",
        "tests/acceptance/test_upgrade.py",
    ),
    Mutation(
        "shims of the last release are taken for dead",
        "agents/runtime/forkserver.py",
        'any(word.rpartition(b"/")[2] == SCRIPT.name.encode() for word in words)',
        "str(SCRIPT).encode() in words",
        "tests/acceptance/test_upgrade.py",
    ),
    Mutation(
        "a shim of the last release is a stranger",
        "agents/api/views.py",
        "own_secret=body.secrets > 1",
        "own_secret=True",
        "tests/web/test_tools.py -k last_release",
    ),
    Mutation(
        "what an agent has filed is given to an agent without a person's word",
        "refinery/core/readiness.py",
        "if bead.unreleased and (convoy is None or convoy.started_at is not None):",
        "if False:",
        "tests/web/test_filing.py",
    ),
    Mutation(
        "a run files without end",
        "agents/filing.py",
        "if made + more > most:",
        "if False:",
        "tests/web/test_filing.py",
    ),
    Mutation(
        "agents in parallel pass the town's day",
        "agents/filing.py",
        "    _lock(run.town)\n",
        "",
        "tests/db/test_filing.py",
    ),
    Mutation(
        "a release that comes twice is noted twice, in the second name",
        "beads/ledger.py",
        "waits = Bead.objects.filter(pk=bead.pk, released_at=None)",
        "waits = Bead.objects.filter(pk=bead.pk)",
        "tests/web/test_filing.py",
    ),
    Mutation(
        "what does not stand on the target is pushed over it",
        "refinery/git/repo.py",
        "if answer.returncode == 1:",
        "if False and answer.returncode == 1:",
        "tests/acceptance/test_git.py",
    ),
    Mutation(
        "a mirror that was replaced is read through an old reader",
        "refinery/git/objects.py",
        "if mirror is None or mirror.fresh():",
        "if mirror is None or mirror.git.in_step():",
        "tests/acceptance/test_reading.py -k replaced",
    ),
    Mutation(
        "half of an object is taken for all of it",
        "refinery/git/objects.py",
        "        if len(content) != size:\n            raise EOFError",
        "",
        "tests/acceptance/test_reading.py -k cut_off",
    ),
    Mutation(
        "merges are made without the target's attributes",
        "refinery/git/attributes.py",
        "    if not files:\n        return mirror.git",
        "    if True:\n        return mirror.git",
        "tests/acceptance/test_merge_fidelity.py -k g15",
    ),
    Mutation(
        "a repository inside the repository lands without its files",
        "refinery/git/candidates.py",
        "if reasons := policy.refusals(self.path, base_tree, built.tree, touched):",
        "if reasons := list[str]():",
        "tests/acceptance/test_merge_fidelity.py -k g11",
    ),
    Mutation(
        "a rebase loses what a merge commit brings itself",
        "refinery/git/candidates.py",
        "        self._nothing_lost(commits)\n",
        "",
        "tests/acceptance/test_merge_fidelity.py -k g14",
    ),
    Mutation(
        "another's config decides where a push goes",
        "agents/runtime/gitcmd.py",
        "if config.is_symlink() or not config.is_file() or config.read_bytes() != _MIRROR_CONFIG:",
        "if not config.exists():",
        "tests/acceptance/test_merge_fidelity.py -k s8",
    ),
    Mutation(
        "gate results of one rig count in another",
        "refinery/tick/snapshot.py",
        "same = trees.get((cast(Any, result).of_rig, result.tree_sha), ())",
        "same = [x for (_, tree), of in trees.items() for x in of if tree == result.tree_sha]",
        "tests/db/test_rigs.py",
    ),
    Mutation(
        "what a fetch that was cut off has left is taken for the commit",
        "agents/runtime/gitcmd.py",
        'asked = ["rev-list", "--objects", "--quiet", sha, "--not", "--all"]',
        'asked = ["cat-file", "-e", sha]',
        "tests/acceptance/test_git.py",
    ),
    Mutation(
        "nobody notices the end of a shim whose server was killed",
        "agents/runtime/forkserver.py",
        "self._server.lost(self) and not alive(self.pid)",
        "self._server.lost(self) and False",
        "tests/acceptance/test_forkserver.py -k noticed",
    ),
    Mutation(
        "what a change has left in a cache serves others before it has landed",
        "agents/runtime/caches.py",
        'if _told(place, number).get("of") in changes:',
        "if True:",
        "tests/unit/test_caches.py",
    ),
    Mutation(
        "who conflicts stays in its batch while what is ahead of it is built anew",
        "refinery/core/rules/entries.py",
        "current.result != BuildResult.BUILT and not car.first:",
        "stage == Stage.CONFLICT and not car.first:",
        "tests/db/test_batches.py",
    ),
    Mutation(
        "rivals are all resolved at once, again after each landing",
        "refinery/core/rules/entries.py",
        "if entry.ties.yields:",
        "if False and entry.ties.yields:",
        "tests/db/test_foresight.py",
    ),
    Mutation(
        "a car that is built ahead is gated at once, beyond the window",
        "refinery/core/rules/entries.py",
        "case Stage.NEEDS_GATES if entry.id in lane.ahead:",
        "case Stage.NEEDS_GATES if False and entry.id in lane.ahead:",
        "tests/acceptance/test_trains.py -k window",
    ),
    Mutation(
        "a waiver of another head lets a candidate land without gates",
        "refinery/store/landings.py",
        "Waiver.objects.filter(pk=waiver, entry=entry, head_sha=candidate.head_sha)",
        "Waiver.objects.filter(pk=waiver)",
        "tests/db/test_control.py",
    ),
    Mutation(
        "what git is being asked about lands all the same",
        "refinery/core/rules/entries.py",
        "lambda e: uncompared(world, e)",
        "lambda e: False",
        "tests/db/test_foresight.py",
    ),
    Mutation(
        "a late answer about a lane overwrites a newer one",
        "refinery/store/forecasts.py",
        'Forecast.objects.filter(pk=forecast.pk, number=data["number"], answered__lt=data["number"]).update(',
        "Forecast.objects.filter(pk=forecast.pk).update(",
        "tests/db/test_foresight.py",
    ),
    Mutation(
        "what was gated for a batch counts for whoever stands in its way",
        "refinery/store/landings.py",
        "if seal.seal_sha and c.base_sha == seal.seal_sha",
        "if seal.seal_sha",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "a push ends in the midst of a batch",
        "refinery/executor/land.py",
        "while fit and not landings.ends(cars[fit - 1]):",
        "while False:",
        "tests/acceptance/test_batches.py",
    ),
    Mutation(
        "a bead's transition no longer compares its source status",
        "beads/ledger.py",
        "Bead.objects.filter(pk=bead.pk, status=expect).update(**change) != 1",
        "Bead.objects.filter(pk=bead.pk).update(**change) != 1",
        RACES,
    ),
    Mutation(
        "a run may be ended from any state",
        "agents/runs.py",
        "Run.objects.filter(pk=run_id, state=expect).update(",
        "Run.objects.filter(pk=run_id).update(",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "ending a run leaves its token alive",
        "agents/runs.py",
        "        token_hash=None,\n",
        "",
        RACES,
    ),
    Mutation(
        "a claim after the deadline is accepted",
        "agents/runs.py",
        "            and now <= run.start_deadline\n",
        "",
        RACES,
    ),
    Mutation(
        "a second claim is accepted",
        "agents/runs.py",
        "            run.state == RunState.STARTING\n            and run.claimed_at is None\n",
        "            run.state in (RunState.STARTING, RunState.RUNNING)\n",
        RACES,
    ),
    Mutation(
        "a claim needs no secret",
        "agents/runs.py",
        "            and secrets.compare_digest(run.claim_hash, digest(secret))\n",
        "",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "tool calls of an exited run are still heard",
        "agents/runs.py",
        "if run is None or run.state != RunState.RUNNING or run.exited_at is not None:",
        "if run is None:",
        RACES,
    ),
    Mutation(
        "a silent run is fenced before its lease is over",
        "refinery/core/rules/runs.py",
        "world.now > run.lease_until + FENCE_MARGIN",
        "world.now > run.lease_until - FENCE_MARGIN * 2",
        RACES,
    ),
    Mutation(
        "a run without a lease date is taken for dead",
        "refinery/core/rules/runs.py",
        "run.lease_until is not None and world.now > run.lease_until + FENCE_MARGIN",
        "run.lease_until is None or world.now > run.lease_until + FENCE_MARGIN",
        "tests/unit/test_rules.py",
    ),
    Mutation(
        "a fenced run's heartbeat renews its lease",
        "agents/runs.py",
        "        if run is None or run.state != RunState.RUNNING:\n"
        '            raise Superseded(f"run {run_id} has ended")\n'
        "        run.heartbeat_at",
        "        assert run is not None\n        run.heartbeat_at",
        RACES,
    ),
    Mutation(
        "a run's second result overwrites its first",
        "agents/runs.py",
        'Run.objects.filter(pk=run_id, result="").update(result',
        "Run.objects.filter(pk=run_id).update(result",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "an entry's decision no longer compares what it was decided on",
        "refinery/store/entries.py",
        "ReviewEntry.objects.active().filter(pk=entry_id, **expect).update(**change) != 1",
        "ReviewEntry.objects.filter(pk=entry_id).update(**change) != 1",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "an intent to push is written for a candidate that was replaced",
        "refinery/store/landings.py",
        'head_sha=candidate.head_sha, build_no=candidate.build_no, held=""',
        'held=""',
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "an intent to push asks for no green gates",
        "refinery/store/landings.py",
        "not (sealed or trees == {candidate.tree_sha})",
        "False",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "an intent that is being pushed can be withdrawn",
        "refinery/store/landings.py",
        "changed = Landing.objects.intended().filter(pk=push).update(",
        "changed = Landing.objects.filter(pk=push).update(",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "a withdrawn intent is pushed all the same",
        "refinery/store/landings.py",
        "return Landing.objects.pushing().filter(pk=landing_id).exists()",
        "return True",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "verdicts of an older head count",
        "refinery/core/entryviews.py",
        "if v.human and v.head == self.head}",
        "if v.human}",
        "tests/unit/test_rules.py tests/web/test_reviews.py",
    ),
    Mutation(
        "gate results of another tree count",
        "refinery/core/gating.py",
        "for g in found if g.tree == candidate.tree}",
        "for g in found}",
        "tests/unit/test_rules.py",
    ),
    Mutation(
        "the push takes no lease on where the target was",
        "refinery/git/repo.py",
        'ref = f"refs/heads/{check_branch(target)}"\n        lease = f"--force-with-lease={ref}:{check_sha(expected)}"',
        'ref = f"refs/heads/{check_branch(target)}"\n        lease = "--force"',
        "tests/acceptance/test_git.py",
    ),
    Mutation(
        "one bead may have two live runs",
        "agents/migrations/0001_initial.py",
        "one_live_agent_run_per_bead",
        "",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "one agent may have two live runs",
        "agents/migrations/0007_parallel_reviews.py",
        "models.Q(('kind', 'refinery'), _negated=True)",
        "models.Q(('kind', 'nobody'))",
        RACES,
    ),
    Mutation(
        "a refinery may have more live runs than it may",
        "agents/runs.py",
        "        if live >= at_most:\n",
        "        if False:\n",
        "tests/db/test_parallel_reviews.py",
    ),
    Mutation(
        "a branch may have two active entries",
        "refinery/migrations/0001_initial.py",
        "one_active_entry_per_branch",
        "",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "a convoy may have two active landings",
        "refinery/migrations/0001_initial.py",
        "one_active_landing_entry_per_convoy",
        "",
        RACES,
    ),
    Mutation(
        "an effect may be run by two at once",
        "beads/outbox.py",
        "    if not (row and row[0]):\n        yield None\n        return\n",
        "",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "facts are applied twice",
        "beads/inbox.py",
        "Fact.objects.filter(pk__in=done).update(processed_at=now)",
        "pass",
        RACES,
    ),
    Mutation(
        "a lost answer is never asked for again",
        "refinery/core/world.py",
        "return not self.behind and (found is None or found.state != EffectState.PENDING)",
        "return False",
        RECOVERY,
    ),
)


def _mutate(root: Path, mutation: Mutation) -> None:
    path = root / mutation.file
    text = path.read_text()
    if mutation.file.endswith("0001_initial.py"):
        text = _without_constraint(text, mutation.old)
    else:
        assert text.count(mutation.old) >= 1, f"{mutation.what}: {mutation.file} has changed, mend this list"
        text = text.replace(mutation.old, mutation.new, 1)
    path.write_text(text)


def _without_constraint(text: str, name: str) -> str:
    """The migration without the operation that makes this constraint."""
    at = text.index(name)
    begin = text.rindex("        migrations.AddConstraint(", 0, at)
    end = text.index("\n        ),\n", at) + len("\n        ),\n")
    return text[:begin] + text[end:]


def main() -> int:
    """All mutations, or those whose description contains the given words."""
    wanted = " ".join(sys.argv[1:])
    missed, tried, began = [], 0, time.monotonic()
    for mutation in MUTATIONS:
        if wanted not in mutation.what:
            continue
        tried += 1
        with tempfile.TemporaryDirectory(prefix="gastown-mutant-") as scratch:
            os.chmod(scratch, 0o755)
            root = Path(scratch) / "project"
            ignore = shutil.ignore_patterns(".venv", ".uv", ".git", "*.pyc", "__pycache__", "screenshots")
            shutil.copytree(ROOT, root, ignore=ignore)
            (root / ".git").symlink_to(ROOT / ".git")  # the last release is read from the history
            _mutate(root, mutation)
            env = {k: v for k, v in os.environ.items() if not k.startswith("GASTOWN_")}
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider"]
            done = subprocess.run(
                [*command, *mutation.tests.split()], cwd=root, env=env, capture_output=True, text=True, check=False
            )
        failed = [x.split(" - ")[0] for x in done.stdout.splitlines() if x.startswith(("FAILED tests", "ERROR tests"))]
        noticed = failed[0].removeprefix("FAILED ") if failed else ""
        print(f"{'noticed' if noticed else 'MISSED '}  {mutation.what}: {noticed or done.stdout[-200:]}", flush=True)
        if not noticed:
            missed.append(mutation.what)
    print(f"mutations: {tried}, missed: {len(missed)}, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
