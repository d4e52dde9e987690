"""A program that acts as `claude` does with its sessions: kept below HOME by working directory, resumed by name.

It appends each prompt to its session, commits `memory.txt` (how many it remembers, where it is) and does what words of
the task say. `STUMBLE`: its first attempt fails. `ASK`: it asks, and exits, until it is answered. `HANG`: it writes a
draft, and waits to be stopped, until it is given a hint. `REFUSE`: an attempt that is to go on with a session fails.
`HOARD`: its session is larger than what is kept.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call

given = sys.argv[sys.argv.index("--resume") + 1] if "--resume" in sys.argv else ""
folder = Path.home() / ".claude" / "projects" / re.sub(r"[^A-Za-z0-9]", "-", str(Path.cwd()))
session = folder / f"{given or uuid.uuid4()}.jsonl"
if given and not session.exists():
    print(f"No conversation found with session ID: {given}")
    sys.exit(1)
prompt = sys.stdin.read()
before = session.read_text().splitlines() if session.exists() else []
folder.mkdir(parents=True, exist_ok=True)
session.write_text("".join(f"{line}\n" for line in [*before, json.dumps(prompt)]))
print(json.dumps({"type": "system", "subtype": "init", "session_id": session.stem}), flush=True)

prime = call("gt_prime")
source = prime.get("merge_request", {}).get("source") or prime["bead"]
text = source["body"]
if "HOARD" in text:
    (folder / "hoard").write_bytes(bytes(60 << 20))
if prime["purpose"] == "review":
    if before or "remembers" not in text:
        call("gt_done", summary=f"fine, remembering {len(before)}")
    else:
        call("gt_request_changes", feedback="once more, please")
    sys.exit()
if "STUMBLE" in text and prime["attempt"] == 1:
    sys.exit("stumbled")
if "REFUSE" in text and (given or prime["attempt"] == 1):
    sys.exit("refused")
if "ASK" in text and "Blue" not in prompt:
    call("gt_ask", text="Which colour?\nBlue or red.")
    sys.exit("no answer yet")
if "HANG" in text and "heed it first" not in prompt:
    Path("draft.txt").write_text("a draft\n")
    call("gt_status", message="hanging")
    time.sleep(3600)
saved = ""
if "refs/gastown/saved" in prompt:
    show = ["git", "show", "refs/gastown/saved:draft.txt"]
    saved = subprocess.run(show, check=True, capture_output=True, text=True).stdout
told = {"remembers": len(before), "cwd": str(Path.cwd()), "purpose": prime["purpose"], "prompt": prompt, "saved": saved}
Path("memory.txt").write_text(json.dumps(told))
subprocess.run(["git", "add", "-A"], check=True)
subprocess.run(["git", "commit", "-qm", f"Remembers {len(before)}"], check=True)
call("gt_done", summary=f"remembers {len(before)}")
