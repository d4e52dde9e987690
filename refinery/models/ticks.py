"""What the reconciler notes about itself."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from beads.models import Town


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
