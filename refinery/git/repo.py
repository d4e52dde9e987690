"""Git as the refinery needs it: a bare mirror per rig, candidates built without a worktree, landing by lease.

With `agents.runtime.gitcmd` the only modules that run git. Objects are read through GitPython; all that writes is fixed
plumbing over resolved object ids. Answers are typed; *unknown* (the remote could not be asked) always raises.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import git as gitpython

from agents.runtime import gitcmd
from agents.runtime.crashpoints import crashpoint
from agents.runtime.gitcmd import GitFailed, check_branch, check_sha, run_git, started_git
from beads.errors import GastownError
from refinery.git import diffs
from refinery.git.access import Access
from refinery.relations import contained

STACK_COMMITS = 20_000
Author = tuple[str, str, str] | None
AUTHOR = "--format=%an%x00%ae%x00%at%x00%P"


@dataclass(frozen=True)
class CandidateSpec:
    """What to build. The same spec gives the same commit: committer and `date` (Unix seconds) are inputs.

    `landed`: commits that `head` contains and that may have landed as others (squashed): those that `base` shows to
    have are not merged a second time.
    """

    head: str
    base: str
    method: str
    title: str
    committer: tuple[str, str]
    date: int
    body: str = ""
    trailers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    landed: Sequence[str] = ()


@dataclass(frozen=True)
class Built:
    """The candidate: its commit, tree and the base it stands on."""

    sha: str
    tree: str
    base: str
    head: str


@dataclass(frozen=True)
class ConflictFound:
    """It does not merge: these paths conflict."""

    files: tuple[str, ...]
    base: str
    head: str


@dataclass(frozen=True)
class AlreadyMerged:
    """The base contains the head."""

    base: str
    head: str


@dataclass(frozen=True)
class NothingToMerge:
    """Merging changes no file."""

    base: str
    head: str


@dataclass(frozen=True)
class Landed:
    """The remote's target contains the candidate."""

    target: str


@dataclass(frozen=True)
class TargetMoved:
    """The target was not where it was expected; nothing was pushed."""

    actual: str


@dataclass(frozen=True)
class PushRefused:
    """The remote refused (a hook, a protected branch); nothing was pushed."""

    message: str


@dataclass(frozen=True)
class Commit:
    """A commit, for people: `at` is the author's time in Unix seconds."""

    sha: str
    parents: tuple[str, ...]
    author: str
    mail: str
    at: int
    message: str

    @property
    def subject(self) -> str:
        """The first line of its message."""
        return self.message.split("\n", 1)[0]


