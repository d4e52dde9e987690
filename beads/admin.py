"""The console's rows of the ledger. Actions are added by `refinery.console.admin`, which knows the doors."""

from __future__ import annotations

from django.contrib import admin

from beads import config as configs
from beads import models
from beads.consoles import ReadOnlyAdmin, ReadOnlyInline


class EventInline(ReadOnlyInline):
    """A bead's history."""

    model = models.BeadEvent
    fields = ("created_at", "kind", "from_status", "to_status", "actor", "reason")
    readonly_fields = fields


class BlockedByInline(ReadOnlyInline):
    """What a bead waits for."""

    model = models.Dependency
    fk_name = "bead"
    related = ("on",)
    fields = ("on",)
    readonly_fields = fields


@admin.register(models.Dependency)
class DependencyAdmin(ReadOnlyAdmin):
    """Blocks."""

    town_path = "bead__town"
    list_display = ("bead", "on", "created_at")
    list_select_related = ("bead", "on")
    search_fields = ("bead__id", "on__id")


@admin.register(models.ConvoyBranch)
class ConvoyBranchAdmin(ReadOnlyAdmin):
    """Feature branches."""

    town_path = "rig__town"
    list_display = ("name", "convoy", "rig", "base_sha", "head_sha", "landed_sha")
    search_fields = ("name", "head_sha", "landed_sha", "convoy__bead__id")


@admin.register(models.BeadEvent)
class BeadEventAdmin(ReadOnlyAdmin):
    """History."""

    town_path = "bead__town"
    ordering = ("-id",)
    list_display = ("created_at", "bead", "kind", "from_status", "to_status", "actor", "reason")
    list_filter = ("kind",)
    list_select_related = ("bead",)
    search_fields = ("bead__id", "actor", "reason")


@admin.register(models.Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """Who is alive."""

    town_path = ""
    list_display = ("name", "at", "detail")


@admin.register(models.ConfigVersion)
class ConfigVersionAdmin(ReadOnlyAdmin):
    """Who changed which config, when, why, from what to what."""

    list_display = ("created_at", "town", "rig", "number", "who", "why")
    list_filter = (("town", admin.RelatedOnlyFieldListFilter), ("rig", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("town", "rig")
    search_fields = ("who", "why", "text")
    exclude = ("old", "new")
    readonly_fields = ("before", "after")

    @admin.display(description="Before")
    def before(self, version: models.ConfigVersion) -> str:
        """What it replaced."""
        return configs.to_toml(version.old) or "no overrides"

    @admin.display(description="After")
    def after(self, version: models.ConfigVersion) -> str:
        """What it made of it."""
        return configs.to_toml(version.new) or "no overrides"


@admin.register(models.Membership)
class MembershipAdmin(ReadOnlyAdmin):
    """Who may do what, to look at: `gastown person` grants and revokes."""

    list_display = ("user", "town", "role", "granted_by", "granted_at")
    list_filter = ("role", ("town", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("user", "town")
    search_fields = ("user__username",)


@admin.register(models.Secret)
class SecretAdmin(ReadOnlyAdmin):
    """Which secrets a town has: names only. `gastown secret` sets and removes them."""

    list_display = ("name", "town", "updated_at", "updated_by")
    list_select_related = ("town",)
    exclude = ("ciphertext",)
