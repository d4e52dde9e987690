"""The refinery's tables. Writers: `refinery.store.entries` (entries, lanes, candidates, verdicts, waivers, landings),
`refinery.store.gates` (GateResult), `refinery.store.forecasts` (Forecast, Stack),
`refinery.store.comments` (ReviewComment), `refinery.tick.invariants` (Violation),
`refinery.tick.metrics` (TickRecord, TickTotal).

`ReviewEntry` is the review side of a merge-request bead. Its head is pinned: verdicts count for the head they
were given on, gate results for the tree they were run on, and a landing names one candidate.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.models import Run
from beads.models import Bead, Convoy, Rig, Town

_ACTIVE = Q(state="active")
_LANDING_OPEN = Q(state__in=["intent", "pushing"])


class ReviewEntry(models.Model):
    """One change offered for one target branch of one rig; or (kind `check`) the target's own head before the gates.

    `state`: active, merged (git showed it on the target), checked (a check that has passed), failed (see `reason`).
    `admitted_at`: it is a car of its lane's train, in the order of `slot`. `held`: waits for a person, and why.
    """

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="review")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="reviews")
    convoy = models.ForeignKey(Convoy, on_delete=models.PROTECT, related_name="reviews", null=True, blank=True)
    kind = models.CharField(
        max_length=10, default="change", help_text="change, landing of a convoy, or check of the target itself"
    )
    source = models.ForeignKey(Bead, on_delete=models.PROTECT, related_name="entries", null=True, blank=True)
    author = models.CharField(max_length=100, blank=True, help_text="agent or person who made the change")
    branch = models.CharField(max_length=250)
    on_remote = models.BooleanField(default=True, help_text="its branch is on the remote, which is asked about it")
    head_sha = models.CharField(max_length=64)
    target = models.CharField(max_length=200)
    state = models.CharField(max_length=10, default="active")
    reason = models.CharField(max_length=40, blank=True, help_text="closed set of exit reasons")
    reason_text = models.TextField(blank=True)
    merge_sha = models.CharField(max_length=64, blank=True)
    superseded_by = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="supersedes"
    )
    admitted_at = models.DateTimeField(null=True, blank=True)
    slot = models.FloatField(null=True, blank=True, help_text="its place in its lane's train, in order")
    batch = models.PositiveIntegerField(null=True, blank=True, help_text="cars with the same are gated as one")
    build_no = models.PositiveIntegerField(default=0)
    held = models.CharField(max_length=40, blank=True)
    held_text = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0, help_text="times it was admitted")
    rework_count = models.PositiveIntegerField(default=0)
    conflict_count = models.PositiveIntegerField(default=0)
    land_retries = models.PositiveIntegerField(default=0, help_text="since it was admitted")
    gates_again_at = models.DateTimeField(null=True, blank=True, help_text="results before this do not count")
    reject_requested = models.TextField(blank=True)
    land_now_at = models.DateTimeField(null=True, blank=True, help_text="a person sent it to the front of the train")
    observed_head = models.CharField(max_length=64, blank=True, help_text="a newer head seen on the branch")
    answered_head = models.CharField(
        max_length=64, blank=True, help_text="the head that its author gave back without a new commit"
    )
    answered_to = models.ForeignKey(
        "Verdict", on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="the latest one then"
    )
    answer = models.TextField(blank=True, help_text="what its author said then")
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "review entries"
        constraints = [
            models.UniqueConstraint(fields=["source"], name="one_active_entry_per_source", condition=_ACTIVE),
            models.UniqueConstraint(
                fields=["rig", "target", "branch"], name="one_active_entry_per_branch", condition=_ACTIVE
            ),
            models.UniqueConstraint(
                fields=["convoy", "rig"],
                name="one_active_landing_entry_per_convoy",
                condition=_ACTIVE & Q(kind="landing"),
            ),
            models.UniqueConstraint(
                fields=["rig", "target", "slot"], name="one_entry_per_slot", condition=Q(slot__isnull=False)
            ),
            models.CheckConstraint(
                name="entry_in_a_train_has_a_slot",
                condition=Q(admitted_at__isnull=True, slot__isnull=True, batch__isnull=True)
                | _ACTIVE & Q(admitted_at__isnull=False, slot__isnull=False),
            ),
            models.CheckConstraint(
                name="entry_state_legal", condition=Q(state__in=["active", "merged", "checked", "failed"])
            ),
            models.CheckConstraint(
                name="check_never_lands",
                condition=~Q(kind="check") & ~Q(state="checked")
                | Q(kind="check", admitted_at__isnull=True, source__isnull=True, convoy__isnull=True)
                & ~Q(state="merged"),
            ),
            models.CheckConstraint(name="entry_merged_has_sha", condition=~Q(state="merged") | ~Q(merge_sha="")),
            models.CheckConstraint(name="entry_closed_has_reason", condition=Q(state="active") | ~Q(reason="")),
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} {self.branch} → {self.target}"

    @property
    def ended(self) -> str:
        """How one that is no longer active has ended, to be said after its name."""
        if self.kind == "check":
            return f"has ended: rig check {self.rig.slug} makes a new one"
        if self.state != "merged":
            return f"has left the queue ({self.reason.replace('_', ' ')})"
        sha = f" as {self.merge_sha[:12]}" if self.merge_sha else ""
        return f"has landed on {self.target}{sha}: there is nothing left to decide"


class Candidate(models.Model):
    """What one build of an entry gave.

    `result`: built, conflict, already_merged, empty, unchanged (there is nothing of its own in it), refused (the change
    is unfit, `error` says why) or error (it could not be built).
    """

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="candidates")
    build_no = models.PositiveIntegerField()
    on = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="carries",
        help_text="the car ahead's candidate that it stands on; none: the target's head of that moment",
    )
    result = models.CharField(max_length=20)
    head_sha = models.CharField(max_length=64)
    base_sha = models.CharField(max_length=64, blank=True)
    sha = models.CharField(max_length=64, blank=True)
    tree_sha = models.CharField(max_length=64, blank=True)
    seal_sha = models.CharField(max_length=64, blank=True, help_text="the base of the batch that it seals")
    files = models.JSONField(default=list, blank=True, help_text="conflicting paths")
    error = models.TextField(blank=True)
    untouched = models.JSONField(
        default=list, blank=True, help_text="gates' lists of paths that the change touches nothing of"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["sha"], name="candidate_of_commit")]
        constraints = [
            models.UniqueConstraint(fields=["entry", "build_no"], name="one_candidate_per_build"),
            models.CheckConstraint(
                name="candidate_result_legal",
                condition=Q(
                    result__in=["built", "conflict", "already_merged", "empty", "unchanged", "refused", "error"]
                ),
            ),
            models.CheckConstraint(
                name="candidate_built_has_shas",
                condition=~Q(result="built") | (~Q(sha="") & ~Q(tree_sha="") & ~Q(base_sha="")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} #{self.build_no} {self.sha[:10] or self.result}"


class Lane(models.Model):
    """What is remembered of one (rig, target branch): the train's present window, and whether it is frozen."""

    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="lanes")
    target = models.CharField(max_length=200)
    window = models.PositiveIntegerField(null=True, blank=True, help_text="none: as configured")
    frozen_at = models.DateTimeField(null=True, blank=True)
    frozen_until = models.DateTimeField(null=True, blank=True)
    frozen_reason = models.CharField(max_length=300, blank=True)
    frozen_by = models.CharField(max_length=150, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rig", "target"], name="lane_once")]

    def __str__(self) -> str:
        return f"{self.rig_id} {self.target}"


class Forecast(models.Model):
    """What is known of a lane ahead of time; see `refinery.core.relations.ForecastView`. One question at a time.

    Heads are commits, so what was answered about them stays true whoever names them, and however often it is told.
    """

    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="forecasts")
    target = models.CharField(max_length=200)
    tip = models.CharField(max_length=64, blank=True, help_text="where the target was last seen")
    number = models.PositiveIntegerField(default=0, help_text="of the last question")
    asked_at = models.DateTimeField(null=True, blank=True)
    asked = models.JSONField(default=list, blank=True, help_text="heads, in queue order")
    asked_tip = models.CharField(max_length=64, blank=True)
    answered = models.PositiveIntegerField(default=0, help_text="number of the last answer")
    base = models.CharField(max_length=64, blank=True, help_text="the target's head that the answer is about")
    heads = models.JSONField(default=list, blank=True, help_text="compared with one another: who contains whom")
    paired = models.JSONField(default=list, blank=True, help_text="those of them merged in pairs onto the base")
    clashes = models.JSONField(default=list, blank=True, help_text="[{a, b, files}]; an empty b: with the base")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rig", "target"], name="forecast_once_per_lane")]

    def __str__(self) -> str:
        return f"{self.rig_id} {self.target} #{self.number}"


