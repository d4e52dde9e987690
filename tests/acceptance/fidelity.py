"""Changes of files in a repository, as the tests of merging make them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from refinery.git import repo as git
from tests.acceptance.test_git import Ground

LINES = [f"line {n}\n" for n in range(12)]


def write(ground: Ground, files: Mapping[str, str | None]) -> None:
    """Files into the clone; None removes one."""
    for name, text in files.items():
        path = ground.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


def commit(ground: Ground, branch: str, start: str, files: Mapping[str, str | None], *words: str) -> str:
    """Commit on `branch`, made anew from `start` unless that is empty, and have it in the mirror."""
    if start:
        ground.run("checkout", "-q", "-f", "-B", branch, start)
    write(ground, files)
    ground.run("add", "-A")
    ground.run("commit", "-q", "--allow-empty", *(words or ("-m", f"change {branch}")))
    return arrived(ground, branch)


def arrived(ground: Ground, branch: str) -> str:
    ground.run("push", "-q", "-f", ground.url, f"HEAD:refs/heads/{branch}")
    head = ground.run("rev-parse", "HEAD")
    ground.repo.fetch_sha(ground.url, head, branch)
    return head


def by_git(ground: Ground, base: str, head: str) -> str | set[str]:
    """What `git merge` makes in a checkout of the base: the tree, or the paths in conflict."""
    ground.run("checkout", "-q", "-f", "--detach", base)
    ground.run("clean", "-ffdxq")
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "merge", "-q", "--no-edit", "--no-ff", head]
    done = subprocess.run(command, cwd=ground.work, capture_output=True, check=False)
    if done.returncode == 0:
        return ground.run("rev-parse", "HEAD^{tree}")
    names = set(ground.run("diff", "--name-only", "--diff-filter=U").splitlines())
    ground.run("reset", "-q", "--hard")
    assert names
    return names


def by_us(found: git.Answer) -> str | set[str]:
    match found:
        case git.Built(tree=tree):
            return tree
        case git.ConflictFound(files=files):
            return set(files)
        case _:
            raise AssertionError(found)


def spec(base: str, head: str, method: str = "squash") -> git.CandidateSpec:
    return git.CandidateSpec(head, base, method, "Title", ("Me", "me@example.org"), 1700000000, "", [("Bead", "gt-1")])


def edited(*edits: tuple[int, str]) -> str:
    lines = list(LINES)
    for at, text in edits:
        lines[at] = text
    return "".join(lines)
