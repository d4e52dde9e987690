"""Files whose content is kept by git-lfs: the pointers of a commit are replaced by what they stand for.

The server asks the rig's own remote, whatever .lfsconfig says: agents write that. Each content is compared with the
digest that its pointer names. The index is told the files' times and sizes, so that git knows them as unchanged
without a look into them. Stdlib only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.runtime import gitcmd, mirrors, trees
from agents.runtime.gitcmd import GitFailed, run_git
from agents.runtime.gitdirs import View
from beads.errors import Invalid

MISSING = "git.lfs is true, but git-lfs is not installed on this machine: install it (apt install git-lfs)"
CONFIG = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.+\n)*?oid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)
_LARGEST_POINTER = 1024
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Pointer:
    """What a file stands for."""

    path: str
    oid: str
    size: int


def installed() -> bool:
    """True where git-lfs is."""
    return shutil.which("git-lfs") is not None


def check_installed() -> None:
    """Raise Invalid, naming git-lfs, where it is missing."""
    if not installed():
        raise Invalid(MISSING, field="git.lfs")


def fill(tree: Path, index: Path, git: Path, view: View) -> int:
    """Replace the pointers in `tree` by their content; returns how many. `git`, `index`: of the tree, and ours.

    Raises GitFailed: a content is not to be had, or is not what its pointer says.
    """
    if not installed():
        raise GitFailed(MISSING, kind="local")
    pointers = _pointers(tree, git)
    missing = {p.oid for p in pointers if not _stored(view.mirror, p.oid).is_file()}
    if missing:
        _fetch(view)
    checked: set[str] = set()
    times: dict[bytes, os.stat_result] = {}
    for pointer in pointers:
        content = _stored(view.mirror, pointer.oid)
        if pointer.oid in missing and pointer.oid not in checked:
            _check(content, pointer)
            checked.add(pointer.oid)
        times[os.fsencode(pointer.path)] = _place(content, tree / pointer.path, index.with_name("content"), pointer)
    if times:
        note_times(index, times)
    return len(times)


def _pointers(tree: Path, git: Path) -> list[Pointer]:
    """The files that attributes hand to git-lfs and that are pointers now; those with content were filled before."""
    env = {**trees.ENVIRONMENT, "GIT_DIR": str(git), "GIT_WORK_TREE": str(tree)}
    listed = run_git(["ls-files", "-z", ":(attr:filter=lfs)"], cwd=tree, env=env, timeout=trees.TIMEOUT).stdout
    found = []
    for path in map(os.fsdecode, listed.split(b"\0")[:-1]):
        told = (tree / path).lstat()
        if stat.S_ISREG(told.st_mode) and told.st_size < _LARGEST_POINTER:
            match = _POINTER.fullmatch((tree / path).read_bytes())
            if match:
                found.append(Pointer(path, match[1].decode(), int(match[2])))
    return found


def _stored(mirror: Path, oid: str) -> Path:
    return mirror / "lfs" / "objects" / oid[:2] / oid[2:4] / oid


def _fetch(view: View) -> None:
    """Have git-lfs fetch what the commit points to, from the rig's own remote."""
    url = view.remote_url
    if view.remote_url.startswith("/"):
        url = f"file://{view.remote_url}"
    pinned = {
        "remote.origin.url": url,
        "remote.lfsdefault": "origin",
        "lfs.url": url if not url.startswith("http") else f"{url.removesuffix('.git').rstrip('/')}.git/info/lfs",
        "lfs.pushurl": "",
        "remote.origin.lfsurl": "",
        "lfs.fetchinclude": "",
        "lfs.fetchexclude": "",
        "lfs.locksverify": "false",
    }
    asked = ["lfs", "fetch", "--include=", "--exclude=", "origin", view.sha]
    try:
        with mirrors.repo_lock(view.mirror, exclusive=False):
            more = gitcmd.more_config(pinned, gitcmd.next_config(view.opened))
            env = {**view.opened, **more}
            run_git(asked, cwd=view.mirror, env=env, timeout=gitcmd.Patience(gitcmd.NETWORK_TIMEOUT, gitcmd.SILENCE))
    except GitFailed as error:
        raise GitFailed(f"files of git-lfs cannot be fetched: {error.message}", kind=error.kind) from error


def _check(content: Path, pointer: Pointer) -> None:
    """Compare what has arrived with what the pointer says; what is something else is removed."""
    try:
        with content.open("rb") as handle:
            same = hashlib.file_digest(handle, "sha256").hexdigest() == pointer.oid
        same = same and content.stat().st_size == pointer.size
    except FileNotFoundError:
        raise GitFailed(
            f"{pointer.path}: the remote has no content for its git-lfs pointer {pointer.oid[:12]}", kind="missing_ref"
        ) from None
    if not same:
        content.unlink()
        raise GitFailed(f"{pointer.path}: its content is not what its git-lfs pointer says", kind="rejected")


def _place(content: Path, target: Path, aside: Path, pointer: Pointer) -> os.stat_result:
    """Put a copy of the content in the pointer's place, with the pointer's mode; returns what the kernel says of it."""
    mode = stat.S_IMODE(target.lstat().st_mode)
    aside.unlink(missing_ok=True)
    with content.open("rb") as source, aside.open("xb") as copy:
        left = pointer.size
        while left > 0:  # blocks are shared where the file system can
            done = os.copy_file_range(source.fileno(), copy.fileno(), min(left, _BLOCK * 64))
            if done == 0:
                raise GitFailed(
                    f"{pointer.path}: its content is shorter than its git-lfs pointer says", kind="rejected"
                )
            left -= done
    aside.chmod(mode)
    # not as young as the index that will name it: git would look into it, and find no pointer
    then = time.time() - 2
    os.utime(aside, (then, then))
    aside.rename(target)
    return target.lstat()


def note_times(index: Path, times: Mapping[bytes, os.stat_result]) -> None:
    """Write what the kernel says of these paths into an index (version 2), as git would after a check-out.

    An entry is ten numbers of four bytes, an object id, two bytes of flags and the path, padded to a multiple of 8.
    """
    data = bytearray(index.read_bytes())
    signature, version, count = struct.unpack_from(">4sLL", data)
    if signature != b"DIRC" or version != 2:
        raise GitFailed(f"the index {index} has version {version}, not 2")
    at = 12
    for _ in range(count):
        end = data.index(b"\0", at + 62)
        told = times.get(bytes(data[at + 62 : end]))
        if told is not None:
            numbers = (
                *divmod(told.st_ctime_ns, 10**9), *divmod(told.st_mtime_ns, 10**9), told.st_dev, told.st_ino,
            )  # fmt: skip
            struct.pack_into(">6L", data, at, *(number & 0xFFFFFFFF for number in numbers))
            struct.pack_into(">3L", data, at + 28, told.st_uid, told.st_gid, told.st_size & 0xFFFFFFFF)
        at += (end - at) // 8 * 8 + 8
    body = bytes(data[:-20])
    fresh = index.with_name("index.timed")
    fresh.write_bytes(body + hashlib.sha1(body, usedforsecurity=False).digest())
    fresh.rename(index)
