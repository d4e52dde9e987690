"""Templates are read like code: one element a line, and lines that fit a screen. djade (`make lint`) has the tags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "templates"
OURS = [path for path in sorted(ROOT.rglob("*.html")) if path.parent.name not in ("admin", "helpers", "layouts")]
BLOCKS = (
    "article|dd|details|div|dl|dt|fieldset|figure|footer|form|h[1-6]|header|li|main|nav|ol|p|section|table|td|th|tr|ul"
)
BLOCK = re.compile(rf"<(?:{BLOCKS})\b")
KEPT_AS_TYPED = 'aria-label="What changes"'  # white-space: pre, where a line more would be seen


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.html")), ids=name)
def test_no_line_is_wider_than_a_screen(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if len(line) > 160] == []


@pytest.mark.parametrize("path", OURS, ids=name)
def test_each_block_has_a_line_of_its_own(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if KEPT_AS_TYPED not in line]
    assert [line for line in lines if len(BLOCK.findall(line)) > 1] == []
