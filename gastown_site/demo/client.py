"""What the demo's scripted agents share: the tool API over the standard library, and git."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

PACE = float(os.environ.get("DEMO_PACE", "0.8"))


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool of this run; raises on a refusal."""
    request = urllib.request.Request(
        f"{os.environ['GASTOWN_URL']}/api/tools/{tool}",
        data=json.dumps(arguments).encode(),
        headers={"Authorization": f"Bearer {os.environ['GASTOWN_TOKEN']}", "Content-Type": "application/json"},
    )
    for attempt in range(30):
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{tool}: HTTP {error.code} {error.read().decode()[:300]}") from error
        except OSError as error:  # the web server is being restarted: real agents retry, too
            if attempt == 29:
                raise SystemExit(f"{tool}: {error}") from error
            time.sleep(0.5)
    raise AssertionError("unreachable")


def git(*arguments: str, check: bool = True) -> str:
    """Run git in the worktree."""
    done = subprocess.run(["git", *arguments], check=check, capture_output=True, text=True)
    return done.stdout


def say(message: str) -> None:
    """Show what we do, and take a moment for it."""
    print(message, flush=True)
    call("gt_status", message=message)
    time.sleep(PACE)
