"""What a review shows: which two trees, which commits, which line. Rows and git objects; reads only.

The change is exactly the candidate against its base. Until this head's candidate is built (or when it conflicts) it is
the head against where it left the target, and the span says so. What git cannot tell raises `GitFailed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.runtime.gitcmd import GitFailed
from beads.errors import Invalid, NotFound
from beads.models import Bead
from refinery.core.states import BuildResult, EntryKind, EntryState
from refinery.git import diffs
from refinery.git.mirror import repo_of
from refinery.git.repo import Commit
from refinery.models import Candidate, ReviewEntry

COMMITS = 200
CHAIN = 20


@dataclass(frozen=True)
class Span:
    """Two commits or trees to compare. `kind`: candidate, head, commit or since; `note`: what a reader must know."""

    base: str
    sha: str
    kind: str
    note: str = ""


def candidate_of(entry: ReviewEntry) -> Candidate | None:
    """The built candidate of the entry's head: the one that landed, or the newest."""
    built = entry.candidates.filter(result=BuildResult.BUILT, head_sha=entry.head_sha)
    return (entry.merge_sha and built.filter(sha=entry.merge_sha).last()) or built.last()


def whole(entry: ReviewEntry) -> Span:
    """The entry's change. Raises NotFound, with a sentence for people, while there is nothing to compare with."""
    found = candidate_of(entry)
    if found is not None:
        return Span(found.base_sha, found.sha, "candidate")
    base = _base(entry)
    left = repo_of(entry.rig).merge_base(base, entry.head_sha) or base
    note = "This head's candidate is not built: this is the branch against where it left the target."
    return Span(left, entry.head_sha, "head", note)


def _base(entry: ReviewEntry) -> str:
    """The target's commit that the entry is compared with."""
    found = candidate_of(entry)
    if found is not None:
        return found.base_sha
    repo = repo_of(entry.rig)
    latest = entry.candidates.exclude(base_sha="").last()
    base = latest.base_sha if latest else repo.known_branch(entry.target)
    if not base or not repo.has(entry.head_sha) or not repo.has(base):
        raise NotFound("The diff is shown as soon as a candidate was built.")
    return base


def commits(entry: ReviewEntry, limit: int = COMMITS) -> list[Commit]:
    """The change's own commits, oldest first: those that its base does not have."""
    try:
        base = _base(entry)
    except NotFound as error:
        raise GitFailed(error.message) from error
    return repo_of(entry.rig).commits(base, entry.head_sha, limit)[::-1]


def of_commit(entry: ReviewEntry, named: list[Commit], sha: str) -> tuple[Span, Commit]:
    """One commit of the change against its first parent. Raises NotFound for any other commit."""
    commit = next((c for c in named if len(sha) >= 7 and c.sha.startswith(sha)), None)
    if commit is None or not commit.parents:
        raise NotFound(f"{entry.pk} has no commit {sha[:40]}")
    return Span(commit.parents[0], commit.sha, "commit"), commit


def heads(entry: ReviewEntry) -> list[str]:
    """Every head this change has had, older entries of the same branch included, oldest first."""
    found: list[str] = []
    for one in [*reversed(lineage(entry)), entry]:
        found += one.candidates.values_list("head_sha", flat=True)
        found += [h for row in one.verdicts.order_by("id").values_list("head_sha") for h in row if h not in found]
        found.append(one.head_sha)
    return list(dict.fromkeys(found))


def lineage(entry: ReviewEntry) -> list[ReviewEntry]:
    """The entries that this one superseded, newest first."""
    found: list[ReviewEntry] = []
    last = [entry]
    while last and len(found) < CHAIN:
        last = list(ReviewEntry.objects.filter(superseded_by__in=last).order_by("-created_at"))
        found += last
    return found


def since(entry: ReviewEntry, old: str) -> Span:
    """From an older head to what is offered now, without what the target has gained meanwhile.

    The old head is merged onto the present base and compared with the present candidate; where that conflicts, the
    two heads are compared as they are. Raises NotFound for a head that this change never had.
    """
    known = next((h for h in heads(entry) if len(old) >= 7 and h.startswith(old)), None)
    if known is None:
        raise NotFound(f"{entry.pk} never had the head {old[:40]}")
    repo = repo_of(entry.rig)
    if not repo.has(known):
        raise GitFailed(f"commit {known[:12]} is no longer here")
    found = candidate_of(entry)
    if found is not None:
        tree = repo.merged_tree(found.base_sha, known)
        if tree is not None:
            return Span(tree, found.sha, "since")
    note = "The older head does not merge with the present target, so what the target gained may be shown, too."
    return Span(known, entry.head_sha, "since", note)


def line_text(entry: ReviewEntry, file: str, side: str, line: int) -> str:
    """A line of the change as it is shown. Raises Invalid, naming the field, for what the diff does not show."""
    if side not in ("old", "new"):
        raise Invalid("side must be old or new", field="side")
    try:
        span = whole(entry)
        repo = repo_of(entry.rig)
        change = next((c for c in repo.changes(span.base, span.sha) if diffs.shown_path(c.path) == file), None)
        if change is None:
            raise Invalid(f"file {file[:200]!r} is not in this change", field="file")
        (patch,) = repo.patches(span.base, span.sha, [change])
    except (GitFailed, NotFound) as error:
        raise Invalid(f"file: the diff cannot be read: {error.message}", field="file") from error
    for hunk in patch.hunks:
        for one in hunk.lines:
            if line and line == one.at(side):
                return one.text[:300]
    raise Invalid(f"line {line} of {file[:200]!r} is not in this change", field="line")


def beads(entry: ReviewEntry, named: list[Commit]) -> list[dict[str, Any]]:
    """A convoy's beads with the commit that each became on its branch, for a landing entry; in order of landing."""
    if entry.kind != EntryKind.LANDING or entry.convoy is None:
        return []
    place = {commit.sha: number for number, commit in enumerate(named)}
    rows = []
    for bead in Bead.objects.filter(convoy=entry.convoy, rig=entry.rig).prefetch_related("entries"):
        merged = next((e for e in bead.entries.all() if e.state == EntryState.MERGED), None)
        rows.append({"bead": bead, "commit": place.get(bead.merge_sha) is not None and bead.merge_sha, "entry": merged})
    return sorted(rows, key=lambda row: place.get(row["bead"].merge_sha, len(place)))
