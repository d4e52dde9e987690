"""The console's rows of the ledger. The actions on them are added by `refinery.admin`, which knows the doors."""

from __future__ import annotations

from django.contrib import admin

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
    fields = ("on",)
    readonly_fields = fields


@admin.register(models.Dependency)
class DependencyAdmin(ReadOnlyAdmin):
    """Blocks."""

    list_display = ("bead", "on", "created_at")
    list_select_related = ("bead", "on")
    search_fields = ("bead__id", "on__id")


@admin.register(models.ConvoyBranch)
class ConvoyBranchAdmin(ReadOnlyAdmin):
    """Feature branches."""

    list_display = ("name", "convoy", "rig", "base_sha", "head_sha", "landed_sha")


@admin.register(models.BeadEvent)
class BeadEventAdmin(ReadOnlyAdmin):
    """History."""

    list_display = ("created_at", "bead", "kind", "from_status", "to_status", "actor", "reason")
    list_filter = ("kind",)
    list_select_related = ("bead",)
    search_fields = ("bead__id", "actor")


@admin.register(models.Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """Who is alive."""

    list_display = ("name", "at", "detail")