class Stack(models.Model):
    """Git has shown that commit `upper` contains commit `lower`: true for ever."""

    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="stacks")
    upper = models.CharField(max_length=64)
    lower = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rig", "upper", "lower"], name="stack_once")]

    def __str__(self) -> str:
        return f"{self.upper[:10]} on {self.lower[:10]}"


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
            models.CheckConstraint(name="gate_outcome_legal", condition=Q(outcome__in=["pass", "fail", "error"])),
        ]

    def __str__(self) -> str:
        return f"{self.gate} {self.outcome}"


class Verdict(models.Model):
    """A review of one head, by an agent's run or a person. Never changed; a newer one counts.

    `task`: the bead whose agent was given a person's request; until then it stands, whatever the head is by now.
    """

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="verdicts")
    head_sha = models.CharField(max_length=64)
    decision = models.CharField(max_length=20, help_text="approve or request_changes")
    by = models.CharField(max_length=150)
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="verdict", null=True, blank=True)
    merge_now = models.BooleanField(default=False)
    task = models.ForeignKey(Bead, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    feedback = models.TextField(blank=True)
    items = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.CheckConstraint(name="verdict_legal", condition=Q(decision__in=["approve", "request_changes"]))
        ]

    def __str__(self) -> str:
        return f"{self.decision} by {self.by}"


