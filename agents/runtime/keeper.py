"""Around one of several gates that run at once: whatever the gate starts stays below this process and ends with it.

Started by the shim as a script, with the command as its arguments. Ends as the command did: its exit code, or
128 + the signal that ended it. Who wants the gate ended kills what is below the keeper: daemons are there, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0:1] = [str(Path(__file__).resolve().parents[2])]

from agents.runtime import processes


def main() -> int:
    """Run the command; then nothing of it goes on."""
    processes.adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # not SIG_IGN: the command would inherit that
    try:
        command = subprocess.Popen(sys.argv[1:], start_new_session=True, preexec_fn=processes.die_with_shim)
    except OSError as error:
        sys.stderr.write(f"cannot start {sys.argv[1]}: {error}\n")
        if isinstance(error, FileNotFoundError):
            return 127
        return 126
    code = command.wait()
    processes.kill_descendants(signal.SIGKILL)
    if code >= 0:
        return code
    return 128 - code


if __name__ == "__main__":
    sys.exit(main())
