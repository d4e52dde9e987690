"""Commands without starting a process for each: reads a line of JSON (the words), runs that command as `manage.py`
would, and writes a line of JSON (exit code, stdout, stderr). For the soak, which types hundreds of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gastown_site.settings")


def run(words: list[str]) -> tuple[int, str, str]:
    """One command line."""
    from django.db import close_old_connections, connections

    from gastown_site.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    sys.argv = ["manage.py", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            close_old_connections()
            main()
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            code, told = 1, f"{type(error).__name__}: {error}"
            err.write(told)
        finally:
            if code:
                connections.close_all()
    return code if isinstance(code, int) else (1 if code else 0), out.getvalue(), err.getvalue()


if __name__ == "__main__":
    replies = sys.stdout
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=replies, flush=True)
