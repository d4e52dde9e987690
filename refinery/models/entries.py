"""What is offered, what was built of it, and what was said of it."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from agents.models import Run
from beads.models import Bead, Convoy, Rig
from refinery.core.states import BuildResult, EntryKind, EntryState, Judgement

_ACTIVE = Q(state=EntryState.ACTIVE)


class Entries(models.QuerySet["ReviewEntry"]):
    """Review entries by where they stand."""

    def active(self) -> Self:
        """Those that still want to land, or to be checked."""
        return self.filter(state=EntryState.ACTIVE)

    def merged(self) -> Self:
        """Those whose change git has shown on the target."""
        return self.filter(state=EntryState.MERGED)

    def failed(self) -> Self:
        """Those that have left the queue without landing."""
        return self.filter(state=EntryState.FAILED)


class ReviewEntry(models.Model):
    """One change offered for one target branch of one rig; or (kind `check`) the target's own head before the gates.

    `state`: active, merged (git showed it on the target), checked (a check that has passed), failed (see `reason`).
    `admitted_at`: it is a car of its lane's train, in the order of `slot`. `held`: waits for a person, and why.
    """

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="review")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="reviews")
    convoy = models.ForeignKey(Convoy, on_delete=models.PROTECT, related_name="reviews", null=True, blank=True)
    kind = models.CharField(
        max_length=10, default=EntryKind.CHANGE, help_text="change, landing of a convoy, or check of the target itself"
    )
    source = models.ForeignKey(Bead, on_delete=models.PROTECT, related_name="entries", null=True, blank=True)
    author = models.CharField(max_length=100, blank=True, help_text="agent or person who made the change")
    branch = models.CharField(max_length=250)
    on_remote = models.BooleanField(default=True, help_text="its branch is on the remote, which is asked about it")
    head_sha = models.CharField(max_length=64)
    target = models.CharField(max_length=200)
    state = models.CharField(max_length=10, default=EntryState.ACTIVE)
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

    objects = Entries.as_manager()

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
                condition=_ACTIVE & Q(kind=EntryKind.LANDING),
            ),
            models.UniqueConstraint(
                fields=["rig", "target", "slot"], name="one_entry_per_slot", condition=Q(slot__isnull=False)
            ),
            models.CheckConstraint(
                name="entry_in_a_train_has_a_slot",
                condition=Q(admitted_at__isnull=True, slot__isnull=True, batch__isnull=True)
                | _ACTIVE & Q(admitted_at__isnull=False, slot__isnull=False),
            ),
            models.CheckConstraint(name="entry_state_legal", condition=Q(state__in=list(EntryState))),
            models.CheckConstraint(
                name="check_never_lands",
                condition=~Q(kind=EntryKind.CHECK) & ~Q(state=EntryState.CHECKED)
                | Q(kind=EntryKind.CHECK, admitted_at__isnull=True, source__isnull=True, convoy__isnull=True)
                & ~Q(state=EntryState.MERGED),
            ),
            models.CheckConstraint(
                name="entry_merged_has_sha", condition=~Q(state=EntryState.MERGED) | ~Q(merge_sha="")
            ),
            models.CheckConstraint(
                name="entry_closed_has_reason", condition=Q(state=EntryState.ACTIVE) | ~Q(reason="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} {self.branch} → {self.target}"

    @property
    def ended(self) -> str:
        """How one that is no longer active has ended, to be said after its name."""
        if self.kind == EntryKind.CHECK:
            return f"has ended: rig check {self.rig.slug} makes a new one"
        if self.state != EntryState.MERGED:
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
                condition=Q(result__in=list(BuildResult)),
            ),
            models.CheckConstraint(
                name="candidate_built_has_shas",
                condition=~Q(result=BuildResult.BUILT) | (~Q(sha="") & ~Q(tree_sha="") & ~Q(base_sha="")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} #{self.build_no} {self.sha[:10] or self.result}"


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
        constraints = [models.CheckConstraint(name="verdict_legal", condition=Q(decision__in=list(Judgement)))]

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
