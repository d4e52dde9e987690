"""What a change may not bring, whoever made it: content that git would lose, and names that git refuses to check out.

Stdlib only: the door asks it of what has arrived and is still in quarantine (`env` names the objects), the refinery of
each candidate. What is not asked here git itself refuses when it checks objects (`index-pack --strict`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.runtime.gitcmd import check_sha, run_git, started_git

GITLINK, SYMLINK, NONE = "160000", "120000", "000000"
EMPTY_TREE = {40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}
EMPTY_TREE[64] = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
NAMED = 5
# of the answer to `question`, some million paths, all of which git has in memory before it says the first: a tree that
# holds one folder ten times, ten levels deep, is a few hundred bytes to send, and has more files than any disk
MOST_BYTES, MEMORY, WHAT = 128 << 20, 1 << 30, "it changes more files than a change may"
_DOT_GIT = re.compile(
    r"(?:\.git|git~1)[. ]*(?:$|[\\:])", re.I
)  # as git's verify_path does, core.protectNTFS being its default


@dataclass(frozen=True)
class Touched:
    """One path of a diff with its mode afterwards ("000000": it is gone)."""

    path: str
    mode: str


def question(base: str, sha: str) -> list[str]:
    """The git command whose output `read` understands. `base`, `sha`: commits or trees; an empty base: none."""
    return ["diff-tree", "-r", "-z", "--raw", "--no-renames", check_sha(base or EMPTY_TREE[len(sha)]), check_sha(sha)]


def read(raw: bytes) -> list[Touched]:
    """What differs. Paths that are no UTF-8 keep their bytes (surrogateescape)."""
    words = raw.decode("utf-8", "surrogateescape").split("\0")
    return [Touched(path, head.split(" ")[1]) for head, path in zip(words[::2], words[1::2], strict=False) if head]


def lost_gitlinks(repo: Path, base: str, sha: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Paths where `sha` has the commit of another repository and no word where that is: its files would be lost.

    Looked at is what `sha` adds or changes against `base` (empty: all), and what it takes out of `.gitmodules`.
    Raises GitFailed.
    """
    return _lost(repo, base, sha, _asked(repo, base, sha, env), env)


def refusals(
    repo: Path, base: str, sha: str, touched: list[Touched] | None = None, env: Mapping[str, str] | None = None
) -> list[str]:
    """Why this change is refused, a sentence for each kind of reason; empty when it is not. Raises GitFailed.

    `touched`: the answer to `question`, where it is known.
    """
    if touched is None:
        touched = _asked(repo, base, sha, env)
    found = []
    if lost := _lost(repo, base, sha, touched, env):
        found.append(
            f"{_names(lost)}: a repository inside the repository, without an entry (path and url) in .gitmodules: its "
            "files would be lost. Remove its .git and add the files, or use git submodule add"
        )
    if bad := [t.path for t in touched if t.mode != NONE and not _harmless(t.path)]:
        found.append(f"{_names(bad)}: git refuses to check out a path with this name")
    if any(t.path == ".gitmodules" and t.mode == SYMLINK for t in touched):
        found.append(".gitmodules is a symbolic link: git does not follow it. Make it a file")
    return found


def _asked(repo: Path, base: str, sha: str, env: Mapping[str, str] | None) -> list[Touched]:
    with started_git(question(base, sha), cwd=repo, env=env, memory=MEMORY) as asked:
        return read(asked.at_most(MOST_BYTES, WHAT))


def _lost(repo: Path, base: str, sha: str, touched: list[Touched], env: Mapping[str, str] | None) -> list[str]:
    links = {t.path for t in touched if t.mode == GITLINK}
    changed = any(t.path == ".gitmodules" for t in touched)
    if not links and not changed:
        return []
    known = _modules(repo, sha, env)
    if changed and base and (gone := sorted(_modules(repo, base, env) - known)):
        words = ["--literal-pathspecs", "ls-tree", "-z", "--full-tree", check_sha(sha), "--", *gone]
        rows = run_git(words, cwd=repo, env=env).stdout.decode("utf-8", "surrogateescape").split("\0")
        links |= {path for mode, _, path in ((r[:6], *r.partition("\t")[1:]) for r in rows if r) if mode == GITLINK}
    return sorted(links - known)


def _modules(repo: Path, sha: str, env: Mapping[str, str] | None) -> set[str]:
    """The paths of `.gitmodules` that have a URL; none when it is missing, no plain file, or not readable as config."""
    row = run_git(["ls-tree", "-z", "--full-tree", check_sha(sha), "--", ".gitmodules"], cwd=repo, env=env).text
    if not row or row.split(" ")[0] not in ("100644", "100755", "100664"):
        return set()
    words = ["config", "--blob", row.split("\t")[0].split(" ")[2], "-z", "--get-regexp", r"^submodule\..*\.(path|url)$"]
    out = run_git(words, cwd=repo, env=env, check=False).stdout.decode("utf-8", "surrogateescape")
    told: dict[str, dict[str, str]] = {}
    for entry in out.split("\0"):
        key, _, value = entry.partition("\n")
        name, _, which = key.rpartition(".")
        told.setdefault(name, {})[which] = value
    return {one["path"].rstrip("/") for one in told.values() if one.get("path") and one.get("url")}


def _harmless(path: str) -> bool:
    return not any(part in ("", ".", "..") or _DOT_GIT.match(part) for part in path.split("/"))


def _names(paths: list[str]) -> str:
    shown = [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in paths[:NAMED]]
    return ", ".join(shown) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")
