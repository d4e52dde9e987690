"""What git would take and lose: looked for in a change before it is let in, and before it is built. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.runtime.gitcmd import check_sha, run_git


def lost_gitlinks(repo: Path, base: str, sha: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The paths of repositories inside the repository that `sha` adds or changes over `base`, and that its own
    `.gitmodules` does not name: nobody who clones it can ever have their content.

    `env`: more environment, such as a quarantine. Raises GitFailed when a commit is unknown.
    """
    words = ["diff-tree", "-r", "-z", "--raw", "--no-renames", check_sha(base), check_sha(sha)]
    parts = run_git(words, cwd=repo, env=env).stdout.decode("utf-8", "surrogateescape").split("\0")
    links = [path for row, path in zip(parts[::2], parts[1::2], strict=False) if row.split(" ")[1:2] == ["160000"]]
    if not links:
        return []
    asked = ["config", "--blob", f"{sha}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$"]
    named = run_git(asked, cwd=repo, env=env, check=False).stdout.decode("utf-8", "surrogateescape")
    known = {row.partition("\n")[2] for row in named.split("\0") if row}
    return [path for path in links if path not in known]
