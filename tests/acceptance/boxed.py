"""Steps in their boxes without a server: a driver that another user can run, and the scene around it.

As a script: reads a spec from its standard input, runs its steps, prints what came of them as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


class Lines:
    """A run's log, in memory."""

    def __init__(self) -> None:
        self.data = b""
        self.said: list[str] = []

    def write(self, data: bytes) -> None:
        self.data += data

    def say(self, text: str) -> None:
        self.said.append(text)


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the spec's steps: `{"results", "said", "log"}`. `"cgroups": false` in it: as where none can be made."""
    from agents.runtime import cgroups
    from agents.runtime.orders import Orders
    from agents.runtime.steps import Steps

    log, real = Lines(), cgroups.Group.make
    if not spec.get("cgroups", True):
        cgroups.Group.make = staticmethod(lambda _: None)  # type: ignore[method-assign, assignment]
    try:
        results, _ = Steps(spec, log, Orders(), lambda: {}).run()
    finally:
        cgroups.Group.make = real  # type: ignore[method-assign]
    return {"results": results, "said": log.said, "log": log.data.decode("utf-8", "replace")}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1])))
    json.dump(run(json.load(sys.stdin)), sys.stdout)
