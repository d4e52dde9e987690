"""The app's registration."""

from __future__ import annotations

from django.apps import AppConfig


class RefineryConfig(AppConfig):
    """Refinery."""

    name = "refinery"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the refinery add its tools to the registry."""
        from refinery import agent_tools  # noqa: F401 - registers on import
