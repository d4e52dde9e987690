"""The apps' registrations: the installation itself, and Django's admin with our own site."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class SiteConfig(AppConfig):
    """What belongs to the installation rather than to a layer."""

    name = "gastown_site"


class ConsoleConfig(SimpleAdminConfig):
    """The admin, on `gastown_site.console.ConsoleSite`. The URLconf discovers it: a command does without."""

    default = False
    default_site = "gastown_site.console.ConsoleSite"
