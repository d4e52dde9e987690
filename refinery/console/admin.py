"""The ops console: read-only rows with *why*, and actions that carry out verbs: see `refinery.console.actions`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from agents.models import Run
from agents.runtime.gitcmd import redact
from beads.admin import BlockedByInline, EventInline
from beads.consoles import ReadOnlyAdmin, ReadOnlyInline
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Rig, Town
from refinery import models
from refinery.console import filters, why
from refinery.console.actions import actions_of
from refinery.console.config_editor import ConfigEditor, config_text

BY_TOWN = ("town", admin.RelatedOnlyFieldListFilter)
BY_RIG = ("rig", admin.RelatedOnlyFieldListFilter)


class RunInline(ReadOnlyInline):
    """A bead's runs."""

    model = Run
    fk_name = "bead"
    ordering = ("-created_at",)
    fields = ("id", "kind", "attempt", "state", "outcome", "reason", "created_at")
    readonly_fields = fields


@admin.register(Town)
class TownAdmin(ConfigEditor):
    """Towns."""

    town_path = "pk"
    list_display = ("slug", "paused_at", "paused_reason", "created_at")
    search_fields = ("slug",)
    exclude = ("config",)
    readonly_fields = ("config_toml",)
    actions = actions_of(Town)

    def page_of(self, row: Town) -> str:
        """Its page."""
        return reverse("town", args=[row.slug])

    @admin.display(description="Config")
    def config_toml(self, town: Town) -> str:
        """Its overrides."""
        return config_text(town) or "all defaults"


@admin.register(Bead)
class BeadAdmin(ReadOnlyAdmin):
    """Beads."""

    list_display = ("id", "title", "type", "status", "resolution", "priority", "rig", "convoy", "created_at")
    list_filter = (filters.BeadFilter, "status", "type", "purpose", "resolution", BY_TOWN, BY_RIG)
    list_select_related = ("rig", "convoy")
    search_fields = ("id", "title", "convoy__bead__id", "reason")
    search_help_text = "id, title, convoy's id, reason"
    ordering = ("-created_at",)
    inlines = [BlockedByInline, RunInline, EventInline]
    actions = actions_of(Bead)

    def page_of(self, row: Bead) -> str:
        """Its page."""
        return reverse("bead", args=[row.pk])

    def subject_context(self, request: HttpRequest, row: Bead) -> dict[str, Any]:
        """Adds *why*."""
        return {**super().subject_context(request, row), "why": why.of_whatever(row)}


@admin.register(Convoy)
class ConvoyAdmin(ReadOnlyAdmin):
    """Convoys."""

    town_path = "bead__town"
    list_display = ("bead", "status", "rig", "merge_mode", "started_at", "landed_at", "landed_sha")
    list_filter = (filters.ConvoyFilter, "merge_mode", BY_RIG)
    list_select_related = ("bead", "rig")
    search_fields = ("bead__id", "bead__title", "landed_sha", "branches__name")
    search_help_text = "id, title, branch, landed commit"
    ordering = ("-bead__created_at",)
    actions = actions_of(Convoy)

    @admin.display(description="status", ordering="bead__status")
    def status(self, convoy: Convoy) -> str:
        """Its bead's."""
        return convoy.bead.resolution or convoy.bead.status

    def page_of(self, row: Convoy) -> str:
        """Its page."""
        return reverse("convoy", args=[row.pk])

    def subject_context(self, request: HttpRequest, row: Convoy) -> dict[str, Any]:
        """Adds *why*."""
        return {**super().subject_context(request, row), "why": why.of_convoy(row)}


@admin.register(Escalation)
class EscalationAdmin(ReadOnlyAdmin):
    """What needs a person."""

    list_display = ("bead", "severity", "town", "about", "acknowledged_by", "closed_at")
    list_filter = (filters.EscalationFilter, "severity", BY_TOWN)
    list_select_related = ("bead", "town", "about")
    search_fields = ("bead__id", "bead__title", "about__id", "key")
    search_help_text = "id, title, id of what it is about"
    ordering = ("-bead__created_at",)
    actions = actions_of(Escalation)

    def subject_context(self, request: HttpRequest, row: Escalation) -> dict[str, Any]:
        """Adds *why*, of what it is about."""
        told = []
        if row.about is not None:
            told = why.of_whatever(row.about)
        return {**super().subject_context(request, row), "why": told}


