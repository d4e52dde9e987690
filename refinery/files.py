"""Files that people name on the command line, read with one clear error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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
