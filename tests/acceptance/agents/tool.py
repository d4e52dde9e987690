"""The tool API over the standard library."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """Call one tool of this run."""
    request = urllib.request.Request(
        f"{os.environ['GASTOWN_URL']}/api/tools/{tool}",
        data=json.dumps(arguments).encode(),
        headers={"Authorization": f"Bearer {os.environ['GASTOWN_TOKEN']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
        return data