@admin.register(Fact)
class FactAdmin(ReadOnlyAdmin):
    """The inbox."""

    list_display = ("id", "recorded_at", "kind", "subject", "actor", "processed_at", "quarantined_at", "error")
    list_filter = (filters.FactFilter, "kind", BY_TOWN)
    search_fields = ("subject", "actor", "error", "=kind")
    search_help_text = "subject, actor, error, kind"
    ordering = ("-id",)
    actions = actions_of(Fact)


@admin.register(Effect)
class EffectAdmin(ReadOnlyAdmin):
    """The outbox."""

    list_display = ("id", "kind", "key", "state", "attempts", "next_try_at", "error")
    list_filter = (filters.EffectFilter, "kind", BY_TOWN)
    search_fields = ("key", "error")
    search_help_text = "key (it names what it is for), error"
    ordering = ("-id",)
    actions = actions_of(Effect)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Runs."""

    list_display = ("id", "kind", "state", "outcome", "agent", "bead", "attempt", "lease_until", "created_at")
    list_filter = (filters.RunFilter, "kind", "outcome", "purpose", BY_TOWN, BY_RIG)
    list_select_related = ("agent", "bead")
    search_fields = ("id", "bead__id", "agent__name", "runner", "branch", "reason")
    search_help_text = "id, bead's id, agent, runner, branch, reason"
    ordering = ("-created_at",)
    exclude = ("token_hash", "claim_hash", "fenced_hash")
    actions = actions_of(Run)

    def page_of(self, row: Run) -> str:
        """Its page."""
        return reverse("run", args=[row.pk])

    def subject_context(self, request: HttpRequest, row: Run) -> dict[str, Any]:
        """Adds *why*."""
        return {**super().subject_context(request, row), "why": why.of_run(row)}


class VerdictInline(ReadOnlyInline):
    """Reviews."""

    model = models.Verdict
    fields = ("created_at", "decision", "by", "head_sha", "feedback")
    readonly_fields = fields


class GateInline(ReadOnlyInline):
    """Gate results."""

    model = models.GateResult
    fields = ("created_at", "gate", "outcome", "telling", "flaky", "exit_code", "tree_sha", "sandbox")
    readonly_fields = fields


class WaiverInline(ReadOnlyInline):
    """Heads whose gates a person has waived."""

    model = models.Waiver
    fields = ("created_at", "head_sha", "by", "reason")
    readonly_fields = fields


class LandingInline(ReadOnlyInline):
    """Landings."""

    model = models.Landing
    fk_name = "entry"
    fields = ("created_at", "state", "expected_sha", "message")
    readonly_fields = fields


@admin.register(models.ReviewEntry)
class ReviewEntryAdmin(ReadOnlyAdmin):
    """The merge queue."""

    town_path = "rig__town"
    list_display = ("bead", "state", "reason", "held", "branch", "target", "attempts", "created_at")
    list_filter = (filters.EntryFilter, "state", "reason", "held", BY_RIG)
    list_select_related = ("bead",)
    search_fields = ("bead__id", "bead__title", "branch", "head_sha", "source__id", "merge_sha")
    search_help_text = "id, title, branch, head or merge commit, source bead's id"
    ordering = ("-created_at",)
    inlines = [GateInline, VerdictInline, WaiverInline, LandingInline]
    actions = actions_of(models.ReviewEntry)

    def page_of(self, row: models.ReviewEntry) -> str:
        """Its page."""
        return reverse("review", args=[row.pk])

    def subject_context(self, request: HttpRequest, row: models.ReviewEntry) -> dict[str, Any]:
        """Adds *why*."""
        return {**super().subject_context(request, row), "why": why.of_entry(row)}


@admin.register(models.Candidate)
class CandidateAdmin(ReadOnlyAdmin):
    """Builds."""

    town_path = "entry__rig__town"
    list_display = ("id", "entry", "build_no", "result", "sha", "base_sha", "created_at")
    list_filter = ("result",)
    list_select_related = ("entry",)
    search_fields = ("entry__bead__id", "sha", "base_sha", "head_sha", "error")
    ordering = ("-id",)


@admin.register(models.GateResult)
class GateResultAdmin(ReadOnlyAdmin):
    """Gate results."""

    town_path = "entry__rig__town"
    list_display = ("id", "entry", "gate", "outcome", "flaky", "exit_code", "duration_ms", "sandbox", "created_at")
    list_filter = ("outcome", "flaky", "gate")
    list_select_related = ("entry",)
    search_fields = ("entry__bead__id", "run__id", "gate")
    ordering = ("-id",)


@admin.register(models.Verdict)
class VerdictAdmin(ReadOnlyAdmin):
    """Verdicts."""

    town_path = "entry__rig__town"
    list_display = ("id", "entry", "decision", "by", "head_sha", "created_at")
    list_filter = ("decision",)
    list_select_related = ("entry",)
    search_fields = ("entry__bead__id", "by", "head_sha")
    ordering = ("-id",)


@admin.register(models.Landing)
class LandingAdmin(ReadOnlyAdmin):
    """Landings."""

    town_path = "rig__town"
    list_display = ("id", "entry", "state", "expected_sha", "message", "created_at")
    list_filter = ("state", BY_RIG)
    list_select_related = ("entry",)
    search_fields = ("entry__bead__id", "expected_sha", "message")
    ordering = ("-id",)


@admin.register(Rig)
class RigAdmin(ConfigEditor):
    """Rigs."""

    list_display = ("slug", "town", "default_branch", "parked_at")
    list_filter = (BY_TOWN,)
    search_fields = ("slug",)
    exclude = ("remote_url", "config")
    readonly_fields = ("remote", "config_toml")
    actions = actions_of(Rig)

    @admin.display(description="Remote")
    def remote(self, rig: Rig) -> str:
        """The URL without credentials."""
        return redact(rig.remote_url)

    @admin.display(description="Config")
    def config_toml(self, rig: Rig) -> str:
        """Its overrides."""
        return config_text(rig) or "as the town's"


@admin.register(models.Violation)
class ViolationAdmin(ReadOnlyAdmin):
    """Broken promises, with what to do about them."""

    list_display = ("number", "subject", "sentence", "remedy", "town", "first_seen", "cleared_at")
    list_filter = (("cleared_at", admin.EmptyFieldListFilter), "number", BY_TOWN)
    list_select_related = ("town",)
    search_fields = ("subject",)


@admin.register(models.TickRecord)
class TickRecordAdmin(ReadOnlyAdmin):
    """What the ticks did."""

    list_display = ("at", "town", "facts", "pending", "actions", "effects_done", "effects_failed", "violations",
                    "lost_races", "failed", "milliseconds")  # fmt: skip
    list_filter = (BY_TOWN,)
    list_select_related = ("town",)


@admin.register(models.Lane)
class LaneAdmin(ReadOnlyAdmin):
    """What is remembered of lanes: how long a train may be, and who froze it."""

    town_path = "rig__town"
    list_display = ("rig", "target", "window", "frozen_at", "frozen_until", "frozen_by", "frozen_reason")
    list_filter = (BY_RIG, ("frozen_at", admin.EmptyFieldListFilter))
    list_select_related = ("rig",)
    search_fields = ("target", "frozen_by", "frozen_reason")
    actions = actions_of(models.Lane)


@admin.register(models.HostedPull)
class HostedPullAdmin(ReadOnlyAdmin):
    """Pull requests on rigs' hosts, as they were last read."""

    town_path = "rig__town"
    list_display = ("rig", "number", "entry", "offered", "head", "wanted_at", "read_at", "answer", "ended_at")
    list_filter = (BY_RIG, ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("rig", "entry")
    search_fields = ("entry__bead__id", "number", "head")
    ordering = ("-id",)


@admin.register(models.RigHost)
class RigHostAdmin(ReadOnlyAdmin):
    """Hosts of pull requests: whether they answer."""

    town_path = "rig__town"
    list_display = ("rig", "polled_at", "kind", "trouble", "since", "next_try_at")
    list_select_related = ("rig",)


@admin.register(models.ReviewComment)
class ReviewCommentAdmin(ReadOnlyAdmin):
    """Remarks on lines."""

    town_path = "entry__rig__town"
    list_display = ("created_at", "entry", "file", "line", "by", "resolved_at")
    list_select_related = ("entry",)
    search_fields = ("entry__bead__id", "file", "by", "body")
    ordering = ("-id",)
