"""A git remote in memory, as `refinery.git.Repo` sees one: real histories, three-way merges, leases, and bad weather.

Stands in for git only in the model-based test, which takes hundreds of thousands of steps. What it promises is what
the tests over real remotes hold `refinery.git.repo` to: the same answers, the same errors, and no memory of its own of
what was pushed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from agents.runtime.gitcmd import GitFailed
from beads.errors import GastownError
from refinery.git.repo import (
    AlreadyMerged,
    Built,
    CandidateSpec,
    ConflictFound,
    Landed,
    NothingToMerge,
    PushRefused,
    TargetMoved,
)

Tree = dict[str, str]


class Killed(BaseException):
    """The process died here: nothing after this line happened, whatever came before did."""


@dataclass(frozen=True)
class Commit:
    """One commit: what the files hold, and where it comes from."""

    sha: str
    files: tuple[tuple[str, str], ...]
    parents: tuple[str, ...]

    @property
    def tree(self) -> str:
        """The tree's id: equal for equal files."""
        return hashlib.sha1(repr(self.files).encode()).hexdigest()


@dataclass
class Remote:
    """Commits and branches. `weather` is asked before and after everything that goes over the network."""

    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    weather: Callable[[str], None] = lambda where: None
    protected: bool = False

    # -- as a person with a clone --

    def commit(self, branch: str, files: Tree, start: str | None = None) -> str:
        """Commit the changed `files` on top of a branch (or of `start`) and push it, forced."""
        base = self.branches.get(start or branch)
        return self.push(branch, self.make({**self.files(base), **files}, [base] if base else []))

    def make(self, files: Tree, parents: Iterable[str], salt: str = "") -> str:
        """A commit that nobody has pushed."""
        told = tuple(sorted(files.items())), tuple(parents)
        sha = hashlib.sha1(repr((*told, salt)).encode()).hexdigest()
        self.commits[sha] = Commit(sha, *told)
        return sha

    def push(self, branch: str, sha: str) -> str:
        """Put a branch somewhere."""
        self.branches[branch] = sha
        return sha

    def files(self, sha: str | None) -> Tree:
        """What a commit holds."""
        return dict(self.commits[sha].files) if sha else {}

    def ancestors(self, sha: str) -> set[str]:
        """A commit and all that it stands on."""
        seen: set[str] = set()
        todo = [sha]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo.extend(self.commits[one].parents)
        return seen

    def first_parents(self, sha: str) -> list[str]:
        """The line of a branch, newest first."""
        line = [sha]
        while parents := self.commits[line[-1]].parents:
            line.append(parents[0])
        return line

    # -- as refinery.git.Repo --

    def ls_remote(self, url: str, branch: str, timeout: float = 0) -> str | None:
        """Where a branch is."""
        self.weather("ls-remote")
        return self.branches.get(branch)

    def heads(self, url: str, branches: Sequence[str]) -> dict[str, str | None]:
        """Where branches are."""
        self.weather("ls-remote")
        return {branch: self.branches.get(branch) for branch in branches}

    def look(self, url: str, branches: Sequence[str], old: str, new: str) -> dict[str, str | None]:
        """`heads`, and `new` contains `old`."""
        if not self.is_ancestor(old, new):
            raise GastownError(f"candidate {new[:12]} does not stand on {old[:12]}")
        return self.heads(url, branches)

    def fetch_branch(self, url: str, branch: str) -> str:
        """Where a branch is; no such branch is an answer."""
        self.weather("fetch")
        if branch not in self.branches:
            raise GitFailed(f"git fetch: couldn't find remote ref {branch}", kind="missing_ref")
        return self.branches[branch]

    def fetch_sha(self, url: str, sha: str, branch: str) -> None:
        """Have a commit."""
        self.weather("fetch")
        if sha not in self.commits:
            raise GitFailed(f"the remote no longer has commit {sha[:12]}", kind="missing_ref")

    def tree_of(self, sha: str) -> str:
        """A commit's tree."""
        return self.commits[sha].tree

    def title(self, base: str, head: str) -> str:
        """The first line of a change."""
        return f"Change {head[:8]}"

    def is_ancestor(self, old: str, new: str) -> bool:
        """True when `new` contains `old`."""
        return old in self.ancestors(new)

    def merge_base(self, a: str, b: str) -> str | None:
        """The common ancestor that has the most behind it."""
        common = self.ancestors(a) & self.ancestors(b)
        return max(sorted(common), key=lambda sha: len(self.ancestors(sha)), default=None)

    def touched(self, base: str, sha: str) -> list[str]:
        """The paths that differ between two commits."""
        old, new = self.files(base), self.files(sha)
        return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))

    def committers(self, base: str, head: str) -> set[str]:
        """Who has made what `head` has and `base` has not; what nobody is known to have made is a person's."""
        return {self.makers.get(sha, "ann@example.org") for sha in self.own(base, head)}

    def own(self, base: str, head: str) -> list[str]:
        """What `head` has and `base` has not."""
        return sorted(self.ancestors(head) - self.ancestors(base))

    def stacked(self, base: str, heads: Sequence[str]) -> list[tuple[str, str]]:
        """Who contains whom, of what the base does not contain."""
        merged = self.ancestors(base)
        return [(up, low) for up in heads for low in heads if up != low and low in self.ancestors(up) - merged]

    def clashes(
        self, base: str, heads: Sequence[str], apart: Container[frozenset[str]], known: Container[str] = ()
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        """Who conflicts with the base, and with one merged onto it."""

        def onto(below: str, head: str) -> Built | ConflictFound | AlreadyMerged | NothingToMerge:
            return self.build_candidate(CandidateSpec(head, below, "squash", "", ("", ""), 0))

        alone = {h: onto(base, h) for h in heads}
        found = [(h, "", x.files) for h, x in alone.items() if isinstance(x, ConflictFound) and h not in known]
        built = {h: x.sha for h, x in alone.items() if isinstance(x, Built)}
        for a, b in combinations(built, 2):
            if frozenset((a, b)) not in apart and not (a in known and b in known):
                both = onto(built[a], b)
                found += [(a, b, both.files)] if isinstance(both, ConflictFound) else []
        return found

    def build_candidate(self, spec: CandidateSpec) -> Built | ConflictFound | AlreadyMerged | NothingToMerge:
        """Three-way, by file; one squashed or merged commit."""
        base, head = spec.base, spec.head
        mine = self.ancestors(base)
        if head in mine:
            return AlreadyMerged(base, head)
        landed = [
            x for x in spec.landed if isinstance(self.build_candidate(replace(spec, head=x, landed=())), NothingToMerge)
        ]
        fork = next((sha for sha in self._by_age(head) if sha in mine or sha in landed), None)
        old, ours, theirs = self.files(fork), self.files(base), self.files(head)
        merged, conflicts = dict(ours), []
        for path in {*old, *theirs}:
            if theirs.get(path) == old.get(path) or theirs.get(path) == ours.get(path):
                continue
            if ours.get(path) != old.get(path):
                conflicts.append(path)
            elif path in theirs:
                merged[path] = theirs[path]
            else:
                merged.pop(path, None)
        if conflicts:
            return ConflictFound(tuple(sorted(conflicts)), base, head)
        if merged == ours:
            return NothingToMerge(base, head)
        parents = [base, head] if spec.method == "merge" else [base]
        sha = self.make(merged, parents, salt=f"{spec.title} {spec.date} {spec.trailers}")
        return Built(sha, self.commits[sha].tree, base, head)

    def seal(self, base: str, tip: str, tree: str, message: str, committer: tuple[str, str], date: int) -> str:
        """A merge commit of `tip` over `base`."""
        sha = self.make(self.files(tip), [base, tip], salt=f"{message} {date}")
        assert self.commits[sha].tree == tree
        return sha

    def _by_age(self, sha: str) -> list[str]:
        """Ancestors, nearest first."""
        seen, line = {sha}, [sha]
        for one in line:
            for parent in self.commits[one].parents:
                if parent not in seen:
                    seen.add(parent)
                    line.append(parent)
        return line

    def land(self, url: str, target: str, expected: str, candidate: str) -> Landed | TargetMoved | PushRefused:
        """Push by lease, then conclude from what the remote holds."""
        self.weather("push")
        actual = self.branches[target]
        if self.is_ancestor(candidate, actual):
            return Landed(actual)
        if actual != expected:
            return TargetMoved(actual)
        if self.protected:
            return PushRefused("the branch is protected")
        self.branches[target] = candidate
        self.weather("pushed")
        return Landed(candidate)

    def create_branch(self, url: str, branch: str, sha: str) -> str:
        """Make a branch, once."""
        self.weather("push")
        found = self.branches.setdefault(branch, sha)
        self.weather("pushed")
        return found

    def delete_branch(self, url: str, branch: str, expected: str) -> bool:
        """Delete a branch that is where it is expected."""
        self.weather("push")
        if self.branches.get(branch, expected) != expected:
            return False
        self.branches.pop(branch, None)
        self.weather("pushed")
        return True
