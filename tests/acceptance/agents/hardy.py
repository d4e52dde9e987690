"""An agent that outlives its server: every call is made again until it is answered. Polecat and refinery in one.

With a path as argument it waits until that file exists before it does anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """Call one tool; an answer that says no ends the agent."""
    request = urllib.request.Request(
        f"{os.environ['GASTOWN_URL']}/api/tools/{tool}",
        data=json.dumps(arguments).encode(),
        headers={"Authorization": f"Bearer {os.environ['GASTOWN_TOKEN']}", "Content-Type": "application/json"},
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            if error.code < 500:
                sys.exit(f"{tool}: {error.read().decode()}")
        except OSError:
            pass
        time.sleep(0.1)


Path("draft.txt").write_text("not committed yet\n")
while len(sys.argv) > 1 and not Path(sys.argv[1]).exists():
    time.sleep(0.05)
Path("draft.txt").unlink()
prime = call("gt_prime")
if os.environ["GASTOWN_ROLE"] == "polecat":
    Path(f"{os.environ['GASTOWN_BEAD']}.txt").write_text("done\n")
    subprocess.run(["git", "add", "-A"], check=True)
    if subprocess.run(["git", "diff", "--cached", "--quiet"], check=False).returncode:
        subprocess.run(["git", "commit", "-q", "-m", prime["bead"]["title"]], check=True)
call("gt_done", summary="done")
