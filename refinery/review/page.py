"""A diff made ready for the review page: which files, on which page, with which remarks between their lines.

Reads only. What is shown of a file at once is bounded (see `refinery.git.diffs`), so that a page of a 5,000-file diff,
or of one with a megabyte in a line, costs no more than any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode

from django.utils.safestring import SafeString, mark_safe

from refinery.git import diffs, folders
from refinery.git.line_map import Bridge
from refinery.git.ranges import Span
from refinery.git.repo import Repo
from refinery.models import ReviewComment
from refinery.review import diffhtml

TREE_LIMIT = 600
FOLDERS = 300
COLOUR_BUDGET = 150_000
STATUS = {"A": "added", "D": "deleted", "M": "changed", "R": "renamed", "C": "copied", "T": "type changed"}

Between = Callable[[ReviewComment], str]


@dataclass(frozen=True)
class Ask:
    """What the address asks for. `file`: only this one; `at`: (file, side, line) where a remark is to be written."""

    split: bool = False
    page: int = 1
    file: int | None = None
    at: tuple[int, str, int] | None = None
    keep: tuple[tuple[str, str], ...] = ()
    path: str = ""

    def link(self, **more: object) -> str:
        """The address of another view of the same diff."""
        words = [*self.keep, *self._view]
        return self._address([(k, v) for k, v in words if k not in more], more)

    def only(self, **more: object) -> str:
        """The address of another diff of the same review."""
        return self._address(self._view, more)

    def opens(self, number: int) -> bool:
        """True when this file is to be shown whatever it is: by itself, or with a form for a remark in it."""
        return number == self.file or bool(self.at and self.at[0] == number)

    @property
    def _view(self) -> list[tuple[str, str]]:
        if self.split:
            return [("view", "split")]
        return []

    def _address(self, words: list[tuple[str, str]], more: dict[str, object]) -> str:
        return f"{self.path}?" + urlencode([*words, *((k, str(v)) for k, v in more.items())])


@dataclass
class FileShown:
    """One file on the page."""

    number: int
    change: diffs.Change
    path: str
    old_path: str
    status: str
    why_closed: str = ""
    html: str = ""
    says: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    comments: int = 0
    link: str = ""

    @property
    def has_lines(self) -> bool:
        """True when there are hunks to show."""
        return bool(self.html)


@dataclass(frozen=True)
class DiffShown:
    """A page of a diff."""

    files: list[FileShown]
    tree: folders.Folder
    wide: bool
    total: int
    added: int
    removed: int
    page: int
    pages: list[tuple[int, str]]
    page_of: dict[int, int]
    places: dict[str, str]
    folders: list[tuple[str, str, folders.Folder]]


@dataclass(frozen=True)
class Margin:
    """What stands between the lines: remarks, as `between` draws them, and the form for a new one.

    `form`: None where nobody may write one. `bridge`: to the whole change, where the remarks are, from a part of it.
    """

    between: Between
    remarks: Sequence[ReviewComment] = ()
    form: Callable[[FileShown, str, int], str] | None = None
    bridge: Bridge | None = None

    def of(self, one: FileShown) -> list[ReviewComment]:
        """The remarks on a file."""
        return [remark for remark in self.remarks if remark.file == one.path]


def show(repo: Repo, span: Span, ask: Ask, margin: Margin | None = None) -> DiffShown:
    """Read and render one page of a diff; without a margin nothing stands between its lines."""
    changes = repo.changes(span.base, span.sha)
    ranges = diffs.pages(changes)
    page_of = {n: number for number, (start, end) in enumerate(ranges, 1) for n in range(start, end)}
    page = _page_asked_for(ask, page_of, len(ranges))
    start, end = ranges[page - 1]
    numbers = range(start, end)
    if ask.file is not None and 0 <= ask.file < len(changes):
        numbers = range(ask.file, ask.file + 1)
    shown = [_file(n, changes[n], ask) for n in numbers]
    for one in shown:
        if one.why_closed and margin is not None and margin.bridge is None:
            _unplaced(one, margin.of(one), margin.between)
    opened = [f for f in shown if not f.why_closed]
    patches = repo.patches(span.base, span.sha, [f.change for f in opened])
    budget = COLOUR_BUDGET
    for one, patch in zip(opened, patches, strict=True):
        if (one.change.generated or patch.says_generated) and not ask.opens(one.number):
            one.why_closed = "generated"
        budget = _fill(one, patch, ask, budget, margin)
    tree = folders.tree(changes)
    upper: list[tuple[str, str, folders.Folder]] = []
    wide = len(changes) > TREE_LIMIT
    if wide:
        upper = _folders(tree, page_of, ask)
        tree = _moved(folders.tree(changes[start:end]), start)
    links = {n: ask.link(page=n) for n in range(1, len(ranges) + 1)}
    to_page = links | {page: ""}
    return DiffShown(
        files=shown,
        tree=tree,
        wide=wide,
        total=len(changes),
        added=sum(c.added or 0 for c in changes),
        removed=sum(c.removed or 0 for c in changes),
        page=page,
        pages=list(links.items()),
        page_of=page_of,
        places={diffs.shown_path(c.path): f"{to_page[page_of[n]]}#f{n}" for n, c in enumerate(changes)},
        folders=upper,
    )


def _page_asked_for(ask: Ask, page_of: Mapping[int, int], pages: int) -> int:
    """The page with the file that is asked for, else the one of that number, as far as there are so many."""
    wanted = ask.at[0] if ask.at else ask.file
    if wanted is not None:
        return page_of.get(wanted, 1)
    return min(max(ask.page, 1), pages)


def _folders(whole: folders.Folder, page_of: dict[int, int], ask: Ask) -> list[tuple[str, str, folders.Folder]]:
    """The upper folders of a wide diff, each with the way to its first file."""
    found = []
    for folder in whole.folders[:FOLDERS]:
        first = folder
        while not first.files:
            first = first.folders[0]
        number = first.files[0][0]
        found.append((diffs.shown_path(folder.name), f"{ask.link(page=page_of[number])}#f{number}", folder))
    return found


def tree_html(found: DiffShown, ask: Ask) -> SafeString:
    """The file tree: folders that open and close, files that lead to their place, counts on both."""
    return mark_safe(_folder_html(found.tree, found, ask))  # noqa: S308 - escaped below


def _folder_html(folder: folders.Folder, found: DiffShown, ask: Ask) -> str:
    inner = [
        f"<li><details open><summary>{_name(below.name)} {_counts(below.added, below.removed, below.count)}</summary>"
        f"{_folder_html(below, found, ask)}</details>"
        for below in folder.folders
    ]
    here = {f.number for f in found.files}
    for number, change in folder.files:
        link = f"#f{number}"
        if number not in here:
            link = ask.link(page=found.page_of[number]).replace("&", "&amp;") + link
        name = _name(change.path.rsplit("/", 1)[-1])
        status = f'<span class="rv-mark rv-{change.status}">{escape(change.status)}</span>'
        counts = "binary"
        if not change.binary:
            counts = _counts(change.added or 0, change.removed or 0)
        inner.append(f'<li><a href="{link}">{status} {name}</a> {counts}')
    return f"<ul>{''.join(inner)}</ul>"


def _name(path: str) -> str:
    return escape(diffs.shown_path(path))


def _counts(added: int, removed: int, files: int = 0) -> str:
    words = []
    if files:
        words.append(f"{files} ·")
    if added or not removed:
        words.append(f'<b class="rv-plus">+{added}</b>')
    if removed:
        words.append(f'<b class="rv-minus">−{removed}</b>')
    return f"<small>{' '.join(words)}</small>"


def _moved(folder: folders.Folder, by: int) -> folders.Folder:
    """The tree of one page's files, numbered as in the whole diff."""
    inner = tuple(_moved(f, by) for f in folder.folders)
    files = tuple((n + by, c) for n, c in folder.files)
    return folders.Folder(folder.name, folder.added, folder.removed, inner, files)