class Repo:
    """A bare repository that mirrors what the refinery needs of a rig's remote, which `access` opens."""

    def __init__(self, path: Path, access: Access = Access()) -> None:  # noqa: B008 - frozen
        self.path = path
        self.access = access

    @classmethod
    def open_or_create(cls, path: Path, access: Access = Access()) -> Repo:  # noqa: B008 - frozen
        """Open the repository at `path`, making it when missing."""
        gitcmd.ensure_bare(path)
        return cls(path, access)

    def _git(self, *args: str, input: bytes | None = None, timeout: float = gitcmd.TIMEOUT) -> str:
        return run_git(args, cwd=self.path, input=input, timeout=timeout).text

    # -- the remote --

    def ls_remote(self, url: str, branch: str, timeout: float = gitcmd.NETWORK_TIMEOUT) -> str | None:
        """The branch's head on the remote; None only when the remote answered that it has no such branch."""
        return self.heads(url, [branch], timeout)[branch]

    def heads(
        self, url: str, branches: Sequence[str], timeout: float = gitcmd.NETWORK_TIMEOUT
    ) -> dict[str, str | None]:
        """Where these branches are on the remote, asked at once; None: the remote answered that there is no such."""
        refs = [f"refs/heads/{check_branch(branch)}" for branch in dict.fromkeys(branches)]
        asked = ["ls-remote", "--end-of-options", url, *refs]
        result = run_git(asked, cwd=self.path, timeout=timeout, env=self.access.env())
        rows = [line.partition("\t") for line in result.text.splitlines()]
        found = {name: check_sha(sha) for sha, _, name in rows if name in refs}
        return {branch: found.get(f"refs/heads/{branch}") for branch in branches}

    def look(self, url: str, branches: Sequence[str], old: str, new: str) -> dict[str, str | None]:
        """`heads`, while git is asked whether `new` contains `old`; raises GastownError when it does not."""
        with started_git(gitcmd.ancestry(old, new), cwd=self.path) as asked:
            found = self.heads(url, branches)
            if not gitcmd.is_ancestor(asked.result(check=False)):
                raise GastownError(f"candidate {new[:12]} does not stand on {old[:12]}")
        return found

    def default_branch(self, url: str) -> str | None:
        """The branch that the remote's HEAD names, or None when it names none."""
        arguments = ["ls-remote", "--symref", "--end-of-options", url, "HEAD"]
        result = run_git(arguments, cwd=self.path, timeout=gitcmd.NETWORK_TIMEOUT, env=self.access.env())
        for line in result.text.splitlines():
            if line.startswith("ref: refs/heads/"):
                return line.removeprefix("ref: refs/heads/").partition("\t")[0]
        return None

    def fetch_branch(self, url: str, branch: str) -> str:
        """A branch's commit on the remote, fetched unless it is here: mostly it is one that we have landed."""
        known = (self.path / "refs/gastown/remote" / check_branch(branch)).exists()  # see `known_branch`
        found = self.ls_remote(url, branch) if known else None
        if found is not None and gitcmd.has_commit(self.path, found):
            return found
        return gitcmd.fetch(self.path, url, branch, env=self.access.env())

    def fetch_sha(self, url: str, sha: str, branch: str) -> None:
        """Have the commit `sha`: from here, by its id, or through the branch it was on. Raises GitFailed."""
        if gitcmd.has_commit(self.path, sha):
            return
        try:
            gitcmd.fetch(self.path, url, check_sha(sha), env=self.access.env())
            return
        except GitFailed as error:
            if error.kind not in ("missing_ref", "other"):
                raise
        gitcmd.fetch(self.path, url, check_branch(branch), env=self.access.env())
        if not gitcmd.has_commit(self.path, sha):
            raise GitFailed(f"the remote no longer has commit {sha[:12]} of {branch}", kind="missing_ref")

    # -- questions --

    def is_ancestor(self, old: str, new: str) -> bool:
        """True when `new` contains `old`. Raises GitFailed when either is unknown."""
        return gitcmd.is_ancestor(run_git(gitcmd.ancestry(old, new), cwd=self.path, check=False))

    def merge_base(self, a: str, b: str) -> str | None:
        """The best common ancestor, or None for unrelated histories."""
        result = run_git(["merge-base", check_sha(a), check_sha(b)], cwd=self.path, check=False)
        if result.returncode > 1:
            raise gitcmd.failure("merge-base", result)
        return result.text or None

    # -- foresight --

    def stacked(self, base: str, heads: Sequence[str]) -> list[tuple[str, str]]:
        """(upper, lower) for each of `heads` that contains another one which `base` does not contain. One process.

        Of histories with more than `STACK_COMMITS` commits outside of `base` the oldest part is not looked at.
        """
        if len(heads) < 2:
            return []
        asked = "".join(f"{check_sha(head)}\n" for head in heads) + f"^{check_sha(base)}\n"
        words = ["rev-list", "--parents", "--topo-order", f"--max-count={STACK_COMMITS}", "--stdin"]
        rows = [line.split(" ") for line in self._git(*words, input=asked.encode()).splitlines()]
        return contained({sha: above for sha, *above in rows}, heads)

    def clashes(
        self, base: str, heads: Sequence[str], apart: Container[frozenset[str]], known: Container[str] = ()
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        """Which heads conflict with `base` (a, "", files), and which, in this order, with one of them merged onto it
        (a, b, files). Pairs `apart` are passed over, and those of which both are `known`."""
        alone = self._onto(base, heads)
        found = [(h, "", files) for h, files in alone.items() if isinstance(files, tuple) and h not in known]
        clean = [h for h in dict.fromkeys(heads) if isinstance(alone.get(h), str)]
        pairs = [
            (a, b)
            for a, b in combinations(clean, 2)
            if frozenset((a, b)) not in apart and not (a in known and b in known)
        ]
        spec = CandidateSpec("", base, "squash", "", ("Gastown", "gastown@example.invalid"), 0)
        merged = {a: self._commit(str(alone[a]), [base], "foreseen\n", spec, None) for a in {a for a, _ in pairs}}
        answers = self._merge_trees([(merged[a], b) for a, b in pairs]) if pairs else []
        return found + [(a, b, files) for (a, b), files in zip(pairs, answers, strict=True) if isinstance(files, tuple)]

    def _onto(self, base: str, heads: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
        """Each head merged onto `base`; what cannot be merged at all (an unrelated history) is left out."""
        try:
            return dict(zip(heads, self._merge_trees([(base, head) for head in heads]), strict=True)) if heads else {}
        except GitFailed:
            if len(heads) == 1:
                return {}
        return {head: tree for one in heads for head, tree in self._onto(base, [one]).items()}

    # -- candidates --

    def build_candidate(self, spec: CandidateSpec) -> Built | ConflictFound | AlreadyMerged | NothingToMerge:
        """Build the exact commit that gates test and landing pushes, without a worktree: four git processes.

        Raises GitFailed when a commit is unknown.
        """
        base, head = check_sha(spec.base), check_sha(spec.head)
        with started_git(_authors(base, head), cwd=self.path) as authors:
            # merging the base with itself in the same process gives its tree, to compare with
            pairs = [(base, base), (base, head), *((base, x) for x in spec.landed)]
            base_tree, merged, *below = self._merge_trees(pairs)
            author = _first_author(authors.result().text)
        if author is None:
            return AlreadyMerged(base, head)
        assert isinstance(base_tree, str)
        if known := [x for x, tree in zip(spec.landed, below, strict=True) if tree == base_tree]:
            (merged,) = self._merge_trees([(self._commit(base_tree, [base, *known], "stand-in\n", spec, None), head)])
            author = _first_author(self._git(*_authors(base, head, known))) or author
        if spec.method == "rebase":
            return self._rebase(spec, base, head, base_tree)
        if isinstance(merged, tuple):
            return ConflictFound(merged, base, head)
        if merged == base_tree:
            return NothingToMerge(base, head)
        parents = [base, head] if spec.method == "merge" else [base]
        sha = self._commit(merged, parents, _message(spec), spec, None if spec.method == "merge" else author, True)
        gitcmd.pin(self.path, f"refs/gastown/candidates/{sha}", sha)
        return Built(sha, merged, base, head)

    def seal(self, base: str, tip: str, tree: str, message: str, committer: tuple[str, str], date: int) -> str:
        """A merge commit of `tip`, whose tree is `tree`, over `base`: the first parents show only what was gated."""
        spec = CandidateSpec(tip, base, "merge", "", committer, date)
        sha = self._commit(tree, [check_sha(base), check_sha(tip)], message, spec, None, True)
        gitcmd.pin(self.path, f"refs/gastown/candidates/{sha}", sha)
        return sha

    def _merge_trees(self, pairs: Sequence[tuple[str, str]]) -> list[str | tuple[str, ...]]:
        """For each pair the merged tree, or the conflicting paths. Each answer says itself which it is; a pair that
        cannot be merged at all (an unknown commit) has no answer, and that raises."""
        arguments = ["merge-tree", "--write-tree", "--stdin", "-z", "--name-only", "--no-messages"]
        asked = "".join(f"{ours} {theirs}\n" for ours, theirs in pairs).encode()
        result = run_git(arguments, cwd=self.path, input=asked, check=False)
        words = iter(result.stdout.decode("utf-8", "surrogateescape").split("\0"))
        answers: list[str | tuple[str, ...]] = []
        for _ in pairs:
            clean, tree = next(words, ""), next(words, "")
            if clean not in ("0", "1") or not gitcmd.SHA.fullmatch(tree):
                raise gitcmd.failure("merge-tree", result)
            files = []
            while name := next(words, ""):
                files.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            answers.append(tree if clean == "1" else tuple(dict.fromkeys(files)) or ("(no path named)",))
        return answers

    def _rebase(
        self, spec: CandidateSpec, base: str, head: str, base_tree: str
    ) -> Built | ConflictFound | NothingToMerge:
        """Replay each commit onto the base. git 2.39 knows no --merge-base here, so a commit is replayed by merging
        it with a stand-in for what came before: the same tree, with the original parent as its parent."""
        tip, tip_tree = base, base_tree
        arguments = ["rev-list", "--reverse", "--topo-order", "--no-merges", f"{base}..{head}"]
        for commit in self._git(*arguments).split():
            parent = self._git("rev-parse", "--verify", f"{commit}^")
            stand_in = self._commit(tip_tree, [parent], "stand-in\n", spec, None)
            (merged,) = self._merge_trees([(stand_in, commit)])
            if isinstance(merged, tuple):
                return ConflictFound(merged, base, head)
            if merged == tip_tree:
                continue
            text = self._git("show", "-s", "--format=%B", commit)
            author = _first_author(self._git("show", "-s", AUTHOR, commit))
            tip = self._commit(merged, [tip], _with_trailers(text, spec.trailers), spec, author, True)
            tip_tree = merged
        if tip_tree == base_tree:
            return NothingToMerge(base, head)
        gitcmd.pin(self.path, f"refs/gastown/candidates/{tip}", tip)
        return Built(tip, tip_tree, base, head)

    def own(self, base: str, head: str) -> list[str]:
        """The commits of `base..head`, the newest `STACK_COMMITS`."""
        words = ["rev-list", f"--max-count={STACK_COMMITS}", f"{check_sha(base)}..{check_sha(head)}"]
        return self._git(*words).split()

    def _commit(
        self, tree: str, parents: Sequence[str], message: str, spec: CandidateSpec, author: Author, signed: bool = False
    ) -> str:
        name, mail, when = author or (*spec.committer, str(spec.date))
        env = {
            "GIT_AUTHOR_NAME": name or "unknown",
            "GIT_AUTHOR_EMAIL": mail,
            "GIT_AUTHOR_DATE": f"@{when} +0000",
            "GIT_COMMITTER_NAME": spec.committer[0],
            "GIT_COMMITTER_EMAIL": spec.committer[1],
            "GIT_COMMITTER_DATE": f"@{spec.date} +0000",
        }
        sign, key = self.access.signature() if signed else ([], {})
        arguments = ["commit-tree", *sign, tree, *(word for parent in parents for word in ("-p", parent))]
        return run_git(arguments, cwd=self.path, env=env | key, input=message.encode()).text

    # -- landing --

    def land(self, url: str, target: str, expected: str, candidate: str) -> Landed | TargetMoved | PushRefused:
        """Push `candidate`, which must stand on `expected` (see `look`), onto `target` if that is still there.

        The remote's own report that it has moved the branch is an answer. After any other one it is looked at: what it
        holds counts, not what was said. Raises when it cannot be asked, for then nothing is known.
        """
        ref = f"refs/heads/{check_branch(target)}"
        lease = f"--force-with-lease={ref}:{check_sha(expected)}"
        arguments = ["push", "--quiet", "--no-verify", lease, "--end-of-options", url, f"{candidate}:{ref}"]
        result = run_git(arguments, cwd=self.path, timeout=gitcmd.NETWORK_TIMEOUT, check=False, env=self.access.env())
        crashpoint("land.pushed")
        if result.returncode == 0:
            return Landed(candidate)
        actual = self.ls_remote(url, target)
        error = gitcmd.failure("push", result)
        if actual is not None and actual != expected:
            actual = self.fetch_branch(url, target)
            return Landed(actual) if self.is_ancestor(candidate, actual) else TargetMoved(actual)
        if error.kind in ("rejected", "other", "stale_lease", "auth"):
            return PushRefused(gitcmd.refusal(result.stderr) or error.message)
        raise error

    def create_branch(self, url: str, branch: str, sha: str) -> str:
        """Make `branch` at `sha`; when it exists, return where it is."""
        found = self.ls_remote(url, branch)
        if found is None:
            try:
                gitcmd.publish(self.path, url, sha, branch, env=self.access.env())
            except GitFailed:
                found = self.ls_remote(url, branch)
                if found is None:
                    raise
        return found or sha

    def delete_branch(self, url: str, branch: str, expected: str) -> bool:
        """Delete `branch` if it still is at `expected`; True when it is gone."""
        ref = f"refs/heads/{check_branch(branch)}"
        found = self.ls_remote(url, branch)
        if found != expected:
            return found is None
        lease = f"--force-with-lease={ref}:{check_sha(expected)}"
        arguments = ["push", "--quiet", "--no-verify", lease, "--end-of-options", url, f":{ref}"]
        run_git(arguments, cwd=self.path, timeout=gitcmd.NETWORK_TIMEOUT, env=self.access.env())
        return True

    def drop_refs(self, refs: Iterable[str]) -> int:
        """Delete refs of ours (all under refs/gastown/), those that exist; returns how many went."""
        known = set(self._git("for-each-ref", "--format=%(refname)", "refs/gastown/").splitlines())
        doomed = [ref for ref in refs if ref in known]
        if doomed:
            told = "".join(f"delete {ref}\0\0" for ref in doomed)
            self._git("update-ref", "--stdin", "-z", input=told.encode())
        return len(doomed)

    # -- reading, for pages --

    def subject(self, sha: str) -> str:
        """The first line of a commit's message."""
        summary = gitpython.Repo(self.path).commit(check_sha(sha)).summary
        return summary if isinstance(summary, str) else bytes(summary).decode("utf-8", "replace")

    def commits(self, base: str, head: str, limit: int = 200) -> list[Commit]:
        """The commits of `base..head`, newest first, at most `limit`."""
        words = ["log", f"--max-count={limit}", "-z", "--format=%H%n%P%n%an%n%ae%n%at%n%B"]
        out = run_git([*words, f"{check_sha(base)}..{check_sha(head)}", "--"], cwd=self.path).stdout
        found = []
        for row in out.decode("utf-8", "replace").split("\0"):
            if row:
                sha, parents, author, mail, at, message = row.split("\n", 5)
                found.append(Commit(sha, tuple(parents.split()), author, mail, int(at or 0), message.strip()))
        return found

    def known_branch(self, branch: str) -> str | None:
        """Where the branch was when it was last fetched; None when it never was."""
        ref = f"refs/gastown/remote/{check_branch(branch)}^{{commit}}"
        found = run_git(["rev-parse", "--verify", "--quiet", ref], cwd=self.path, check=False)
        return found.text if found.returncode == 0 else None

    def has(self, sha: str) -> bool:
        """True when the commit is here."""
        return gitcmd.has_commit(self.path, sha)

    def changes(self, base: str, sha: str) -> list[diffs.Change]:
        """What a diff of two commits or trees touches, with the lines it counts."""
        return list(_changes(self.path, check_sha(base), check_sha(sha)))

    def touched(self, base: str, sha: str) -> list[str]:
        """Every path that differs between two commits; what was renamed counts with both its names."""
        arguments = ["diff-tree", "-r", "-z", "--no-renames", "--name-only", check_sha(base), check_sha(sha)]
        words = run_git(arguments, cwd=self.path).stdout.decode("utf-8", "surrogateescape")
        return [path for path in words.split("\0") if path]

    def patches(self, base: str, sha: str, changes: Sequence[diffs.Change]) -> list[diffs.Patch]:
        """The hunks of some of a diff's changes, in their order. Files larger than a person reads come without."""
        sizes = self._sizes([i for c in changes for i in (c.old_id, c.new_id) if i.strip("0")])
        small = [c for c in changes if max(sizes.get(c.old_id, 0), sizes.get(c.new_id, 0)) <= diffs.LARGE_BYTES]
        if not small:
            return [diffs.Patch(c.old_id, c.new_id) for c in changes]
        # the same renames must be found among some of the files as were found among all
        likeness = [c.similarity for c in small if c.status == "R"]
        renames = "--no-renames" if not likeness else "-M100%" if min(likeness) == 100 else "-M"
        arguments = ["--literal-pathspecs", "diff-tree", "-r", "-p", renames, "--full-index", "--no-color"]
        arguments += ["--no-ext-diff", "--no-textconv", check_sha(base), check_sha(sha), "--"]
        paths = dict.fromkeys(path for c in small for path in (c.old_path, c.path))
        out = run_git([*arguments, *paths], cwd=self.path).stdout
        found = dict(zip(small, diffs.match_patches(small, diffs.parse_patch(out)), strict=True))
        return [found.get(c) or diffs.Patch(c.old_id, c.new_id) for c in changes]

    def _sizes(self, ids: Sequence[str]) -> dict[str, int]:
        """The sizes of blobs in bytes; what is no blob here (a submodule's commit) is left out."""
        asked = "".join(f"{check_sha(i)}\n" for i in ids).encode()
        out = run_git(["cat-file", "--batch-check=%(objectname) %(objectsize)"], cwd=self.path, input=asked).text
        rows = [line.split(" ") for line in out.splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def merged_tree(self, base: str, head: str) -> str | None:
        """The tree that merging `head` into `base` gives; None when they conflict."""
        (tree,) = self._merge_trees([(check_sha(base), check_sha(head))])
        return tree if isinstance(tree, str) else None


@functools.lru_cache(maxsize=32)
def _changes(path: Path, base: str, sha: str) -> tuple[diffs.Change, ...]:
    """Two commits differ for ever in the same way: the pages of one diff ask once."""
    arguments = ["diff-tree", "-r", "-M", "-z", "--raw", "--numstat", base, sha]
    return tuple(diffs.parse_changes(run_git(arguments, cwd=path).stdout))


def _authors(base: str, head: str, known: Sequence[str] = ()) -> list[str]:
    """The question who has written the commits that `base` (and `known`) has not, the oldest first."""
    words = ["log", "--reverse", "--topo-order", AUTHOR, f"{base}..{head}"]
    return [*words, *(f"^{sha}" for sha in known), "--"]


def _first_author(told: str) -> Author:
    """The author of a change: that of its first own commit that is no merge. None when there is no commit."""
    rows = [line.split("\0") for line in told.split("\n") if line]
    if not rows:
        return None
    name, mail, when, _ = next((row for row in rows if " " not in row[3]), rows[0])
    return name, mail, when


def _message(spec: CandidateSpec) -> str:
    return _with_trailers(f"{spec.title}\n\n{spec.body}", spec.trailers)


def _with_trailers(text: str, trailers: Sequence[tuple[str, str]]) -> str:
    lines = "\n".join(f"{key}: {' '.join(value.split())}" for key, value in trailers)
    return f"{text.strip()}\n\n{lines}\n" if lines else f"{text.strip()}\n"
