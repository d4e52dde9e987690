"""Building a candidate against the bare git commands, interleaved on the same repositories."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agents.runtime.gitcmd import run_git
from refinery.git import repo as git

SIZES = (5_000, 50_000)
BRANCHES = 30
TARGET = 1.5


def generate(path: Path, files: int) -> tuple[str, list[str]]:
    """A bare repository of so many files; returns main's head and the heads of branches with five changed files."""
    run_git(["init", "--quiet", "--bare", str(path)], cwd=path.parent)
    lines = ["commit refs/heads/main", "committer A <a@x.org> 1700000000 +0000", "data 4", "init"]
    for n in range(files):
        text = f"file {n}\n" * 5
        lines += [f"M 100644 inline d{n % 100}/s{n % 7}/f{n}.txt", f"data {len(text)}", text]
    for b in range(BRANCHES):
        lines += [f"commit refs/heads/b{b}", "committer B <b@x.org> 1700000100 +0000", "data 6", "change"]
        lines += ["from refs/heads/main"]
        for k in range(5):
            n = (b * 131 + k * 17) % files
            text = f"branch {b}\n"
            lines += [f"M 100644 inline d{n % 100}/s{n % 7}/f{n}.txt", f"data {len(text)}", text]
    lines += ["commit refs/heads/main", "committer A <a@x.org> 1700000200 +0000", "data 4", "more"]
    lines += ["M 100644 inline new.txt", "data 4", "new\n", ""]
    run_git(["fast-import", "--quiet", "--force"], cwd=path, input="\n".join(lines).encode(), timeout=600)
    heads = [run_git(["rev-parse", f"b{b}"], cwd=path).text for b in range(BRANCHES)]
    return run_git(["rev-parse", "main"], cwd=path).text, heads


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Print a table with the ratio to the floor."""
    print(f"{'files':>7} {'bare git':>10} {'ours':>10} {'p95':>8} {'ratio':>6}   (median ms; target ratio ≤ {TARGET})")
    for files in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "repo.git"
            base, heads = generate(path, files)
            repo = git.Repo(path)
            floor, ours = [], []
            for head in heads:

                def bare(head: str = head) -> None:
                    tree = run_git(["merge-tree", "--write-tree", base, head], cwd=path).text
                    sha = run_git(["commit-tree", tree, "-p", base, "-m", "squash"], cwd=path).text
                    run_git(["update-ref", f"refs/bench/{sha}", sha], cwd=path)

                def build(head: str = head) -> None:
                    spec = git.CandidateSpec(head, base, "squash", "title", ("A", "a@x.org"), 1700000300)
                    assert isinstance(repo.build_candidate(spec), git.Built)

                floor.append(timed(bare))
                ours.append(timed(build))
            low, own = statistics.median(floor), statistics.median(ours)
            p95 = sorted(ours)[int(len(ours) * 0.95)]
            print(f"{files:>7} {low:>10.1f} {own:>10.1f} {p95:>8.1f} {own / low:>6.2f}")
