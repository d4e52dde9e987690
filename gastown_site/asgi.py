"""The ASGI entry point: Django, and beside it `/mcp`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

from agents.model_door import mount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")
_django = mount.beside(get_asgi_application())


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """One request: its path says whose it is."""
    if scope["type"] == "http" and scope["path"] in ("/mcp", "/mcp/"):
        from agents.api import mcp  # it needs Django's apps

        await mcp.application(scope, receive, send)
    else:
        await _django(scope, receive, send)
