"""The app's registration."""

from __future__ import annotations

from django.apps import AppConfig


class AgentsConfig(AppConfig):
    """Agents."""

    name = "agents"
    default_auto_field = "django.db.models.BigAutoField"
