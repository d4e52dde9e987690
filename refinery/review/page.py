"""A diff made ready for the review page: which files, on which page, with which remarks between their lines.

Reads only. What is shown of a file at once is bounded (see `refinery.git.diffs`), so that a page of a 5,000-file diff,
or of one with a megabyte in a line, costs no more than any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode

from django.utils.safestring import SafeString, mark_safe

from refinery.git import diffs
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
        words = [*self.keep, *([("view", "split")] if self.split else [])]
        return self._address([(k, v) for k, v in words if k not in more], more)

    def only(self, **more: object) -> str:
        """The address of another diff of the same review."""
        return self._address([("view", "split")] if self.split else [], more)

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
    tree: diffs.Folder
    wide: bool
    total: int
    added: int
    removed: int
    page: int
    pages: list[tuple[int, str]]
    page_of: dict[int, int]
    places: dict[str, str]
    folders: list[tuple[str, str, diffs.Folder]]


def show(
    repo: Repo,
    span: Span,
    ask: Ask,
    *,
    remarks: Sequence[ReviewComment] = (),
    between: Between | None = None,
    form: Callable[[FileShown, str, int], str] | None = None,
    bridge: Bridge | None = None,
) -> DiffShown:
    """Read and render one page of a diff. `form` makes the form for a new remark; None: nobody may write one here.
    `bridge`: to the whole change, where the remarks are, when this is a part of it."""
    changes = repo.changes(span.base, span.sha)
    ranges = diffs.pages(changes)
    page_of = {n: number for number, (start, end) in enumerate(ranges, 1) for n in range(start, end)}
    wanted = ask.at[0] if ask.at else ask.file
    page = page_of.get(wanted, 1) if wanted is not None else min(max(ask.page, 1), len(ranges))
    start, end = ranges[page - 1]
    alone = ask.file is not None and 0 <= ask.file < len(changes)
    numbers = [ask.file] if alone and ask.file is not None else list(range(start, end))
    shown = [_file(n, changes[n], ask) for n in numbers]
    for one in shown:
        if alone or (ask.at and ask.at[0] == one.number):
            one.why_closed = ""
    opened = [f for f in shown if not f.why_closed]
    for one in shown:
        if one.why_closed and between is not None and bridge is None:
            _unplaced(one, [r for r in remarks if r.file == one.path], between)
    patches = repo.patches(span.base, span.sha, [f.change for f in opened])
    budget = COLOUR_BUDGET
    for one, patch in zip(opened, patches, strict=True):
        asked_for = alone or bool(ask.at and ask.at[0] == one.number)
        if (one.change.generated or patch.says_generated) and not asked_for:
            one.why_closed = "generated"
        budget = _fill(one, patch, ask, budget, remarks, between, form, bridge)
    whole = diffs.tree(changes)
    links = {n: "" if n == page else ask.link(page=n) for n in range(1, len(ranges) + 1)}
    wide = len(changes) > TREE_LIMIT
    return DiffShown(
        files=shown,
        tree=_moved(diffs.tree(changes[start:end]), start) if wide else whole,
        wide=wide,
        total=len(changes),
        added=sum(c.added or 0 for c in changes),
        removed=sum(c.removed or 0 for c in changes),
        page=page,
        pages=[(n, ask.link(page=n)) for n in range(1, len(ranges) + 1)],
        page_of=page_of,
        places={diffs.shown_path(c.path): f"{links[page_of[n]]}#f{n}" for n, c in enumerate(changes)},
        folders=_folders(whole, page_of, ask) if wide else [],
    )


def _folders(whole: diffs.Folder, page_of: dict[int, int], ask: Ask) -> list[tuple[str, str, diffs.Folder]]:
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


def _folder_html(folder: diffs.Folder, found: DiffShown, ask: Ask) -> str:
    inner = [
        f"<li><details open><summary>{_name(below.name)} {_counts(below.added, below.removed, below.count)}</summary>"
        f"{_folder_html(below, found, ask)}</details>"
        for below in folder.folders
    ]
    here = {f.number for f in found.files}
    for number, change in folder.files:
        page = "" if number in here else ask.link(page=found.page_of[number]).replace("&", "&amp;")
        name = _name(change.path.rsplit("/", 1)[-1])
        status = f'<span class="rv-mark rv-{change.status}">{escape(change.status)}</span>'
        counts = "binary" if change.binary else _counts(change.added or 0, change.removed or 0)
        inner.append(f'<li><a href="{page}#f{number}">{status} {name}</a> {counts}')
    return f"<ul>{''.join(inner)}</ul>"


def _name(path: str) -> str:
    return escape(diffs.shown_path(path))


def _counts(added: int, removed: int, files: int = 0) -> str:
    of = [f"{files} ·"] if files else []
    plus = [f'<b class="rv-plus">+{added}</b>'] if added or not removed else []
    minus = [f'<b class="rv-minus">−{removed}</b>'] if removed else []
    return f"<small>{' '.join([*of, *plus, *minus])}</small>"


def _moved(folder: diffs.Folder, by: int) -> diffs.Folder:
    """The tree of one page's files, numbered as in the whole diff."""
    folders = tuple(_moved(f, by) for f in folder.folders)
    files = tuple((n + by, c) for n, c in folder.files)
    return diffs.Folder(folder.name, folder.added, folder.removed, folders, files)


