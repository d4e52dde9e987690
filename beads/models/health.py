"""What works now: the parts of this installation, and the remotes that it needs."""

from __future__ import annotations

from django.db import models

from beads.models.towns import Rig


class Outage(models.Model):
    """Something outside that does not work now, for one rig or for all that have their remote on one host.

    `kind`: as in `agents.runtime.failures`. One row while it lasts; `next_look_at`: when it is tried again.
    """

    key = models.CharField(max_length=300, primary_key=True, help_text="rig:<id> or host:<host>")
    rig = models.ForeignKey(Rig, on_delete=models.CASCADE, related_name="outages", help_text="who met it last")
    kind = models.CharField(max_length=20)
    error = models.TextField()
    branch = models.CharField(max_length=255, blank=True, help_text="the default branch that the remote names instead")
    at_work = models.BooleanField(default=False, help_text="a look at the remote does not show it, only work does")
    failures = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()
    failed_at = models.DateTimeField()
    next_look_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.key} {self.kind}"


class Heartbeat(models.Model):
    """When a part of the installation (reconciler, cluster, runner) was last seen alive."""

    name = models.CharField(max_length=60, primary_key=True)
    at = models.DateTimeField()
    detail = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.name


class Installation(models.Model):
    """A running `up`: which home on which host works on this database."""

    home_key = models.CharField(max_length=64)  # of GASTOWN_HOME
    boot = models.CharField(max_length=64)  # of the kernel that it runs on
    host = models.CharField(max_length=255)
    home = models.TextField()
    since = models.DateTimeField()
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["home_key", "boot"], name="one_row_for_a_running_up")]

    def __str__(self) -> str:
        return f"{self.host}: {self.home}"
