"""The apps' registrations: the installation itself, and Django's admin with our own site."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class SiteConfig(AppConfig):
    """What belongs to the installation rather than to a layer."""

    name = "gastown_site"

    def ready(self) -> None:
        """The first password is forgotten when it has served."""
        from django.contrib.auth import get_user_model
        from django.contrib.auth.signals import user_logged_in
        from django.db.models.signals import post_save

        user_logged_in.connect(_on_login, dispatch_uid="first password")
        post_save.connect(_on_saved, sender=get_user_model(), dispatch_uid="first password")


def _on_login(sender: Any, user: Any, **_: Any) -> None:
    from gastown_site import entrance  # the login's views: commands do without them

    entrance.forget_first_password(user)


def _on_saved(sender: Any, instance: Any, created: bool, update_fields: Any = None, **_: Any) -> None:
    from gastown_site import entrance

    if not created and (not update_fields or "password" in update_fields):
        entrance.check_first_password(instance)


class ConsoleConfig(SimpleAdminConfig):
    """The admin, on `gastown_site.console.ConsoleSite`. The URLconf discovers it: a command does without."""

    default = False
    default_site = "gastown_site.console.ConsoleSite"