def _file(number: int, change: diffs.Change, ask: Ask) -> FileShown:
    old = diffs.shown_path(change.old_path) if change.old_path != change.path else ""
    shown = FileShown(number, change, diffs.shown_path(change.path), old, STATUS.get(change.status, change.status))
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


def _fill(
    one: FileShown,
    patch: diffs.Patch,
    ask: Ask,
    budget: int,
    remarks: Sequence[ReviewComment],
    between: Between | None,
    form: Callable[[FileShown, str, int], str] | None,
    bridge: Bridge | None,
) -> int:
    """Render a file's hunks; returns what is left of the colours' budget."""
    places: dict[tuple[str, int], str] = {}
    for remark in remarks:
        if remark.file == one.path and between is not None:
            place = _place(patch, remark) if bridge is None else _across(bridge, one.change, patch, remark)
            if place is None and bridge is None:
                _unplaced(one, [remark], between)
            elif place is not None:
                one.comments += 1
                places[place] = places.get(place, "") + between(remark)
    if ask.at and ask.at[0] == one.number and form is not None:
        _, side, line = ask.at
        places[side, line] = places.get((side, line), "") + form(one, side, line)
    if not patch.hunks:
        if not one.change.binary and one.change.lines:
            one.says.append("too large to show here: look at it in a clone")
        return budget
    size = sum(len(line.text) for hunk in patch.hunks for line in hunk.lines)
    link = ask.link(at=f"{one.number}.").replace("&", "&amp;") if form is not None else ""
    notes = diffhtml.Notes(places, link)
    html = diffhtml.table(one.change.path, patch, split=ask.split, notes=notes, coloured=size <= budget)
    one.html = mark_safe(html)  # noqa: S308 - escaped in diffhtml
    return budget - size


def _across(bridge: Bridge, change: diffs.Change, patch: diffs.Patch, remark: ReviewComment) -> tuple[str, int] | None:
    """Where a remark on the whole change stands in a part of it."""
    return bridge.back(change, patch, (remark.file, remark.side, remark.line), remark.quote)


def _place(patch: diffs.Patch, remark: ReviewComment) -> tuple[str, int] | None:
    """Where a remark stands: on its line, or on the nearest that reads the same (the target may have moved it)."""
    found: list[int] = []
    for hunk in patch.hunks:
        for line in hunk.lines:
            number = line.old if remark.side == "old" else line.new
            if number and line.text[:300] == remark.quote:
                found.append(number)
    nearest = min(found, key=lambda number: abs(number - remark.line), default=None)
    return (remark.side, nearest) if nearest is not None else None
