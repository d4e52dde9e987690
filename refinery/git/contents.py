"""What a rig's repository has that a plain check-out leaves out: submodules, git-lfs files. Told when it is added."""

from __future__ import annotations

from typing import Any

from agents.runtime import modules
from agents.runtime.gitcmd import GitFailed
from beads import config as configs
from beads.models import Rig
from refinery.git.mirror import repo_of

_SHOWN = 5


def look(rig: Rig) -> tuple[dict[str, Any], list[str]]:
    """(submodules and patterns of LFS files at the head of the default branch, sentences for a person).

    Fetches the branch into the rig's mirror, which every run needs anyway. A remote that cannot be read is told in a
    sentence: nothing is decided by this.
    """
    repo = repo_of(rig)
    try:
        sha = repo.fetch_branch(rig.remote_url, rig.default_branch)
        found = modules.found(repo.path, sha)
    except GitFailed as error:
        return {}, [f"whether it has submodules or git-lfs files could not be seen: {error.message}"]
    git = configs.usable(rig.town.config, rig.config)[0].git
    notes = []
    if found["submodules"]:
        paths = [str(module["path"]) for module in found["submodules"]]
        what = f"{_count(paths, 'submodule')} ({_list(paths)})"
        done = "checked out in gates and workspaces, as git.submodules = true says"
        left = "empty directories in gates and workspaces: set git.submodules = true in the rig's config to change that"
        notes.append(f"it has {what}: {done if git.submodules else left}")
    if found["lfs"]:
        patterns = [str(pattern) for pattern in found["lfs"]]
        done = "their content is fetched for gates and workspaces, as git.lfs = true says"
        left = "gates and workspaces see pointers: set git.lfs = true in the rig's config to have their content"
        notes.append(f"it keeps files in git-lfs ({_list(patterns)}): {done if git.lfs else left}")
    return dict(found), notes


def _count(things: list[str], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _list(things: list[str]) -> str:
    more = ""
    if len(things) > _SHOWN:
        more = f" and {len(things) - _SHOWN} more"
    return ", ".join(things[:_SHOWN]) + more
