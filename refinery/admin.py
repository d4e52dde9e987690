"""The ops console: read-only rows with *why*, and actions that open doors. `ACTIONS` lists every one of them."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone

from agents.gitcmd import redact
from agents.models import Run
from beads import inbox, outbox
from beads.admin import BlockedByInline, EventInline
from beads.consoles import ReadOnlyAdmin, ReadOnlyInline, door_action
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Rig, Town
from refinery import doors, models, reconciler

ACTIONS = {
    "cancel_bead": door_action("cancel_bead", "Cancel", lambda b, who: doors.cancel_bead(b, "", who)),
    "retry_bead": door_action("retry_bead", "Retry", doors.retry_bead),
    "retry_entry": door_action("retry_entry", "Retry: clear the hold, or bring it back", doors.retry_entry),
    "reject_entry": door_action(
        "reject_entry", "Reject for good", lambda e, who: doors.reject(e, f"rejected by {who}", who)
    ),
    "stop_run": door_action("stop_run", "Stop", lambda r, who: doors.stop_run(r, "", who)),
    "pause_town": door_action("pause_town", "Pause", lambda t, who: doors.pause(t, "", who)),
    "resume_town": door_action("resume_town", "Resume", doors.resume),
    "park_rig": door_action("park_rig", "Park", doors.park),
    "unpark_rig": door_action("unpark_rig", "Unpark", doors.unpark),
    "start_convoy": door_action("start_convoy", "Start", doors.start_convoy),
    "close_convoy": door_action("close_convoy", "Close midway", doors.close_convoy),
    "retry_convoy": door_action("retry_convoy", "Retry what failed", doors.retry_convoy),
    "release_fact": door_action("release_fact", "Release from quarantine", lambda f, who: inbox.release(f)),
    "run_effect_again": door_action(
        "run_effect_again", "Run a failed effect again", lambda e, who: outbox.again(e, timezone.now())
    ),
    "acknowledge": door_action("acknowledge", "Acknowledge", doors.acknowledge),
    "close_escalation": door_action("close_escalation", "Close", doors.close_escalation),
}


def why(town: Town, subject: str) -> str:
    """What the plan says about a subject now."""
    told = [f"{d.rule}: {d.why}" for d in reconciler.explain(town) if d.subject == subject]
    return "; ".join(told) or "it has ended, or nothing is decided about it"


class RunInline(ReadOnlyInline):
    """A bead's runs."""

    model = Run
    fields = ("id", "kind", "attempt", "state", "outcome", "reason", "created_at")
    readonly_fields = fields


@admin.register(Town)
class TownAdmin(ReadOnlyAdmin):
    """Towns."""

    list_display = ("slug", "paused_at", "paused_reason", "created_at")
    actions = [ACTIONS["pause_town"], ACTIONS["resume_town"]]


@admin.register(Bead)
class BeadAdmin(ReadOnlyAdmin):
    """Beads."""

    list_display = ("id", "title", "type", "status", "resolution", "priority", "rig", "convoy", "created_at")
    list_filter = ("status", "type", "purpose", "resolution", "town")
    list_select_related = ("rig", "convoy")
    search_fields = ("id", "title")
    inlines = [BlockedByInline, RunInline, EventInline]
    actions = [ACTIONS["cancel_bead"], ACTIONS["retry_bead"]]
    readonly_fields = ("now",)

    @admin.display(description="Why is it where it is?")
    def now(self, bead: Bead) -> str:
        """The plan's sentence."""
        return why(bead.town, f"bead {bead.pk}")


@admin.register(Convoy)
class ConvoyAdmin(ReadOnlyAdmin):
    """Convoys."""

    list_display = ("bead", "rig", "merge_mode", "started_at", "landed_at", "landed_sha")
    list_select_related = ("bead", "rig")
    search_fields = ("bead__id", "bead__title")
    actions = [ACTIONS["start_convoy"], ACTIONS["close_convoy"], ACTIONS["retry_convoy"]]
    readonly_fields = ("now",)

    @admin.display(description="Why is it where it is?")
    def now(self, convoy: Convoy) -> str:
        """The plan's sentence."""
        return why(convoy.bead.town, f"convoy {convoy.pk}")


@admin.register(Escalation)
class EscalationAdmin(ReadOnlyAdmin):
    """What needs a person."""

    list_display = ("bead", "severity", "town", "about", "acknowledged_by", "closed_at")
    list_filter = ("severity", "town", ("closed_at", admin.EmptyFieldListFilter))
    list_select_related = ("bead", "town", "about")
    actions = [ACTIONS["acknowledge"], ACTIONS["close_escalation"]]


