"""Towns and rigs, who may do what in them, and what is set for them."""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q


class Town(models.Model):
    """One tenant. Its row is the lock of the reconcile tick."""

    slug = models.SlugField(max_length=50, unique=True)
    config = models.JSONField(default=dict, blank=True, help_text="validated overrides, see beads.config")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=300, blank=True)
    looked_at = models.DateTimeField(null=True, blank=True, help_text="when a tick last looked")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class Rig(models.Model):
    """One git repository under a town."""

    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="rigs")
    slug = models.SlugField(max_length=50, unique=True)
    remote_url = models.CharField(max_length=1000)
    default_branch = models.CharField(max_length=200)
    config = models.JSONField(default=dict, blank=True)
    parked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class ConfigVersion(models.Model):
    """One change of a town's config, or (`rig` set) of a rig's: who, when, why, from what, to what. Never updated."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="config_versions")
    rig = models.ForeignKey(Rig, on_delete=models.CASCADE, related_name="config_versions", null=True, blank=True)
    number = models.PositiveIntegerField(help_text="1 is the first change of this town or rig")
    who = models.CharField(max_length=150)
    why = models.TextField(blank=True)
    old = models.JSONField(default=dict)
    new = models.JSONField(default=dict)
    text = models.TextField(blank=True, help_text="the TOML as it was written, with its comments")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["rig", "number"], name="config_version_of_rig_once"),
            models.UniqueConstraint(
                fields=["town", "number"], name="config_version_of_town_once", condition=Q(rig__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rig or self.town} config {self.number}"


class TownRole(StrEnum):
    """What a person may do in one town. Each may do what the one before it may."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


class Membership(models.Model):
    """A person's role in a town. Without one, a person sees nothing of it; superusers need none."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=[(r.value, r.value) for r in TownRole])
    notices = models.JSONField(default=list, blank=True, help_text="kinds of notices the person wants by mail")
    granted_by = models.CharField(max_length=150, blank=True)
    granted_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "town"], name="one_role_per_person_and_town"),
            models.CheckConstraint(name="town_role_legal", condition=Q(role__in=[r.value for r in TownRole])),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.town}"


class Secret(models.Model):
    """A secret of a town, sealed with a key that is in no database: see `beads.secrets`. Its value is never shown."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="secrets")
    name = models.CharField(max_length=100)
    ciphertext = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=["town", "name"], name="secret_name_once")]

    def __str__(self) -> str:
        return self.name
