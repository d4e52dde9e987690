"""Pull requests on a rig's host, as they were last read, and what is known of the host itself."""

from __future__ import annotations

from django.db import models

from beads.models import Rig
from refinery.models.entries import ReviewEntry


class RigHost(models.Model):
    """What is known of the host of a rig's pull requests. `trouble`: why it cannot be asked; nothing follows from that
    but that it is asked again at `next_try_at`."""

    rig = models.OneToOneField(Rig, on_delete=models.CASCADE, primary_key=True, related_name="host")
    etags = models.JSONField(default=dict, blank=True, help_text="of the last look, by what was asked")
    polled_at = models.DateTimeField(null=True, blank=True, help_text="begin of the last look that was answered")
    kind = models.CharField(max_length=20, blank=True, help_text="why it does not say: see refinery.hosts.base")
    trouble = models.TextField(blank=True)
    since = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.rig_id} {self.trouble or 'answers'}"


class HostedPull(models.Model):
    """One pull request of a rig's host that concerns us: it shows an entry of ours, or somebody has called us there.

    `wanted_at`: something was heard of it then; `read_at`: begin of the last reading, whose answer is `state`. `head`:
    where it and its entry were last the same. `heard`: what of it was taken in. `told`, `reported`: digests of our
    comment and of the statuses as they are there. `offered`: we made it. `ended_at`: it is over.
    """

    rig = models.ForeignKey(Rig, on_delete=models.CASCADE, related_name="pulls")
    number = models.PositiveIntegerField()
    entry = models.ForeignKey(ReviewEntry, on_delete=models.PROTECT, null=True, blank=True, related_name="pulls")
    offered = models.BooleanField(default=False)
    head = models.CharField(max_length=64, blank=True)
    state = models.JSONField(default=dict, blank=True)
    wanted_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True)
    heard = models.JSONField(default=dict, blank=True)
    comment = models.BigIntegerField(default=0, help_text="the id of our comment")
    told = models.CharField(max_length=64, blank=True)
    told_at = models.DateTimeField(null=True, blank=True)
    reported = models.CharField(max_length=64, blank=True)
    answer = models.TextField(blank=True, help_text="what came of the last command")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        verbose_name = "pull request"
        constraints = [
            models.UniqueConstraint(fields=["rig", "number"], name="pull_once_per_rig"),
            models.UniqueConstraint(
                fields=["entry"], name="one_pull_per_entry", condition=models.Q(entry__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rig_id} #{self.number}"
