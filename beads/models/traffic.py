"""What comes in (facts) and what goes out (effects)."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from beads.lifecycle import EffectState
from beads.models.towns import Rig, Town


class Fact(models.Model):
    """Something that happened, waiting for (or drained by) a tick. Quarantined after three failed tries."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="facts")
    kind = models.CharField(max_length=40)
    subject = models.CharField(max_length=100, blank=True)
    payload = models.JSONField(default=dict)
    actor = models.CharField(max_length=100, blank=True)
    dedupe_key = models.CharField(max_length=200, null=True, blank=True, unique=True)
    recorded_at = models.DateTimeField(auto_now_add=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    processed_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("id",)
        indexes = [
            models.Index(
                fields=["town", "id"],
                name="fact_pending",
                condition=Q(processed_at__isnull=True, quarantined_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.kind} {self.subject}"


class Effects(models.QuerySet["Effect"]):
    """Effects by where they stand."""

    def pending(self) -> Self:
        """Those that are still to be done."""
        return self.filter(state=EffectState.PENDING)

    def failed(self) -> Self:
        """Those that were given up."""
        return self.filter(state=EffectState.FAILED)


class Effect(models.Model):
    """Something to be done outside the database: at least once, under a deterministic key.

    `state`: pending, done, failed (gave up: its failure was recorded as a fact).
    """

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="effects")
    kind = models.CharField(max_length=40)
    key = models.CharField(max_length=200, unique=True)
    rig = models.ForeignKey(
        Rig, on_delete=models.CASCADE, related_name="effects", null=True, blank=True, help_text="whose share it has"
    )
    payload = models.JSONField(default=dict)
    state = models.CharField(max_length=10, default=EffectState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True, help_text="an outage of the remote does not count")
    next_try_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    objects = Effects.as_manager()

    class Meta:
        ordering = ("id",)
        indexes = [
            models.Index(fields=["next_try_at"], name="effect_pending", condition=Q(state=EffectState.PENDING)),
            models.Index(fields=["town", "state"], name="effect_open", condition=~Q(state=EffectState.DONE)),
            models.Index(fields=["town", "finished_at"], name="effect_ended"),
        ]
        constraints = [models.CheckConstraint(name="effect_state_legal", condition=Q(state__in=list(EffectState)))]

    def __str__(self) -> str:
        return f"{self.pk} {self.key}"
