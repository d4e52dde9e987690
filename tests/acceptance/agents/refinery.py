"""A scripted refinery: waits until the file that it is given exists, then approves; `reject:` in a file sends back.

Asked to resolve a conflict, it merges and keeps both sides.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call

prime = call("gt_prime")
release = Path(sys.argv[1])
while not release.exists():
    time.sleep(0.02)
if prime["purpose"] == "resolve":
    subprocess.run(["git", "merge", "--no-edit", prime["conflict"]["base_sha"]], check=False)
    for name in prime["conflict"]["files"]:
        kept = [x for x in Path(name).read_text().splitlines() if not x.startswith(("<<<<<<<", "=======", ">>>>>>>"))]
        Path(name).write_text("\n".join(kept) + "\n")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-q", "--no-edit"], check=True)
found = subprocess.run(["git", "grep", "-n", "reject:"], capture_output=True, text=True).stdout.splitlines()
if found:
    file, line, text = found[0].split(":", 2)
    call("gt_request_changes", feedback="not like this", items=[{"file": file, "line": int(line), "problem": text}])
else:
    call("gt_done", summary="fine")
