"""The changed files of a diff as a tree of folders, with their counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from refinery.git.diffs import Change


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the file tree: its files with their place in the diff, and its folders."""

    name: str
    added: int
    removed: int
    folders: tuple[Folder, ...]
    files: tuple[tuple[int, Change], ...]

    @property
    def count(self) -> int:
        """Files in it, at any depth."""
        return len(self.files) + sum(folder.count for folder in self.folders)


def tree(changes: Sequence[Change]) -> Folder:
    """The changed files as a tree; chains of single folders are one."""
    return _folder("", [(n, c, c.path.split("/")) for n, c in enumerate(changes)], 0)


def _folder(name: str, rows: Iterable[tuple[int, Change, list[str]]], depth: int) -> Folder:
    files: list[tuple[int, Change]] = []
    below: dict[str, list[tuple[int, Change, list[str]]]] = {}
    for number, change, parts in rows:
        if len(parts) <= depth + 1 or depth >= 40:
            files.append((number, change))
        else:
            below.setdefault(parts[depth], []).append((number, change, parts))
    folders = tuple(_folder(part, inner, depth + 1) for part, inner in sorted(below.items()))
    if name and not files and len(folders) == 1:
        only = folders[0]
        return replace(only, name=f"{name}/{only.name}")
    added = sum(c.added or 0 for _, c in files) + sum(f.added for f in folders)
    removed = sum(c.removed or 0 for _, c in files) + sum(f.removed for f in folders)
    return Folder(name, added, removed, folders, tuple(files))