def _file(number: int, change: diffs.Change, ask: Ask) -> FileShown:
    path, old = diffs.shown_path(change.path), diffs.shown_path(change.old_path)
    if change.old_path == change.path:
        old = ""
    shown = FileShown(number, change, path, old, STATUS.get(change.status, change.status))
    if not ask.opens(number):
        shown.why_closed = diffs.collapsed(change)
    shown.link = ask.link(file=number) + f"#f{number}"
    if change.status == "R":
        shown.says.append(f"renamed from {old}, {change.similarity} % the same")
    elif change.status == "C":
        shown.says.append(f"copied from {old}")
    if change.mode_changed:
        shown.says.append(f"mode {change.old_mode} → {change.new_mode}")
    elif change.status == "A" and change.new_mode != "100644":
        kinds = {"100755": "executable", "120000": "symbolic link", "160000": "submodule"}
        shown.says.append(kinds.get(change.new_mode, f"mode {change.new_mode}"))
    if change.binary:
        shown.says.append("binary: not shown")
    return shown


def _unplaced(one: FileShown, remarks: Sequence[ReviewComment], between: Between) -> None:
    """Remarks on lines that are not on the page stand above the file."""
    one.comments += len(remarks)
    one.unplaced += [mark_safe(between(remark)) for remark in remarks]  # noqa: S308 - made by a template


