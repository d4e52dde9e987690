"""What gates gave, and the pushes that came of it."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from agents.models import Run
from beads.models import Rig
from refinery.core.states import OPEN_LANDING, GateOutcome, LandingState
from refinery.models.entries import Candidate, ReviewEntry

_OPEN = Q(state__in=OPEN_LANDING)


class GateResult(models.Model):
    """One gate's outcome on one tree. `outcome`: pass, fail, error (127, signal, time-out, broken host)."""

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="gate_results")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="gate_results")
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="gate_results")
    tree_sha = models.CharField(max_length=64)
    gate = models.CharField(max_length=200)
    command = models.TextField()
    outcome = models.CharField(max_length=10)
    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.IntegerField(null=True, blank=True)
    timed_out = models.BooleanField(default=False)
    duration_ms = models.PositiveIntegerField(default=0)
    output = models.TextField(blank=True, help_text="the end of its output")
    failures = models.JSONField(default=list, blank=True, help_text="[{file, line, text}]")
    telling = models.CharField(max_length=250, blank=True, help_text="one line that says why it did not pass")
    attempts = models.JSONField(
        default=list, blank=True, help_text="[{outcome, exit_code, signal, timed_out, duration_ms, tests}], each try"
    )
    tests = models.JSONField(default=dict, blank=True, help_text="{total, failed, skipped, failures, notes}, by JUnit")
    flaky = models.BooleanField(default=False, help_text="it, or a test of it, has passed and failed on this tree")
    flaky_tests = models.JSONField(default=list, blank=True, help_text="the tests that have")
    sandbox = models.CharField(max_length=20, blank=True)
    remedy = models.CharField(max_length=400, blank=True, help_text="what is missing where it ran, and what mends that")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["tree_sha"], name="gate_result_of_tree")]
        constraints = [
            models.UniqueConstraint(fields=["run", "gate"], name="one_result_per_gate_and_run"),
            models.CheckConstraint(name="gate_outcome_legal", condition=Q(outcome__in=list(GateOutcome))),
        ]

    def __str__(self) -> str:
        return f"{self.gate} {self.outcome}"


class Landings(models.QuerySet["Landing"]):
    """Landings by where they stand."""

    def intended(self) -> Self:
        """Those of which nothing has been pushed yet."""
        return self.filter(state=LandingState.INTENT)

    def pushing(self) -> Self:
        """Those whose push may be under way: git decides."""
        return self.filter(state=LandingState.PUSHING)

    def landed(self) -> Self:
        """Those that git has shown on the target."""
        return self.filter(state=LandingState.LANDED)


class Landing(models.Model):
    """The intent to push one candidate onto its target, and what git showed afterwards.

    One push may carry several cars of a train, in order: theirs name its `push`, which is that of the last car.
    `state`: intent, pushing, landed, moved (target moved), head_moved, refused, abandoned.
    """

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="landings")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="landings")
    push = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="carried")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="+")
    target = models.CharField(max_length=200)
    expected_sha = models.CharField(max_length=64)
    evidence = models.JSONField(
        default=list, help_text="[{gate, outcome, tree, result|paths}], or a waiver: what let it land"
    )
    state = models.CharField(max_length=12, default=LandingState.INTENT)
    message = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    concluded_at = models.DateTimeField(null=True, blank=True)

    objects = Landings.as_manager()

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(
                fields=["rig", "target"],
                name="one_active_landing_per_branch",
                condition=_OPEN & Q(push__isnull=True),
            ),
            models.UniqueConstraint(
                fields=["candidate"], name="one_landing_per_candidate", condition=~Q(state=LandingState.ABANDONED)
            ),
            models.CheckConstraint(
                name="landing_state_legal",
                condition=Q(state__in=list(LandingState)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} {self.state}"
