"""The console's sidebar: what an operator looks for first stands first."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

_GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Now",
        (
            ("Dashboard", "monitoring", "index"),
            ("Needs a person", "notification_important", "beads_escalation_changelist"),
            ("Merge queue", "merge", "refinery_reviewentry_changelist"),
            ("Runs", "play_circle", "agents_run_changelist"),
        ),
    ),
    (
        "Work",
        (
            ("Beads", "task_alt", "beads_bead_changelist"),
            ("Convoys", "local_shipping", "beads_convoy_changelist"),
            ("History", "history", "beads_beadevent_changelist"),
            ("Mail", "mail", "agents_mail_changelist"),
        ),
    ),
    (
        "Machine",
        (
            ("Facts", "inbox", "beads_fact_changelist"),
            ("Effects", "outbox", "beads_effect_changelist"),
            ("Candidates", "construction", "refinery_candidate_changelist"),
            ("Gate results", "rule", "refinery_gateresult_changelist"),
            ("Verdicts", "gavel", "refinery_verdict_changelist"),
            ("Landings", "flight_land", "refinery_landing_changelist"),
            ("Agents", "smart_toy", "agents_agent_changelist"),
            ("Lanes", "train", "refinery_lane_changelist"),
            ("Ticks", "timer", "refinery_tickrecord_changelist"),
            ("Broken promises", "report", "refinery_violation_changelist"),
            ("Heartbeats", "ecg_heart", "beads_heartbeat_changelist"),
        ),
    ),
    (
        "Set-up",
        (
            ("Towns", "location_city", "beads_town_changelist"),
            ("Rigs", "folder_data", "beads_rig_changelist"),
            ("Config versions", "difference", "beads_configversion_changelist"),
            ("Roles", "badge", "beads_membership_changelist"),
            ("Secrets", "key", "beads_secret_changelist"),
        ),
    ),
)
_ROOT_ONLY = (
    ("Accounts", "person", "auth_user_changelist"),
    ("Audit", "fact_check", "admin_logentry_changelist"),
    ("Task queue", "schedule", "django_q_schedule_changelist"),
    ("Failed tasks", "error", "django_q_failure_changelist"),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """unfold's navigation for whoever looks."""
    groups = [{"title": title, "separator": True, "items": [_item(*row) for row in rows]} for title, rows in _GROUPS]
    if getattr(request.user, "is_superuser", False):
        groups.append({"title": "Superusers", "separator": True, "items": [_item(*row) for row in _ROOT_ONLY]})
    return groups


def _item(title: str, icon: str, name: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse(f"admin:{name}")}
