"""Files and moments that people name on the command line, read with one clear error."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

from django.utils.dateparse import parse_datetime

from beads import config as configs
from beads.errors import Invalid

LIMIT = 1024 * 1024


def read_text(name: str, field: str) -> str:
    """The text of a file (`-`: standard input). Raises Invalid naming the file."""
    try:
        data = sys.stdin.buffer.read(LIMIT + 1) if name == "-" else Path(name).read_bytes()
        if len(data) > LIMIT:
            raise Invalid(f"{name} is larger than {LIMIT} bytes", field=field)
        return data.decode("utf-8")
    except OSError as error:
        raise Invalid(f"{name} cannot be read: {error.strerror}", field=field) from None
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8", field=field) from None


def read_config(name: str | None) -> dict[str, Any]:
    """A config file, checked; an empty dict without one."""
    if name is None:
        return {}
    return configs.validate(configs.parse_toml(read_text(name, "config"), name), name)


def moment(field: str, text: str) -> dt.datetime:
    """A time as ISO 8601 with a time zone. Raises Invalid naming the argument."""
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Invalid(f"--{field}: {text!r} is not a time such as 2026-11-21T10:00:00Z", field=field)
    return found
