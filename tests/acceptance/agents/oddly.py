"""A polecat that does its work in the odd way that its bead's title names (see `odd`), in its first attempt only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import odd
from tool import call

prime = call("gt_prime")
done: dict[str, Any] = {}
if prime["attempt"] == 1:
    done = odd.do(prime["bead"]["title"], prime["bead"]["id"])
else:
    odd.write(prime["bead"]["id"])
    odd.commit(prime["bead"]["id"], "--allow-empty")
call("gt_done", **{"summary": "done", **done})
