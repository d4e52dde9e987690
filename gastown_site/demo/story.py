"""The demo's stage: a remote from this project's own history, the config, and the check of how it ended."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from agents.runtime.gitcmd import GitFailed, run_git
from beads.lifecycle import BeadStatus, Purpose
from beads.models import Bead, BeadEvent, Convoy, Town
from gastown_site.demo.cast import BUDGET, SCRIPTED, Cast, base_url
from refinery.core.states import GateOutcome
from refinery.models import GateResult, ReviewEntry

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROJECT = ROOT if (ROOT / "pyproject.toml").is_file() else HERE.parent  # installed: beside us are others' packages
_SKIP = shutil.ignore_patterns(".git", ".venv", ".uv", "__pycache__", ".*_cache", "*.egg-info", "staticfiles")


def make_remote(path: Path) -> str:
    """A bare clone of this project's repository at `path`; returns its default branch.

    An unpacked archive has no history: then a repository is made from the files.
    """
    try:
        run_git(["rev-parse", "--verify", "HEAD^{commit}"], cwd=PROJECT)
        run_git(["clone", "--quiet", "--bare", "--no-local", str(PROJECT), str(path)], cwd=path.parent, timeout=120)
        head = run_git(["rev-parse", "HEAD^{commit}"], cwd=path).text
    except GitFailed:
        shutil.rmtree(path, ignore_errors=True)
        head = _from_files(path)
    branch = run_git(["symbolic-ref", "--short", "--quiet", "HEAD"], cwd=path, check=False).text or "main"
    run_git(["update-ref", f"refs/heads/{branch}", head], cwd=path)
    run_git(["symbolic-ref", "HEAD", f"refs/heads/{branch}"], cwd=path)
    return branch


def _from_files(path: Path) -> str:
    tree = path.with_suffix(".files")
    shutil.copytree(PROJECT, tree, ignore=_SKIP)
    run_git(["init", "--quiet"], cwd=tree)
    run_git(["add", "-A"], cwd=tree)
    run_git(["commit", "--quiet", "-m", "The project as it was unpacked"], cwd=tree)
    run_git(["clone", "--quiet", "--bare", str(tree), str(path)], cwd=path.parent)
    shutil.rmtree(tree)
    return run_git(["rev-parse", "HEAD"], cwd=path).text


def config(cast: Cast) -> str:
    """The demo town's config, as TOML."""
    tests = "test ! -d demo_town || python3 -m unittest discover -s demo_town -t ."
    syntax = "files=$(git ls-files 'demo_town/*.py'); test -z \"$files\" || python3 -m py_compile $files"
    return f"""
{_agents(cast)}
[refinery]
gates = [
  {{ name = "syntax", run = {json.dumps(syntax)}, timeout = "1m" }},
  {{ name = "tests", run = {json.dumps(tests)}, timeout = "1m" }},
]
code_review = true
[dispatch]
max_polecats = 6
start_deadline = "15s"
lease = "20s"
heartbeat = "4s"
backoff = ["2s", "5s", "10s"]
"""


def _agents(cast: Cast) -> str:
    """Who works, in which box, and what that may cost."""
    python = json.dumps(sys.executable)
    if not cast.preset:
        return f"""[sandbox]
mode = "off"  # its agents and gates are our own scripts, and it is to run wherever git and Python do
[agents.polecat]
command = [{python}, {json.dumps(str(HERE / "polecat.py"))}]
[agents.refinery]
command = [{python}, {json.dumps(str(HERE / "refinery.py"))}]
"""
    shown = [sys.prefix, sys.base_prefix, *_scripts(cast)]
    mode = "required"
    if not cast.boxed:
        mode = "off"
    told = [
        "[sandbox]",
        f"mode = {json.dumps(mode)}",
        f"read_only = {json.dumps(list(dict.fromkeys(shown)))}",
        f"path = {json.dumps([str(Path(sys.executable).parent)])}",  # the gates' python3
    ]
    for role in ("polecat", "refinery"):
        told += [f"[agents.{role}]", f"preset = {json.dumps(cast.preset)}", f"model = {json.dumps(cast.model)}"]
        if not cast.provider:  # the model door does not speak its API: the key goes in
            told.append(f"secrets = {json.dumps([cast.secret])}")
    if cast.real:
        told += ["[budget]", f"day = {json.dumps(BUDGET)}"]
    if cast.scripted:
        told += [f"[providers.{cast.provider}]", f"base_url = {json.dumps(base_url(cast))}", "scripted = true"]
        told += [f"[prices.{SCRIPTED}]", "input = 3.0", "cached = 0.3", "output = 15.0"]  # so that pages show a cost
    return "\n".join(told)


def _scripts(cast: Cast) -> list[str]:
    """What a scripted model lets its agent run."""
    if cast.scripted:
        return [str(HERE)]
    return []


def landed_log(remote: Path, branch: str, scratch: Path, since: str) -> str:
    """`git log --oneline` of what is new on the default branch, from a fresh clone."""
    shutil.rmtree(scratch, ignore_errors=True)
    run_git(["clone", "--quiet", "--branch", branch, str(remote), str(scratch)], cwd=remote.parent, timeout=120)
    return run_git(["log", "--oneline", "--graph", f"{since}..HEAD"], cwd=scratch).text


def shortcomings(town: Town, scratch: Path, since: str, cast: Cast) -> list[str]:
    """What is missing of the promised end; empty when all is well. Judged from git and from the ledger. (A real model
    need not make the mistakes of the story.)"""
    found = [f"convoy {c.pk} is {c.bead.status}" for c in _convoys(town) if c.bead.status != BeadStatus.CLOSED]
    log = run_git(
        ["log", "--format=%H%x00%T%x00%(trailers:key=Bead,valueonly,separator=%x2C)", f"{since}..HEAD"], cwd=scratch
    )
    commits = [line.split("\0") for line in log.text.splitlines()]
    trailers = {name for commit in commits for name in commit[2].split(",")}
    work = Bead.objects.filter(town=town, type="issue", purpose=Purpose.WORK)
    found += [f"no commit with the trailer Bead: {b.pk} ({b.title})" for b in work if b.pk not in trailers]
    gated = set(
        GateResult.objects.filter(entry__rig__town=town, outcome=GateOutcome.PASS).values_list("tree_sha", flat=True)
    )
    for entry in ReviewEntry.objects.merged().filter(rig__town=town):
        tree = run_git(["rev-parse", f"{entry.merge_sha}^{{tree}}"], cwd=scratch).text
        if tree not in gated:
            found.append(f"{entry.pk} landed the tree {tree[:12]}, which no gate has seen")
    if cast.real:
        return found
    kinds = set(BeadEvent.objects.filter(bead__town=town).values_list("kind", flat=True))
    found += [f"no {kind.replace('_', ' ')} happened" for kind in ("conflict", "rework_requested") if kind not in kinds]
    return found


def _convoys(town: Town) -> list[Convoy]:
    return list(Convoy.objects.select_related("bead").filter(bead__town=town).order_by("bead__created_at"))


def progress(town: Town) -> list[dict[str, Any]]:
    """Each convoy and its beads, as the pages show them."""
    from refinery.pages import boards

    board = boards.Board(town)
    return [boards.convoy_data(board, convoy) for convoy in _convoys(town)]
