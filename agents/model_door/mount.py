"""Puts the model door beside Django in the ASGI app. What it needs is imported with its first request."""

from __future__ import annotations

from typing import Any


def beside(app: Any) -> Any:
    """The application with `/model/…` in front of it."""

    async def either(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/model/"):
            from agents.model_door import door

            await door.serve(scope, receive, send)
        else:
            await app(scope, receive, send)

    return either
