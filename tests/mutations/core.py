"""What rules and the pure core promise."""

from __future__ import annotations

from tests.mutations.mutation import RACES, RECOVERY, Mutation

MUTATIONS = (
    Mutation(
        "a need that is over is settled again in each tick, as long as its bead lives",
        "refinery/core/rules/needs.py",
        "    if key in world.needs:\n",
        "    if key in world.escalated:\n",
        "tests/db/test_recovery.py -k keeps_runs_from_starting",
    ),
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
        "gt_done without a change is handed over",
        "refinery/core/rules/beads.py",
        'if bead.purpose == Purpose.WORK and run.work == "nothing":',
        "if False:",
        "tests/db/test_races.py -k g1",
    ),
    Mutation(
        "what an agent has filed is given to an agent without a person's word",
        "refinery/core/readiness.py",
        "if bead.unreleased and (convoy is None or convoy.started_at is not None):",
        "if False:",
        "tests/web/test_filing.py",
    ),
    Mutation(
        "who conflicts stays in its batch while what is ahead of it is built anew",
        "refinery/core/rules/steps.py",
        "current.result != BuildResult.BUILT and not car.first:",
        "self.stage == Stage.CONFLICT and not car.first:",
        "tests/db/test_batches.py",
    ),
    Mutation(
        "rivals are all resolved at once, again after each landing",
        "refinery/core/rules/steps.py",
        "if entry.ties.held_back_by:",
        "if False and entry.ties.held_back_by:",
        "tests/db/test_foresight.py",
    ),
    Mutation(
        "a car that is built ahead is gated at once, beyond the window",
        "refinery/core/rules/steps.py",
        "case Stage.NEEDS_GATES if entry.id in lane.ahead:",
        "case Stage.NEEDS_GATES if False and entry.id in lane.ahead:",
        "tests/acceptance/test_trains.py -k window",
    ),
    Mutation(
        "what git is being asked about lands all the same",
        "refinery/core/rules/lanestate.py",
        "lambda e: uncompared(world, e)",
        "lambda e: False",
        "tests/db/test_foresight.py",
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
        "verdicts of an older head count",
        "refinery/core/entryviews.py",
        "if v.human and v.head == self.head}",
        "if v.human}",
        "tests/unit/test_rules.py tests/web/test_approvals.py",
    ),
    Mutation(
        "gate results of another tree count",
        "refinery/core/gating.py",
        "for g in found if g.tree == candidate.tree}",
        "for g in found}",
        "tests/unit/test_rules.py",
    ),
    Mutation(
        "a lost answer is never asked for again",
        "refinery/core/world.py",
        "return not self.behind and (found is None or found.state != EffectState.PENDING)",
        "return False",
        RECOVERY,
    ),
)
