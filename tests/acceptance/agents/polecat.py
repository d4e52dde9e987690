"""A scripted polecat: its task is a shell script, the bead's body. After `---rework---`: what to do on rework; after
`---pull---`: the pull request that it says it has made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tool import call

prime = call("gt_prime")
source = prime.get("merge_request", {}).get("source") or prime["bead"]
task, _, pull = source["body"].partition("---pull---")
work, _, rework = task.partition("---rework---")
if prime["conflict"]:
    subprocess.run(["git", "merge", "--no-edit", prime["conflict"]["base_sha"]], check=False)
    for name in prime["conflict"]["files"]:
        path = Path(name)
        kept = [x for x in path.read_text().splitlines() if not x.startswith(("<<<<<<<", "=======", ">>>>>>>"))]
        path.write_text("\n".join(kept) + "\n")
    script = "true"
elif prime["rework"]:
    script = rework
else:
    script = work
subprocess.run(["sh", "-ec", script], check=True)
subprocess.run(["git", "add", "-A"], check=True)
subprocess.run(
    ["git", "commit", "-q", "--no-edit", "--allow-empty", "-m", f"{prime['purpose']}: {source['title']}"], check=True
)
call("gt_done", summary=f"{prime['purpose']} done", pr_url=pull.strip())
