"""What others have written is as they published it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "static/vendor"


def test_each_vendored_script_is_the_one_that_was_published() -> None:
    told = dict(re.findall(r"^\| `(\S+)` .*sha256 `([0-9a-f]{64})`", (VENDOR / "README.md").read_text(), re.M))
    there = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.rglob("*.js")
    }
    assert there and there == told
    assert all((VENDOR / name).parent.joinpath("LICENSE").is_file() for name in there)