class Waiver(models.Model):
    """A person's decision that one head of an entry lands without its gates. Never changed; a new head needs another.

    A landing that made use of it names it in its evidence.
    """

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="waivers")
    head_sha = models.CharField(max_length=64)
    by = models.CharField(max_length=150)
    reason = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["entry", "head_sha"], name="waiver_once_per_head"),
            models.CheckConstraint(name="waiver_says_who_and_why", condition=~Q(by="") & ~Q(reason="")),
        ]

    def __str__(self) -> str:
        return f"gates skipped by {self.by} because {self.reason}"[:200]


class LostDecision(models.Model):
    """A decision that could not be carried out, time and again. One row for each subject, while it lasts."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="lost_decisions")
    subject = models.CharField(max_length=300, help_text="as the plan names it: entry gt-…, lane rig branch, …")
    rule = models.CharField(max_length=60)
    error = models.TextField()
    times = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["town", "subject"], name="lost_decision_once")]

    def __str__(self) -> str:
        return f"{self.subject} {self.rule} × {self.times}"


class ReviewComment(models.Model):
    """A person's remark on one line of one head's diff. `side`: old (the base) or new (the candidate).

    `quote` is the line as it was read, so that the remark can be understood, and found, after the line has moved.
    `task`: the bead whose agent was given it.
    """

    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, related_name="comments")
    head_sha = models.CharField(max_length=64)
    file = models.CharField(max_length=1000)
    side = models.CharField(max_length=3)
    line = models.PositiveIntegerField()
    quote = models.CharField(max_length=300, blank=True)
    body = models.TextField()
    by = models.CharField(max_length=150)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    task = models.ForeignKey(Bead, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    digest = models.CharField(max_length=64, unique=True, help_text="the same remark twice is one")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["entry", "head_sha"], name="comment_of_head")]
        constraints = [models.CheckConstraint(name="comment_side_legal", condition=Q(side__in=["old", "new"]))]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} by {self.by}"

    @property
    def resolved(self) -> bool:
        """True when somebody said that it is dealt with."""
        return self.resolved_at is not None


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
    state = models.CharField(max_length=12, default="intent")
    message = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    concluded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(
                fields=["rig", "target"],
                name="one_active_landing_per_branch",
                condition=_LANDING_OPEN & Q(push__isnull=True),
            ),
            models.UniqueConstraint(
                fields=["candidate"], name="one_landing_per_candidate", condition=~Q(state="abandoned")
            ),
            models.CheckConstraint(
                name="landing_state_legal",
                condition=Q(state__in=["intent", "pushing", "landed", "moved", "head_moved", "refused", "abandoned"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} {self.state}"


class Violation(models.Model):
    """A promise that was seen broken; see `refinery.tick.invariants`. Open until it is seen to hold again."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="violations")
    number = models.PositiveSmallIntegerField()
    subject = models.CharField(max_length=200)
    sentence = models.CharField(max_length=300)
    remedy = models.CharField(max_length=300, help_text="what to do about it")
    first_seen = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["town", "number", "subject"], name="violation_once_open", condition=Q(cleared_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.subject}"


class TickRecord(models.Model):
    """What one tick that changed something did."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="ticks")
    at = models.DateTimeField()
    facts = models.PositiveIntegerField()
    pending = models.PositiveIntegerField(help_text="facts that still waited afterwards")
    actions = models.JSONField(default=dict)
    lost_races = models.PositiveIntegerField()
    failed = models.PositiveIntegerField(help_text="decisions that could not be carried out")
    violations = models.PositiveIntegerField()
    effects_done = models.PositiveIntegerField(help_text="since the record before")
    effects_failed = models.PositiveIntegerField()
    milliseconds = models.FloatField()

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["town", "-at"], name="tick_recent")]

    def __str__(self) -> str:
        return f"{self.town_id} {self.at}"


class TickTotal(models.Model):
    """The sums over all ticks of a town, ever."""

    town = models.OneToOneField(Town, on_delete=models.CASCADE, related_name="tick_total")
    at = models.DateTimeField(auto_now_add=True)
    sums = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.town_id} totals"
