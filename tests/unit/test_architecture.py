"""One writer for each table; git and processes only where they belong; files that a person reads in one sitting."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gastown_site import cli
from tests.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
SOURCES = [
    p
    for app in ("beads", "agents", "refinery", "gastown_site")
    for p in (ROOT / app).rglob("*.py")
    if "migrations" not in p.parts and "demo" not in p.parts
]
WRITERS = {
    **dict.fromkeys(("Town", "Rig", "ConfigVersion"), "beads/ledger/towns.py"),
    **dict.fromkeys(("Bead", "Dependency", "BeadEvent"), "beads/ledger/beads.py"),
    **dict.fromkeys(("Convoy", "ConvoyBranch"), "beads/ledger/convoys.py"),
    "Escalation": "beads/ledger/escalations.py",
    "Fact": "beads/inbox.py",
    "Effect": "beads/outbox.py",
    "Outage": "beads/outages.py",
    "LostDecision": "refinery/store/lost.py",
    "Heartbeat": "beads/ops.py",
    "Installation": "beads/installations.py",
    "Secret": "beads/secrets.py",
    "Membership": "beads/people.py",
    "Agent": "agents/roster.py",
    "Run": "agents/runs.py",
    "ToolCall": "agents/api/tools.py",
    "Usage": "agents/usage.py",
    "Allowance": "agents/usage.py",
    "Mail": "agents/mail.py",
    "Nudge": "agents/mail.py",
    "ReviewEntry": "refinery/store/entries.py",
    "Lane": "refinery/store/lanes.py",
    "Candidate": "refinery/store/candidates.py",
    **dict.fromkeys(("Verdict", "Waiver"), "refinery/store/verdicts.py"),
    "Landing": "refinery/store/landings.py",
    "GateResult": "refinery/store/gates.py",
    **dict.fromkeys(("Forecast", "Stack"), "refinery/store/forecasts.py"),
    "Violation": "refinery/tick/invariants.py",
    "TickRecord": "refinery/tick/metrics.py",
    "TickTotal": "refinery/tick/metrics.py",
    "ReviewComment": "refinery/store/comments.py",
    **dict.fromkeys(("HostedPull", "RigHost"), "refinery/store/pulls.py"),
}
WRITES = "create|bulk_create|update|update_or_create|get_or_create|delete|bulk_update"


@pytest.mark.parametrize("model", sorted(WRITERS))
def test_each_table_has_one_writer(model: str) -> None:
    pattern = re.compile(rf"\b{model}\.objects\b[^\n]*?(?:\n\s+\.[^\n]*)*?\.(?:{WRITES})\(")
    writers = {str(p.relative_to(ROOT)) for p in SOURCES if pattern.search(p.read_text())}
    assert writers <= {WRITERS[model]}


def test_git_and_processes_are_started_in_few_places() -> None:
    users = {
        str(p.relative_to(ROOT))
        for p in SOURCES
        if re.search(r"^import subprocess|^from subprocess", p.read_text(), re.M)
    }
    assert users == {
        "agents/runtime/gitcmd.py", "agents/runtime/forkserver.py", "agents/runtime/sandbox.py",
        "agents/runtime/steps.py", "agents/runtime/keeper.py", "agents/runtime/trash.py",
        "agents/runtime/door.py", "agents/runtime/harvest.py", "agents/runtime/insides.py",
        "gastown_site/cluster.py", "gastown_site/backups/pgtools.py", "gastown_site/management/commands/demo.py",
    }  # fmt: skip


def _users(pattern: str, under: str = "") -> set[str]:
    found = (p for p in SOURCES if re.search(pattern, p.read_text(), re.M))
    return {name for p in found if (name := str(p.relative_to(ROOT))).startswith(under)}


def test_mirrors_are_read_through_one_door() -> None:
    """GitPython is behind `objects`, none of the routes by which names or options of others reached git through it is
    used, and past it git is only asked what talks to a remote, or streams."""
    assert _users(r"^(import|from) git\b") == {"refinery/git/objects.py"}
    assert not _users(r"\b(clone_from|multi_options|allow_unsafe\w*|config_reader|config_writer|USE_SHELL)\b")
    assert not _users(r"\b(gitpython|git)\.(Remote|Submodule|Reference|Head|SymbolicReference)\b")
    past = r"\b(run_git|started_git)\("
    assert _users(past, "refinery/") == {f"refinery/git/{name}.py" for name in ("objects", "repo", "copies")}
    calls = [n for n in ast.walk(ast.parse((ROOT / "refinery/git/repo.py").read_text())) if isinstance(n, ast.Call)]
    started = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "run_git"]
    assert started and all("access.env()" in ast.unparse(call) for call in started)


def test_files_can_be_read_in_one_sitting() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_no_conditional_expression_holds_another_one() -> None:
    nested = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.IfExp)
        and any(isinstance(part, ast.IfExp) for part in (node.body, node.test, node.orelse))
    ]
    assert not nested


def test_conditional_expressions_are_few() -> None:
    """At most 10 per 1,000 lines of the product: `a if b else c` in the middle of a line is read twice."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    counts = {path: sum(isinstance(node, ast.IfExp) for node in ast.walk(tree)) for path, tree in trees.items()}
    share = 1000 * sum(counts.values()) / sum(len(path.read_text().splitlines()) for path in SOURCES)
    densest = [f"{path.relative_to(ROOT)}: {n}" for path, n in sorted(counts.items(), key=lambda one: -one[1])[:10]]
    assert share <= 10, f"{share:.1f} of 1,000 lines; most of them are in {', '.join(densest)}"


def test_every_public_thing_says_what_it_is() -> None:
    missing = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" and ast.get_docstring(tree) is None:
            missing.append(str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                inside_meta = node.name in ("Meta", "walk", "look", "stop", "register", "action", "convert", "lines")
                if not inside_meta and ast.get_docstring(node) is None and node.name != "Command":
                    missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not missing


def test_help_names_each_command_but_the_servers_own_parts() -> None:
    parts = {"web", "reconciler", "executor", "runner"}
    commands = {p.stem for p in SOURCES if p.parent.name == "commands" and p.stem != "__init__"} - parts
    commands |= cli.WITHOUT_SETTINGS
    assert commands == {line.split()[0] for line in cli.HELP.splitlines() if line.startswith("  ")}


def test_each_mutation_finds_the_one_place_that_it_breaks() -> None:
    adrift = [
        mutation.what
        for mutation in MUTATIONS
        if (ROOT / mutation.file).read_text().count(mutation.old) != 1
        or not all((ROOT / word).exists() for word in mutation.tests.split() if word.startswith("tests/"))
    ]
    assert not adrift
