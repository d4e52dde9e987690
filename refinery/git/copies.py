"""A mirror's own refs and all that they need, as a pack: for backups. Git only; no settings, no rows.

A pack and a list of refs, not a bundle: the pack may hold more than the refs of one moment (see
`gastown_site.backups.save`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from agents.runtime import gitcmd, mirrors
from agents.runtime.gitcmd import GitFailed, check_sha
from refinery.git.objects import CommandFailed, reading

CHECK_SECONDS = 3600.0


def refs(mirror: Path) -> dict[str, str]:
    """Every ref of the mirror: name → object."""
    with reading(mirror) as here:
        listed: str = here.git.for_each_ref("--format=%(objectname) %(refname)")
    rows = (line.partition(" ") for line in listed.splitlines())
    return {name: check_sha(sha) for sha, _, name in rows}


def size(mirror: Path) -> int:
    """The bytes of the mirror's objects, about."""
    with reading(mirror) as here:
        counted: str = here.git.count_objects("-v")
    rows = dict(line.split(": ") for line in counted.splitlines())
    return 1024 * (int(rows["size"]) + int(rows["size-pack"]))


@contextlib.contextmanager
def packing(mirror: Path, tips: Iterable[str]) -> Iterator[IO[bytes]]:
    """One pack of all that these objects need, to be read to its end inside the block. Raises GitFailed when it is not
    whole, for one when an object is missing."""
    with tempfile.TemporaryFile() as asked:
        asked.write("".join(f"{check_sha(tip)}\n" for tip in sorted(set(tips))).encode())
        asked.seek(0)
        # one thread: a town is at work beside it. Not by GitPython: that has the whole answer in memory
        words = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", "--threads=1"]
        with gitcmd.started_git(words, cwd=mirror, stdin=asked) as packer:
            assert packer.process.stdout is not None
            yield packer.process.stdout
            packer.result()


def unpack(mirror: Path, pack: IO[bytes] | None, told: Mapping[str, str]) -> None:
    """Make the mirror at `mirror`, where there is none, of a pack (None: it has no objects) and its refs.

    Raises GitFailed when something that a ref needs did not come.
    """
    mirrors.ensure_bare(mirror)
    if pack is not None:
        folder = mirror / "objects" / "pack"
        folder.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="tmp_pack_", dir=folder)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(pack, file, 1 << 20)
        with reading(mirror) as here:
            said: str = here.git.index_pack("-o", f"{name}.idx", name, kill_after_timeout=CHECK_SECONDS)
        base = folder / f"pack-{said.split()[-1]}"
        for suffix in ("", ".idx"):  # the index comes last: it is what makes a pack one
            os.chmod(name + suffix, 0o400)
            os.rename(name + suffix, f"{base}{suffix or '.pack'}")
    lines = "".join(f"create {name}\0{check_sha(sha)}\0" for name, sha in told.items())
    with reading(mirror) as here:
        here.git.update_ref("--stdin", "-z", istream=lines.encode("utf-8", "surrogateescape"))
        try:
            here.git.rev_list("--objects", "--quiet", "--all", kill_after_timeout=CHECK_SECONDS)
        except CommandFailed as missing:
            raise GitFailed(f"{mirror.name} is not whole: {missing.message}") from missing
