"""Path patterns: tables, and git itself as the oracle for what has no `!`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads.globs import matches, problem, touches


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (["src/**"], ["src/a", "src/a/b.py"], ["src", "lib/src/a", "srcs/a"]),
        (["src"], ["src", "src/a", "lib/src/a"], ["srcs/a", "a.src"]),
        (["/src"], ["src/a"], ["lib/src/a"]),
        (["src/"], ["src/a", "lib/src/a/b"], ["src", "lib/src"]),
        (["*.py"], ["a.py", "x/y/a.py", "a.py/b"], ["a.pyc", "py"]),
        (["src/*.py"], ["src/a.py"], ["src/x/a.py", "x/src/a.py"]),
        (["src/**/test_?.py"], ["src/test_1.py", "src/a/b/test_x.py"], ["src/test_10.py", "test_1.py"]),
        (["**/docs/**"], ["docs/a", "a/docs/b/c"], ["docs", "a/docs"]),
        (["**"], ["a", "a/b"], []),
        (["a**b/c"], ["axxb/c"], ["a/b/c"]),
        (["src/**", "!src/**/*.md"], ["src/a.py"], ["src/a.md", "src/x/a.md"]),
        (["src/**", "!docs/**", "src/keep.md"], ["src/keep.md"], ["docs/a"]),
        (["src/**", "!src/gen/**", "src/gen/keep.py"], ["src/gen/keep.py", "src/a"], ["src/gen/a"]),
        (["!docs/**", "!*.md"], ["src/a", "Makefile"], ["docs/a.py", "README.md", "src/b.md"]),
        (["app/[id]/**"], ["app/[id]/page.tsx"], ["app/i/page.tsx"]),
        (["a.b+c(d)"], ["a.b+c(d)"], ["aXb+c(d)"]),
        ([], [], ["a"]),
    ],
)
def test_what_matches_and_what_does_not(patterns: list[str], yes: list[str], no: list[str]) -> None:
    assert [p for p in yes if not matches(patterns, p)] == []
    assert [p for p in no if matches(patterns, p)] == []
    assert touches(patterns, [*no, *yes]) is bool(yes)


@pytest.mark.parametrize("pattern", ["", "/", "!", "a//b", "a/../b", "./a", "a\\b", "a\nb"])
def test_what_is_no_pattern_is_said(pattern: str) -> None:
    assert problem(pattern)


PARTS = st.sampled_from(["a", "b", "ab", "a.b", "*", "?", "a*", "*b", "**"])
PATTERNS = st.builds(
    lambda root, parts, end: root + "/".join(parts) + end,
    st.sampled_from(["", "/"]), st.lists(PARTS, min_size=1, max_size=4), st.sampled_from(["", "/"]),
)  # fmt: skip
PATHS = ["a", "b", "ab", "a/b", "a/a.b", "b/a/b", "ab/b/a", "a/b/a/b", "b/b", "a.b/a", "a.b", "a/a/a", "b/ab/a/b/a"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ignoring")
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    return place


@settings(max_examples=60, deadline=None)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=3))
def test_git_ignores_the_same_paths(repository: Path, patterns: list[str]) -> None:
    (repository / ".gitignore").write_text("".join(f"{p}\n" for p in patterns))
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    said = subprocess.run(command, cwd=repository, input="\n".join(PATHS), capture_output=True, text=True, check=False)
    assert [p for p in PATHS if matches(patterns, p)] == said.stdout.split()
