"""A scripted mayor: it reads the repository and the ledger, and does what words of the request tell it to do.

`FORMAT` in the request: it asks which one, and plans with the answer. `WHY`: it answers from what it has heard.
`IDLE`: it does nothing. `DIE FIRST`, `DIE AFTER`: its first attempt is killed before, or after, it has planned.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call

prime = call("gt_prime")
text = prime["task"]["body"]
prompt = Path(os.environ["GASTOWN_PROMPT_FILE"]).read_text()
assert "the mayor of this town" in prompt
assert text.splitlines()[0] in prompt
readme = Path("README.md").read_text()
head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
call("gt_status", message=f"reading {head[:12]}")
Path("notes.txt").write_text("never to be seen\n")
subprocess.run(["git", "add", "-A"], check=True)
subprocess.run(["git", "commit", "-q", "-m", "the mayor's own scribbles"], check=True)
known = call("gt_bead_list")
queue = call("gt_queue")["entries"]
print(f"{known['total']} beads, {len(queue)} in the queue, {readme!r}")

answers = [said["text"] for said in prime["request"]["said"] if said["kind"] == "answer"]
first = prime["attempt"] == 1
if "IDLE" in text:
    call("gt_done", summary="nothing comes to my mind")
    sys.exit()
if "DIE FIRST" in text and first:
    os.kill(os.getpid(), signal.SIGKILL)
if "FORMAT" in text and not answers:
    call("gt_ask", text="CSV or JSON?")
    sys.exit()
if "WHY" in text:
    heard = "; ".join(m["subject"] for m in prime["mail"])
    stands = "; ".join(c["stands"] for c in prime["request"]["convoys"])
    call("gt_mayor_answer", text=f"heard: {heard}; stands: {stands}")
    sys.exit()
kind = answers[-1].lower() if answers else "txt"
fail = "exit 1" if "BREAKS" in text else "true"
made = call(
    "gt_convoy_create",
    title=f"Export as {kind}",
    beads=[
        {"key": "one", "title": "Write it", "body": f"{fail}; echo one > one.{kind}", "files": [f"one.{kind}"]},
        {
            "key": "two",
            "title": "Tell of it",
            "body": f"test -f one.{kind} && echo two > two.{kind}",
            "after": ["one"],
            "priority": 1,
            "estimate": "10 min",
        },
    ],
)
assert made["staged"] is True
if "DIE AFTER" in text and first:
    os.kill(os.getpid(), signal.SIGKILL)
call("gt_done", summary=f"two steps, from {readme.strip()}")
