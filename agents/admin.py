"""The console's rows of agents and what they say. Runs get their actions in `refinery.console.admin`."""

from __future__ import annotations

from django.contrib import admin

from agents import models
from beads.consoles import ReadOnlyAdmin


@admin.register(models.Agent)
class AgentAdmin(ReadOnlyAdmin):
    """Agents."""

    list_display = ("name", "role", "town", "rig", "convoy", "retired_at")
    list_filter = ("role", ("town", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("town", "rig", "convoy")
    search_fields = ("name",)


@admin.register(models.Mail)
class MailAdmin(ReadOnlyAdmin):
    """Mail."""

    list_display = ("created_at", "sender", "recipient", "kind", "subject", "read_at")
    list_filter = ("kind", ("town", admin.RelatedOnlyFieldListFilter))
    ordering = ("-id",)
    search_fields = ("sender", "recipient", "subject")


@admin.register(models.Nudge)
class NudgeAdmin(ReadOnlyAdmin):
    """Nudges."""

    town_path = "agent__town"
    list_display = ("created_at", "agent", "sender", "message", "delivered_at")
    list_select_related = ("agent",)


@admin.register(models.ToolCall)
class ToolCallAdmin(ReadOnlyAdmin):
    """Tool calls that were made under an idempotency key."""

    town_path = "run__town"
    list_display = ("created_at", "run", "tool", "key", "status")
    list_select_related = ("run",)
    search_fields = ("run__id", "tool")
