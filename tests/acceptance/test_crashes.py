"""Every crash point in the source, armed in a living installation: a real process dies there with SIGKILL, once.

The points are found in the source, so a new one cannot be forgotten. Work converges: each bead lands by exactly one
commit, no attempt is used up, and nothing is left over: no run, no process, no worktree, no branch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from refinery.core.effects import KINDS, OfHost
from tests.acceptance.living import Living
from tests.acceptance.test_installation import ROOT

FUNCTION = "crashpoint"
HOSTS = {kind.name for kind in get_args(OfHost)}
GROUPS = {"doors": ("tick", "door"), "runners": ("run",), "shims": ("shim",), "effects": ("effect", "land")}
ELSEWHERE = {"backup", "restore", "archive", "repo"}  # test_backup.py, test_housekeeping.py, test_installation.py


def points() -> list[str]:
    """The names of all crash points, from the source of all packages."""
    found: list[str] = []
    for package in ("beads", "agents", "refinery", "gastown_site"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _name(node.func) == FUNCTION:
                    found += _expand(node.args[0], path)
    return found


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _expand(argument: ast.expr, path: Path) -> list[str]:
    """The name itself; or, for `f"….{effect.kind}"`, one for each kind of effect; those of a host are killed in
    `tests/hosts/test_kills.py`."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.JoinedStr) and ast.unparse(argument).endswith("{effect.kind}'"):
        prefix = argument.values[0]
        assert isinstance(prefix, ast.Constant) and isinstance(prefix.value, str)
        return [prefix.value + kind for kind in sorted(set(KINDS) - HOSTS)]
    raise AssertionError(f"{path}: a crash point's name must be readable: {ast.unparse(argument)}")


def test_every_point_is_found_once_and_belongs_to_a_group() -> None:
    found = points()
    assert len(found) == len(set(found)) >= 30
    assert {name.partition(".")[0] for name in found} == {
        kind for kinds in GROUPS.values() for kind in kinds
    } | ELSEWHERE


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """A living installation for all groups: what one leaves behind would show in the next."""
    made = Living(tmp_path_factory.mktemp("crashes"), publish="always")  # so that publishing has its points, too
    try:
        made.more(rigs=0, beads=0, convoys=0)
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.long
@pytest.mark.parametrize("group", GROUPS)
def test_killed_at_every_point_work_converges_with_one_commit_each_and_nothing_left_over(
    town: Living, group: str
) -> None:
    armed = [name for name in points() if name.partition(".")[0] in GROUPS[group]]
    for name in armed:
        (town.crash / name).touch()
    for _ in range(4):
        town.more(rigs=3, beads=2 if group == "effects" else 1, convoys=1)  # two in a lane are compared
        town.await_quiet(150)
        if not list(town.crash.iterdir()):
            break  # else some boundary was not crossed often enough
    assert [p.name for p in town.crash.iterdir()] == []  # each point was reached, and killed there
    town.check_landed()
    failed = town.rows("select id, reason from agents_run where outcome = 'failed'")
    assert failed == []  # whoever died, the agents are not to blame
