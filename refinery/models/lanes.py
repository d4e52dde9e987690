"""What is known of lanes ahead of time, and decisions that keep being lost."""

from __future__ import annotations

from django.db import models

from beads.models import Rig, Town


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
