"""How a command says no: one line on stderr, or one JSON document on stdout; exit 1. Needs no settings."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from beads.errors import GastownError


def refuse(error: GastownError, *, as_json: bool) -> NoReturn:
    """Say why, and exit 1."""
    if as_json:
        told = {"code": error.code, "message": error.message, "details": error.details}
        sys.stdout.write(json.dumps({"ok": False, "error": told}, default=str) + "\n")
    else:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
    sys.stdout.flush()
    sys.exit(1)
