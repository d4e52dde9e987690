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


@admin.register(models.Usage)
class UsageAdmin(ReadOnlyAdmin):
    """What runs used of models."""

    list_display = ("day", "run", "bead", "model", "source", "channel", "calls", "input", "cached", "output", "cost")
    list_filter = ("source", "channel", ("town", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("run", "bead")
    ordering = ("-id",)
    search_fields = ("run__id", "bead__id", "model")


@admin.register(models.Allowance)
class AllowanceAdmin(ReadOnlyAdmin):
    """What people have raised caps of budgets to."""

    list_display = ("created_at", "town", "scope", "subject", "amount", "by", "reason")
    list_filter = ("scope", ("town", admin.RelatedOnlyFieldListFilter))
    ordering = ("-id",)
    search_fields = ("subject", "by")
