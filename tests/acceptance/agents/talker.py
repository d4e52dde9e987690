"""Agents that go by their words: each reads its prompt file and does what is asked for there, and nothing else.

A polecat writes the file that `write NAME` asks for (in its task, or in a request), and what it is told to look at with
`git diff` it looks at. Where nothing is to be written it commits nothing, and says `RIGHT`. A refinery asks for
`write FILE` where the task says `wants FILE` and the candidate has none, unless the author's answer convinces it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call

RIGHT = "it is right as it is"
prompt = Path(os.environ["GASTOWN_PROMPT_FILE"]).read_text()
asked = prompt.partition("## Rework")[2].partition("\n## ")[0] + prompt.partition("## What people ask for")[2]
prime = call("gt_prime")
if os.environ["GASTOWN_ROLE"] == "polecat":
    seen = ""
    if prime["rework"]:
        look = re.search(r"`(git diff [0-9a-f]{40}\.\.\.HEAD)`", prompt)
        assert look is not None
        seen = subprocess.run(look[1].split(), capture_output=True, text=True, check=True).stdout
    names = re.findall(r"write ([\w.]+)", asked if prime["rework"] else prompt.partition("## The task")[2])
    fresh = [name for name in names if not Path(name).exists()]
    for name in fresh:
        Path(name).write_text(f"{name}\n")
    if fresh:
        subprocess.run(["git", "add", "-A"], check=True)
        subprocess.run(["git", "commit", "-qm", f"Write {', '.join(fresh)}"], check=True)
    call("gt_done", summary=f"wrote {fresh}; the change had {seen.count('diff --git')} files" if fresh else RIGHT)
elif prime["purpose"] == "triage":
    found = re.search(r"needs ([\w.]+)", prompt)
    assert found is not None
    call(
        "gt_request_changes",
        feedback="the gate misses a file",
        items=[{"file": found[1], "problem": f"write {found[1]}"}],
    )
else:
    wanted = re.search(r"wants ([\w.]+)", prompt)
    if wanted is None or Path(wanted[1]).exists() or RIGHT in prompt:
        call("gt_done", summary="fine")
    else:
        call("gt_request_changes", feedback=f"look at {wanted[1]} again")
