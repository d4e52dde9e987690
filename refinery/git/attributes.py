"""The attributes by which git merges: those of the target's `.gitattributes`, as in a checkout of it.

`git merge-tree` in a bare repository reads none. With a work tree it reads its files: so it gets one that holds nothing
but the target's `.gitattributes`. Drivers that need a config (`merge.X.driver`) fall back to git's text merge, for no
config of ours names one. Most repositories have none, and then nothing is made and nothing is asked twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from agents.runtime.gitcmd import Started, disk_failure
from agents.runtime.policy import EMPTY_TREE
from refinery.git.objects import Commands, Mirror

Files = tuple[tuple[str, str], ...]  # (path of a .gitattributes, its blob), sorted

NAME = ".gitattributes"
REMEMBERED = 512
KEPT = 24 * 3600.0  # seconds: a work tree that was not used for so long goes
_FILES = ("100644", "100755", "100664")

_known: OrderedDict[tuple[Path, str], Files] = OrderedDict()
_last: dict[Path, tuple[str, Files]] = {}


class Look:
    """The question which attributes a tree has. `guess`: what is probably the answer, before git has given it."""

    def __init__(self, guess: Files, mirror: Mirror, tree: str, asked: Started | None) -> None:
        self.guess = guess
        self._mirror, self._tree, self._asked = mirror, tree, asked

    def answer(self) -> Files:
        """What git says. Raises GitFailed when it does not know the tree."""
        if self._asked is None:
            return self.guess
        result = self._asked.result(check=False)
        if result.returncode == 0:
            found = _applied(self.guess, result.stdout)
        else:  # the tree that was compared with is gone
            words = _question(EMPTY_TREE[len(self._tree)], self._tree)
            found = _applied((), self._mirror.git.diff_tree(*words, stdout_as_string=False))
        _remember(self._mirror.path, self._tree, found)
        return found


@contextlib.contextmanager
def look(mirror: Mirror, tree: str) -> Iterator[Look]:
    """Ask which attributes hold in `tree` (a commit or a tree), beside the body.

    Compared is with the last tree that was asked about, so it costs what has changed, and nothing for one known.
    """
    path = mirror.path
    known = _known.get((path, tree))
    if known is not None:
        yield Look(known, mirror, tree, None)
        return
    last, files = _last.get(path) or _stored(path) or (EMPTY_TREE[len(tree)], ())
    with mirror.git.beside("diff-tree", *_question(last, tree)) as asked:
        yield Look(files, mirror, tree, asked)


def inherit(mirror: Mirror, base: str, made: str, touched: Iterable[str]) -> None:
    """A commit made on `base`, of which these paths differ, mostly has its attributes: then nobody needs to ask."""
    known = _known.get((mirror.path, base))
    if known is not None and not any(name == NAME or name.endswith(f"/{NAME}") for name in touched):
        _remember(mirror.path, made, known)


def differing(mirror: Mirror, base: str, trees: Sequence[str]) -> set[str]:
    """Which of these trees have other attributes than the tree `base`. One process."""
    asked = "".join(f"{base} {tree}\n" for tree in trees).encode()
    words = ["--stdin", "-r", "-z", "--name-only", "--no-renames", "--", f":(glob)**/{NAME}"]
    out: str = mirror.git.diff_tree(*words, istream=asked)
    found, tree = set(), ""
    for word in out.replace("\n", "\0").split("\0"):
        if word.startswith(f"{base} "):
            tree = word.rpartition(" ")[2]
        elif word and tree:
            found.add(tree)
    return found


def commands(mirror: Mirror, files: Files) -> Commands:
    """Git's commands where these attributes hold. Without any: in the repository itself."""
    if not files:
        return mirror.git
    path = mirror.path
    told = "".join(f"{name}\0{blob}\0" for name, blob in files).encode("utf-8", "surrogateescape")
    folder = path / "gastown" / "attributes" / hashlib.sha256(told).hexdigest()[:32]
    try:
        os.utime(folder)  # it was used: see `_tidy`
    except OSError:  # mostly: it is not there
        _write(mirror, folder, files)
    return Commands(folder, {"GIT_DIR": str(path), "GIT_WORK_TREE": str(folder)})


def _question(old: str, new: str) -> list[str]:
    return ["-r", "-z", "--raw", "--no-renames", old, new, "--", f":(glob)**/{NAME}"]


def _applied(files: Files, raw: bytes) -> Files:
    """`files` after a diff. What git does not follow, or would never check out, holds nothing."""
    found = dict(files)
    words = raw.decode("utf-8", "surrogateescape").split("\0")
    for head, name in zip(words[::2], words[1::2], strict=False):
        _, mode, _, blob, _ = head.split(" ")
        found.pop(name, None)
        if mode in _FILES and _safe(name):
            found[name] = blob
    return tuple(sorted(found.items()))


def _safe(name: str) -> bool:
    return not any(part in ("", ".", "..") or part.lower() == ".git" for part in name.split("/"))


def _remember(path: Path, tree: str, files: Files) -> None:
    _known[path, tree] = files
    while len(_known) > REMEMBERED:
        _known.popitem(last=False)
    changed = path not in _last or _last[path][1] != files
    _last[path] = tree, files
    if changed:  # for the processes that come after this one
        with contextlib.suppress(OSError):
            place = path / "gastown" / "attributes"
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=place, delete=False) as fresh:
                json.dump([tree, files], fresh)
            os.replace(fresh.name, place / "known.json")


def _stored(path: Path) -> tuple[str, Files] | None:
    """What another process has found."""
    try:
        tree, files = json.loads((path / "gastown" / "attributes" / "known.json").read_text())
        return str(tree), tuple((str(name), str(blob)) for name, blob in files)
    except (OSError, ValueError, TypeError):
        return None


def _write(mirror: Mirror, folder: Path, files: Files) -> None:
    """The work tree: made beside and renamed, so that nobody meets half of it."""
    contents = {name: mirror.odb.content(blob, "blob") for name, blob in files}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy(folder.parent)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise disk_failure("the target's attributes", error) from error
    try:
        for name, content in contents.items():
            place = fresh / os.fsdecode(os.fsencode(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        with contextlib.suppress(OSError):  # another process was faster
            fresh.rename(folder)
    except OSError as error:
        raise disk_failure("the target's attributes", error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _tidy(place: Path) -> None:
    """Remove what nobody has used for long."""
    oldest = time.time() - KEPT
    with contextlib.suppress(OSError):
        for one in list(place.iterdir()):
            if one.is_dir() and one.stat().st_mtime < oldest:
                shutil.rmtree(one, ignore_errors=True)