def _fill(one: FileShown, patch: diffs.Patch, ask: Ask, budget: int, margin: Margin | None) -> int:
    """Render a file's hunks; returns what is left of the colours' budget."""
    places, link = {}, ""
    if margin is not None:
        places = _places(one, patch, ask, margin)
        if margin.form is not None:
            link = ask.link(at=f"{one.number}.").replace("&", "&amp;")
    if not patch.hunks:
        if not one.change.binary and one.change.lines:
            one.says.append("too large to show here: look at it in a clone")
        return budget
    size = sum(len(line.text) for hunk in patch.hunks for line in hunk.lines)
    notes = diffhtml.Notes(places, link)
    html = diffhtml.table(one.change.path, patch, split=ask.split, notes=notes, coloured=size <= budget)
    one.html = mark_safe(html)  # noqa: S308 - escaped in diffhtml
    return budget - size


def _places(one: FileShown, patch: diffs.Patch, ask: Ask, margin: Margin) -> dict[tuple[str, int], str]:
    """What stands under which (side, line) of a file. A remark whose line is not there stands above the file; in a
    part of the change, it is not shown."""
    places: dict[tuple[str, int], str] = {}
    for remark in margin.of(one):
        if margin.bridge is None:
            place = _place(patch, remark)
        else:
            place = _across(margin.bridge, one.change, patch, remark)
        if place is not None:
            one.comments += 1
            places[place] = places.get(place, "") + margin.between(remark)
        elif margin.bridge is None:
            _unplaced(one, [remark], margin.between)
    if ask.at and ask.at[0] == one.number and margin.form is not None:
        _, side, line = ask.at
        places[side, line] = places.get((side, line), "") + margin.form(one, side, line)
    return places


def _across(bridge: Bridge, change: diffs.Change, patch: diffs.Patch, remark: ReviewComment) -> tuple[str, int] | None:
    """Where a remark on the whole change stands in a part of it."""
    return bridge.back(change, patch, (remark.file, remark.side, remark.line), remark.quote)


def _place(patch: diffs.Patch, remark: ReviewComment) -> tuple[str, int] | None:
    """Where a remark stands: on its line, or on the nearest that reads the same (the target may have moved it)."""
    lines = [line for hunk in patch.hunks for line in hunk.lines if line.text[:300] == remark.quote]
    numbers = [line.at(remark.side) for line in lines]
    nearest = min(filter(None, numbers), key=lambda number: abs(number - remark.line), default=None)
    if nearest is None:
        return None
    return remark.side, nearest
