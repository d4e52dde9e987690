"""Where a process may be killed by a test, to show that nothing is lost, doubled or stuck when it dies just there.

Every boundary between a change inside and a change outside has a point. Without `GASTOWN_CRASH_AT` in the
environment a point does nothing. With it, the variable names a directory: a file there arms the point of that name,
and the first process to reach it takes the file away and kills itself with SIGKILL; the others go on.

Standard library only: the shim imports it. `tests/acceptance/test_crashes.py` finds all points in the source.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "GASTOWN_CRASH_AT"
_armed = os.environ.get(VARIABLE)


def crashpoint(name: str) -> None:
    """Die here, once, if a test has armed this point."""
    if _armed is None:
        return
    try:
        os.unlink(os.path.join(_armed, name))  # only one process can take the file away
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
