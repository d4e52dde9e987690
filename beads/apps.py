"""The app's registration."""

from __future__ import annotations

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """Ledger."""

    name = "beads"
    default_auto_field = "django.db.models.BigAutoField"