@admin.register(Fact)
class FactAdmin(ReadOnlyAdmin):
    """The inbox."""

    list_display = ("id", "recorded_at", "kind", "subject", "actor", "processed_at", "quarantined_at", "error")
    list_filter = ("kind", ("quarantined_at", admin.EmptyFieldListFilter), ("processed_at", admin.EmptyFieldListFilter))
    search_fields = ("subject", "actor")
    actions = [ACTIONS["release_fact"]]


@admin.register(Effect)
class EffectAdmin(ReadOnlyAdmin):
    """The outbox."""

    list_display = ("id", "kind", "key", "state", "attempts", "next_try_at", "error")
    list_filter = ("state", "kind")
    search_fields = ("key",)
    actions = [ACTIONS["run_effect_again"]]


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Runs."""

    list_display = ("id", "kind", "state", "outcome", "agent", "bead", "attempt", "lease_until", "created_at")
    list_filter = ("state", "kind", "outcome", "town")
    list_select_related = ("agent", "bead")
    search_fields = ("id", "bead__id", "agent__name")
    exclude = ("token_hash", "claim_hash", "fenced_hash")
    actions = [ACTIONS["stop_run"]]
    readonly_fields = ("now",)

    @admin.display(description="Why is it where it is?")
    def now(self, run: Run) -> str:
        """The plan's sentence."""
        return why(run.town, f"run {run.pk}")


class VerdictInline(ReadOnlyInline):
    """Reviews."""

    model = models.Verdict
    fields = ("created_at", "decision", "by", "head_sha", "feedback")
    readonly_fields = fields


class GateInline(ReadOnlyInline):
    """Gate results."""

    model = models.GateResult
    fields = ("created_at", "gate", "outcome", "exit_code", "tree_sha", "sandbox")
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

    list_display = ("bead", "state", "reason", "held", "branch", "target", "attempts", "created_at")
    list_filter = ("state", "reason", "held", "rig")
    list_select_related = ("bead",)
    search_fields = ("bead__id", "bead__title", "branch", "head_sha")
    inlines = [GateInline, VerdictInline, LandingInline]
    actions = [ACTIONS["retry_entry"], ACTIONS["reject_entry"]]
    readonly_fields = ("now",)

    @admin.display(description="Why is it where it is?")
    def now(self, entry: models.ReviewEntry) -> str:
        """The plan's sentence."""
        return why(entry.rig.town, f"entry {entry.pk}")


@admin.register(models.Candidate)
class CandidateAdmin(ReadOnlyAdmin):
    """Builds."""

    list_display = ("id", "entry", "build_no", "result", "sha", "base_sha", "created_at")
    search_fields = ("entry__bead__id", "sha")


@admin.register(models.GateResult)
class GateResultAdmin(ReadOnlyAdmin):
    """Gate results."""

    list_display = ("id", "entry", "gate", "outcome", "exit_code", "duration_ms", "sandbox", "created_at")
    list_filter = ("outcome", "gate")


@admin.register(models.Verdict)
class VerdictAdmin(ReadOnlyAdmin):
    """Verdicts."""

    list_display = ("id", "entry", "decision", "by", "head_sha", "created_at")


@admin.register(models.Landing)
class LandingAdmin(ReadOnlyAdmin):
    """Landings."""

    list_display = ("id", "entry", "state", "expected_sha", "message", "created_at")
    list_filter = ("state",)


@admin.register(Rig)
class RigAdmin(ReadOnlyAdmin):
    """Rigs."""

    list_display = ("slug", "town", "default_branch", "parked_at")
    list_filter = ("town",)
    search_fields = ("slug",)
    exclude = ("remote_url",)
    readonly_fields = ("remote",)
    actions = [ACTIONS["park_rig"], ACTIONS["unpark_rig"]]

    @admin.display(description="Remote")
    def remote(self, rig: Rig) -> str:
        """The URL without credentials."""
        return redact(rig.remote_url)


@admin.register(models.Violation)
class ViolationAdmin(ReadOnlyAdmin):
    """Broken promises, with what to do about them."""

    list_display = ("number", "subject", "sentence", "remedy", "town", "first_seen", "cleared_at")
    list_filter = (("cleared_at", admin.EmptyFieldListFilter), "number", "town")
    search_fields = ("subject",)


@admin.register(models.TickRecord)
class TickRecordAdmin(ReadOnlyAdmin):
    """What the ticks did."""

    list_display = ("at", "town", "facts", "pending", "actions", "effects_done", "effects_failed", "violations",
                    "lost_races", "failed", "milliseconds")  # fmt: skip
    list_filter = ("town",)
