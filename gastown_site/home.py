"""GASTOWN_HOME: where an installation keeps its state, and the secret in it. Stdlib only."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from beads.errors import Refused


def path() -> Path:
    """The home directory as configured (not created): `GASTOWN_HOME`, or a per-user default."""
    given = os.environ.get("GASTOWN_HOME")
    if given:
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/gastown")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "gastown"


def ensure() -> Path:
    """Create the home; raises Refused with one line when it cannot be written."""
    home = path()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise Refused(
            f"GASTOWN_HOME {home} is not writable ({error.strerror}): set GASTOWN_HOME to a directory of yours"
        ) from error
    return home


def secret_key() -> str:
    """The installation's secret, generated once (0600). Two first starts at once agree on one."""
    file = ensure() / "secret_key"
    if not file.exists():
        fd, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(fd, "w") as handle:
            handle.write(secrets.token_urlsafe(50))
        try:
            os.link(name, file)
        except FileExistsError:
            pass  # the other start was first
        finally:
            os.unlink(name)
    return file.read_text().strip()
