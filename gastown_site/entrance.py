"""The way in: the login page, which says how to make the first account while there is none."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.views import LoginView
from django.db.models import Model


class Login(LoginView):
    """Django's login; without any account it explains the first run instead of asking in vain."""

    def get_template_names(self) -> list[str]:
        """The first-run page while nobody could log in."""
        users: type[Model] = get_user_model()
        if not users._default_manager.exists():
            return ["registration/first_run.html"]
        return super().get_template_names()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The title for either page."""
        return {**super().get_context_data(**kwargs), "title": "Log in"}
