"""Git directories that are thrown away: they borrow a mirror's objects, and whoever works in one harms only that one.

Written by hand, file by file: no template, no hook, no config but ours. Stdlib only.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.runtime.gitcmd import check_branch, check_sha, redact, run_git

_OPEN, _READABLE = 0o755, 0o644
_DISPOSABLE = {
    # the index is a copy made by another user's eyes: owner, inode and ctime are no reason to look at a file again
    "core.checkStat": "minimal",
    "core.trustctime": "false",
    "core.fileMode": "true",
    "core.bare": "false",
    "core.logAllRefUpdates": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "user.name": "Gastown gate",
    "user.email": "gate@gastown.invalid",
}


@dataclass(frozen=True)
class View:
    """What of a repository's history is shown in a git directory that borrows the mirror's objects. `opened`: the
    variables with which the server's own git asks the remote for what is still missing; nothing of it is shown."""

    mirror: Path
    sha: str
    base: str = ""
    target: str = ""
    remote_url: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    opened: Mapping[str, str] = field(default_factory=dict, repr=False)


def config_text(values: Mapping[str, str]) -> str:
    """The text of a config file."""
    lines = ["[core]\n\trepositoryformatversion = 0\n"]
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        head, _, below = section.partition(".")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        escaped = below.replace("\\", "\\\\").replace('"', '\\"')
        title = head
        if below:
            title = f'{head} "{escaped}"'
        lines.append(f'[{title}]\n\t{name} = "{quoted}"\n')
    return "".join(lines)


def git_directory(path: Path, view: View, *, index: Path | None = None) -> None:
    """A git directory at `path` that borrows the mirror's objects: HEAD at `view.sha`, the base, the target, the tags.

    With it work status, diff, log, describe, add, commit and stash. `index`: what its index is a copy of. It appears
    whole, by a rename.
    """
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    shutil.rmtree(fresh, ignore_errors=True)
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/remotes/origin", "info"):
        (fresh / name).mkdir(parents=True)
    (fresh / "objects/info/alternates").write_text(f"{view.mirror / 'objects'}\n")
    config = dict(_DISPOSABLE)
    if view.remote_url:
        config["remote.origin.url"] = redact(view.remote_url)
        config["remote.origin.fetch"] = "+refs/heads/*:refs/remotes/origin/*"
    (fresh / "config").write_text(config_text(config | dict(view.config)))
    (fresh / "HEAD").write_text(f"{check_sha(view.sha)}\n")
    asked = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/tags"]
    if view.target:
        asked.append(f"refs/gastown/remote/{check_branch(view.target)}")
    refs: dict[bytes, bytes] = {}
    for line in run_git(asked, cwd=view.mirror).stdout.splitlines():
        value, _, ref = line.partition(b" ")
        refs[ref] = value
    base = b""
    if view.base:
        base = check_sha(view.base).encode()
    if view.target:
        seen = refs.pop(f"refs/gastown/remote/{view.target}".encode(), b"")
        if seen := base or seen:  # the base is newer: what we have landed ourselves was not fetched since
            refs[f"refs/remotes/origin/{view.target}".encode()] = seen
            (fresh / "refs/remotes/origin/HEAD").write_text(f"ref: refs/remotes/origin/{view.target}\n")
    if base:
        refs[b"refs/gastown/base"] = base
    packed = b"".join(sha + b" " + name + b"\n" for name, sha in sorted(refs.items()))
    (fresh / "packed-refs").write_bytes(b"# pack-refs with: sorted \n" + packed)
    if index is not None:
        # never dated later than it is: git looks into each file that is as young as its index
        shutil.copyfile(index, fresh / "index")
    for directory, _, files in os.walk(fresh):
        os.chmod(directory, _OPEN)
        for name in files:
            os.chmod(os.path.join(directory, name), _READABLE)
    fresh.rename(path)
