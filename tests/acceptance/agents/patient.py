"""A polecat with patience: commits, waits until its argument, a file, exists, commits again, and is done.

What it has written and not committed meanwhile is `draft.txt`. A bead titled *At once* waits only in its rework.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call


def commit(part: str) -> None:
    """A file of this run's own."""
    name = f"{os.environ['GASTOWN_RUN']}.{part}"
    Path(name).write_text(f"{os.getuid()}\n")
    subprocess.run(["git", "add", name], check=True)
    subprocess.run(["git", "commit", "-q", "-m", f"{title}: {part}"], check=True)


prime = call("gt_prime")
source = prime.get("merge_request", {}).get("source") or prime["bead"]
title = source["title"]
commit("first")
if title != "At once" or prime["rework"]:
    draft = Path("draft.txt")
    draft.write_text("not committed yet\n")
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    draft.unlink()
    commit("second")
call("gt_done", summary="done")
