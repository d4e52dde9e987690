"""Commands typed at an installation, all in one process: starting one for each takes most of a test's time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]


class Desk:
    """Commands typed at the installation of `env`, with the code at `root`."""

    def __init__(self, env: Mapping[str, str], root: Path = HERE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(root / "tests/acceptance/driver.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, *words: str) -> Any:
        """One command's data. Raises AssertionError when it is refused: it may meet what was just killed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([*words, "--json"]) + "\n")
        self.process.stdin.flush()
        code, out, err = json.loads(self.process.stdout.readline())
        assert code == 0, err or out
        return json.loads(out)["data"]

    def beads(self) -> list[dict[str, Any]]:
        """The planned work."""
        return [b for b in self("bead", "list", "--limit", "100000") if b["purpose"] == "work"]

    def leave(self) -> None:
        """End the process."""
        self.process.communicate(timeout=60)
