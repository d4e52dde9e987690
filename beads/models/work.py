"""Beads and their sides: dependencies, convoys, escalations, history."""

from __future__ import annotations

import secrets

from django.db import models
from django.db.models import Q

from beads.lifecycle import FINAL, BeadStatus, BeadType, Purpose, Resolution
from beads.models.towns import Rig, Town

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A fresh readable id: prefix, dash, eight characters of Crockford's base 32 (2^40 values)."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"


def new_bead_id() -> str:
    """A fresh bead id such as `gt-7x2k9fq3`."""
    return new_id("gt")


def choices(enum: type[BeadType | Purpose | BeadStatus | Resolution]) -> list[tuple[str, str]]:
    """Django choices of a StrEnum."""
    return [(m.value, m.value.replace("_", " ")) for m in enum]


class Bead(models.Model):
    """One row of work. `id` is the public name, e.g. `gt-7x2k9fq3`."""

    id = models.CharField(primary_key=True, max_length=32, default=new_bead_id, editable=False)
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="beads")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="beads", null=True, blank=True)
    type = models.CharField(max_length=20, choices=choices(BeadType), default=BeadType.ISSUE)
    purpose = models.CharField(max_length=20, choices=choices(Purpose), default=Purpose.WORK)
    status = models.CharField(max_length=20, choices=choices(BeadStatus), default=BeadStatus.OPEN)
    resolution = models.CharField(max_length=20, choices=choices(Resolution), blank=True)
    reason = models.TextField(blank=True, help_text="why it stands where it stands, for a person")
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    priority = models.PositiveSmallIntegerField(default=2, help_text="0 (first) to 4 (last)")
    model = models.CharField(max_length=200, blank=True, help_text="of whoever works on it; blank: the config says")
    convoy = models.ForeignKey("Convoy", on_delete=models.PROTECT, related_name="beads", null=True, blank=True)
    plan_key = models.CharField(max_length=100, blank=True, help_text="its key in the convoy's plan")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, related_name="children", null=True, blank=True)
    context = models.JSONField(default=dict, blank=True, help_text="rework or conflict brief, for the agent")
    merge_sha = models.CharField(max_length=64, blank=True, help_text="commit on the target with its change")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    hold = models.TextField(blank=True, help_text="who has stopped it, and why: it waits for a person")
    retried_at = models.DateTimeField(null=True, blank=True, help_text="attempts before this do not count")
    created_by = models.CharField(max_length=100, blank=True)
    filed_by = models.CharField(max_length=32, blank=True, help_text="the run that filed it; blank: no agent did")
    depth = models.PositiveSmallIntegerField(default=0, help_text="0: a person's; n + 1: filed in work on one of n")
    released_at = models.DateTimeField(null=True, blank=True, help_text="null and filed by a run: waits for a person")
    released_by = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("created_at", "id")
        indexes = [
            models.Index(fields=["town", "type"], name="bead_live", condition=~Q(status__in=sorted(FINAL))),
            models.Index(fields=["convoy"], name="bead_convoy", condition=Q(convoy__isnull=False)),
            models.Index(fields=["town", "-created_at"], name="bead_recent"),
            models.Index(fields=["filed_by"], name="bead_filed", condition=~Q(filed_by="")),
        ]
        constraints = [
            models.CheckConstraint(name="bead_status_legal", condition=Q(status__in=[s.value for s in BeadStatus])),
            models.CheckConstraint(name="bead_type_legal", condition=Q(type__in=[t.value for t in BeadType])),
            models.CheckConstraint(name="bead_priority_range", condition=Q(priority__lte=4)),
            models.CheckConstraint(
                name="bead_final_has_resolution",
                condition=Q(status__in=sorted(FINAL)) & ~Q(resolution="")
                | ~Q(status__in=sorted(FINAL)) & Q(resolution=""),
            ),
            models.CheckConstraint(
                name="bead_merged_has_sha", condition=~Q(resolution=Resolution.MERGED) | ~Q(merge_sha="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.title}"

    @property
    def unreleased(self) -> bool:
        """True while what an agent has filed waits for a person: no agent is given it."""
        return bool(self.filed_by) and self.released_at is None


class Dependency(models.Model):
    """`bead` waits until `on` is closed. (A convoy tracks by `Bead.convoy`, a child names its `parent`.)"""

    bead = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="blocked_by")
    on = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="blocks")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "dependencies"
        constraints = [
            models.UniqueConstraint(fields=["bead", "on"], name="dependency_once"),
            models.CheckConstraint(name="dependency_not_self", condition=~Q(bead=models.F("on"))),
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} after {self.on_id}"


class Convoy(models.Model):
    """The convoy side of a convoy bead. `started_at` null means staged: nothing is dispatched."""

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="convoy_detail")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="convoys")
    merge_mode = models.CharField(max_length=30)
    started_at = models.DateTimeField(null=True, blank=True)
    close_requested_at = models.DateTimeField(null=True, blank=True)
    landed_sha = models.CharField(max_length=64, blank=True)
    landed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.bead_id} convoy"


class ConvoyBranch(models.Model):
    """The feature branch of a `review-then-land` convoy in one rig.

    `base_sha` is where it was cut; `head_sha` what the remote held when it was looked at, and `observed_at` the
    `asked_at` of the request which that look answered.
    """

    convoy = models.ForeignKey(Convoy, on_delete=models.PROTECT, related_name="branches")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    base_sha = models.CharField(max_length=64, blank=True)
    head_sha = models.CharField(max_length=64, blank=True)
    observed_at = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(null=True, blank=True, help_text="when a look at the remote was asked for")
    landed_sha = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name_plural = "convoy branches"
        constraints = [
            models.UniqueConstraint(fields=["convoy", "rig"], name="convoy_branch_once_per_rig"),
            models.UniqueConstraint(fields=["rig", "name"], name="convoy_branch_name_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Escalation(models.Model):
    """The escalation side of an escalation bead: something a person should see. One open per (town, key)."""

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="escalation_detail")
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="escalations")
    key = models.CharField(max_length=200)
    severity = models.CharField(max_length=10, default="medium")
    about = models.ForeignKey(Bead, on_delete=models.PROTECT, null=True, blank=True, related_name="escalations")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=100, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["town", "key"], name="escalation_once_open", condition=Q(closed_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} {self.severity}"


class BeadEvent(models.Model):
    """History of a bead: written in the same transaction as the change it tells of. Never updated."""

    bead = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=40)
    from_status = models.CharField(max_length=20, blank=True)
    to_status = models.CharField(max_length=20, blank=True)
    actor = models.CharField(max_length=100)
    reason = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.bead_id} {self.kind}"
