"""A polecat that misbehaves: it crashes, hangs, finishes late, calls twice, ignores SIGTERM, leaves daemons, floods.

Its work is one file named after its bead. `python chaos.py MARK`: the mark is on the command line of its daemons. A
title such as `Bead 7 (stash)` lets it do the work in that odd way (see `odd`), in its first attempts: then it has
learnt.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import odd
from tool import call

ODD_ATTEMPTS = 2
mark = sys.argv[1]
prime = call("gt_prime")
chance = random.Random(f"{prime['run']}")
source = prime.get("merge_request", {}).get("source") or prime["bead"]
name = source["id"]
asked = re.search(r"\((\w+)\)$", source["title"])
deed = asked[1] if asked and prime["purpose"] == "work" and prime["attempt"] <= ODD_ATTEMPTS else ""
mood = chance.choice(["calm"] * 6 + ["crash", "hang", "late", "twice", "deaf", "daemon", "flood"])
call("gt_status", message=f"feeling {mood}")

if mood == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mood == "flood":
    for _ in range(3000):
        print("x" * 1000)
if mood == "daemon" and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", mark])
    os._exit(0)

if prime["conflict"]:
    subprocess.run(["git", "merge", "--no-edit", "-X", "ours", prime["conflict"]["base_sha"]], check=False)
done: dict[str, Any] = {}
if deed:
    done = odd.do(deed, name)
else:
    odd.write(name)
    odd.commit(name, "--allow-empty")
time.sleep(chance.random())
if mood == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if mood == "hang" or (mood == "deaf" and chance.random() < 0.5):
    time.sleep(3600)
for _ in range(2 if mood == "twice" else 1):
    for _ in range(100):  # the server may be being killed just now
        try:
            call("gt_done", **{"summary": f"done, feeling {mood}", **done})
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
            time.sleep(0.2)
        except OSError:
            time.sleep(0.2)
if mood == "late":
    with contextlib.suppress(Exception):
        time.sleep(5)
        call("gt_status", message="still here")
