"""The ASGI entry point."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from agents.model_door import mount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")
application = mount.beside(get_asgi_application())
