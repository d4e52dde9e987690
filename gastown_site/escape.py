"""`doctor` tries to break out of the sandbox, as an agent that was talked into it would; it says what worked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection

from agents.runtime import sandbox

SECONDS = 60.0

_PROBE = """
import ctypes, glob, json, os, socket, sys
told = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
worked = {}

def attempt(name, act):
    try:
        worked[name] = bool(act())
    except (OSError, ValueError):
        worked[name] = False

def reads(paths):
    for path in paths:
        try:
            if os.path.isdir(path):
                return bool(os.listdir(path))
            with open(path, "rb") as handle:
                return bool(handle.read(1))
        except OSError:
            pass

def foreign():
    for place in glob.glob("/proc/[0-9]*"):
        with open(place + "/comm") as handle:
            if not handle.read().startswith(("bwrap", "python", "gastown")):
                return True
        with open(place + "/environ", "rb") as handle:
            if any(name in handle.read() for name in (b"DATABASE_URL=", b"SECRET", b"DJANGO_")):
                return True

def connects(where):
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(2)
        one.connect(where if isinstance(where, str) else tuple(where))
    return True

def capabilities():
    with open("/proc/self/status") as handle:
        return any(int(l.split()[1], 16) for l in handle if l.startswith(("CapPrm", "CapEff", "CapBnd", "CapAmb")))

def writes():
    for path in ("/usr/.gastown", "/etc/.gastown", "/.gastown"):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            return True
        except OSError:
            pass

attempt("read Gastown's home and its secrets", lambda: reads(told["home"]))
attempt("read the home of the server's user", lambda: reads(told["user"]))
attempt("see processes of the host, or their environment", foreign)
attempt("hold capabilities, or be root", lambda: os.getuid() == 0 or capabilities())
attempt("mount something", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
attempt("write to the system", writes)
attempt("reach the database", lambda: connects(told["database"]))
attempt("reach the server past the tool API", lambda: connects(told["server"]))
attempt("reach a network", lambda: connects(["192.0.2.1", 80]))
attempt("make a user namespace of its own", lambda: libc.unshare(0x10000000) == 0)
print(json.dumps(worked))
"""


def attempts() -> Mapping[str, bool]:
    """What was tried from inside → whether it worked. Raises OSError when the probe itself could not be run."""
    found = sandbox.required()
    python = os.path.realpath(sys.executable)
    shown = [path for path in (sys.base_prefix, python) if not path.startswith("/usr/")]
    box = sandbox.Box(found.kind, found.bwrap, read_only=tuple(shown), limits={"tmp": 1 << 20, "memory": 1 << 30})
    home = Path(settings.GASTOWN_HOME)
    url = urlsplit(settings.GASTOWN_URL)
    told = {
        "home": [str(home), *(str(home / name) for name in ("secret_key", "pg_password", "admin_password"))],
        "user": _own_files(Path.home()),
        "database": _database(),
        "server": ["127.0.0.1", url.port or 8000],
    }
    _, text = sandbox.ask(box, [python, "-I", "-S", "-c", _PROBE, json.dumps(told)], SECONDS)
    try:
        worked: Mapping[str, bool] = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise OSError(f"the probe said nothing that can be read: {text[-300:]!r}") from None
    return worked


def _own_files(home: Path) -> list[str]:
    """Files of the server's user that are there, and that nobody inside should be able to read."""
    found = [*home.glob("*"), *home.glob(".ssh/*"), *home.glob(".aws/*"), *home.glob(".config/*/*")]
    return [str(path) for path in found if path.is_file()][:200]


def _database() -> str | list[str | int]:
    """Where the database listens: a socket's path, or host and port."""
    given = connection.settings_dict
    host, port = str(given.get("HOST") or "/var/run/postgresql"), int(given.get("PORT") or 5432)
    if host.startswith("/"):
        return f"{host}/.s.PGSQL.{port}"
    return [host, port]
