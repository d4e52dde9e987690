"""Building the exact commit that gates test and landing pushes, without a worktree. Fixed plumbing over object ids.

Merges are as `git merge` in a checkout of the target makes them, its `.gitattributes` included. What must not be built
raises GitFailed of kind `unfit` or `unrelated`: trying again, or another day, would give the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby
from pathlib import Path

from agents.runtime import failures, gitcmd, policy
from agents.runtime.gitcmd import GitFailed, check_sha
from refinery.git import attributes, messages
from refinery.git.access import Access
from refinery.git.messages import Author, Written
from refinery.git.objects import Mirror, reading

NOBODY = ("Gastown", "gastown@example.invalid")  # who commits stand-ins: the same ids for ever


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


Answer = Built | ConflictFound | AlreadyMerged | NothingToMerge


class Candidates:
    """The half of a `Repo` that builds. `path`: a bare repository that only the server writes."""

    def __init__(self, path: Path, access: Access = Access()) -> None:  # noqa: B008 - frozen
        self.path, self.access = path, access

    # -- one entry's --

    def build_candidate(self, spec: CandidateSpec) -> Answer:
        """Build the exact commit that gates test and landing pushes: four git processes, five in a new target.

        Raises GitFailed when a commit is unknown, and when this change must not be built.
        """
        with reading(self.path) as mirror:
            return self._build(mirror, spec)

    def _build(self, mirror: Mirror, spec: CandidateSpec) -> Answer:
        base, head = check_sha(spec.base), check_sha(spec.head)
        with mirror.git.beside("log", *_log(base, head)) as asked:
            # merging the base with itself in the same process gives its tree, to compare with
            pairs = [(base, base), (base, head), *((base, x) for x in spec.landed)]
            base_tree, merged, *below = self._merge_trees(pairs, base)
            commits = messages.parse_log(asked.result().stdout)
        if not commits:
            return AlreadyMerged(base, head)
        assert isinstance(base_tree, str)
        if known := [x for x, tree in zip(spec.landed, below, strict=True) if tree == base_tree]:
            (merged,) = self._merge_trees([(self._stand_in(base_tree, [base, *known]), head)], base)
            commits = self._written(base, head, known) or commits
        if spec.method == "rebase":
            return self._rebase(spec, base, head, base_tree)
        if isinstance(merged, tuple):
            return ConflictFound(merged, base, head)
        if merged == base_tree:
            return NothingToMerge(base, head)
        spec = replace(spec, title=messages.title_of(spec.title, commits))
        question = policy.question(base_tree, merged)
        with mirror.git.beside(*question, memory=policy.MEMORY) as asked:
            if spec.method == "merge":
                message = messages.with_trailers(f"{spec.title}\n\n{spec.body}", spec.trailers)
                sha = self._commit(merged, [base, head], message, spec, None)
            else:
                commits = self._with_authors(commits)
                message = messages.squash(spec.title, spec.body, commits, spec.trailers)
                sha = self._commit(merged, [base], message, spec, messages.author_of(commits))
            touched = policy.read(asked.at_most(policy.MOST_BYTES, policy.WHAT))
        built = self._fit(Built(sha, merged, base, head), base_tree, touched)
        attributes.inherit(mirror, base, sha, (t.path for t in touched))
        return built

    def seal(self, base: str, tip: str, tree: str, message: str, committer: tuple[str, str], date: int) -> str:
        """A merge commit of `tip`, whose tree is `tree`, over `base`: the first parents show only what was gated."""
        spec = CandidateSpec(tip, base, "merge", "", committer, date)
        sha = self._commit(tree, [check_sha(base), check_sha(tip)], message, spec, None)
        self._pin(sha)
        return sha

    def title(self, base: str, head: str) -> str:
        """What the commits of `base..head` call themselves: the first real subject. Empty when there is no commit."""
        commits = self._written(check_sha(base), check_sha(head))
        if commits:
            return messages.title_of("", commits)[: messages.MAX_TITLE]
        return ""

    def merged_tree(self, base: str, head: str) -> str | None:
        """The tree that merging `head` into `base` gives; None when they conflict."""
        (tree,) = self._merge_trees([(check_sha(base), check_sha(head))], base)
        if isinstance(tree, str):
            return tree
        return None

    def _fit(self, built: Built, base_tree: str, touched: list[policy.Touched] | None = None) -> Built:
        """Keep the candidate by a ref, unless it brings what git would lose. Raises GitFailed with the reason."""
        if reasons := policy.refusals(self.path, base_tree, built.tree, touched):
            raise GitFailed("; ".join(reasons)[:1500], kind="unfit")
        self._pin(built.sha)
        return built

    def _pin(self, sha: str) -> None:
        """Keep a candidate by a ref of ours. A ref with a name that can have one value only needs no lock: it is
        written as git writes it, without a process."""
        place = self.path / "refs" / "gastown" / "candidates" / sha
        for attempt in range(3):
            fresh = ""
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                handle, fresh = tempfile.mkstemp(dir=self.path, prefix="ref.")
                with open(handle, "w") as file:
                    file.write(f"{sha}\n")
                os.replace(fresh, place)
                return
            except OSError as error:
                if fresh:
                    os.unlink(fresh)
                if attempt < 2 and isinstance(error, FileNotFoundError):  # git has just removed the empty folder
                    continue
                raise gitcmd.disk_failure("the candidate's ref", error) from error

    # -- conflicts foreseen --

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
        if not pairs:
            return found
        trees = {a: str(alone[a]) for a, _ in pairs}
        merged = {a: self._stand_in(tree, [base], "foreseen\n") for a, tree in trees.items()}
        (base_tree,) = self._merge_trees([(base, base)], base)
        with reading(self.path) as mirror:
            other = attributes.differing(mirror, str(base_tree), list(dict.fromkeys(trees.values())))
        # each is merged under the attributes of what it is merged onto: mostly these are the base's
        under = {a: tree if tree in other else base for a, tree in trees.items()}
        answers: dict[tuple[str, str], str | tuple[str, ...]] = {}
        for tree, group in groupby(sorted(pairs, key=lambda pair: under[pair[0]]), key=lambda pair: under[pair[0]]):
            asked = list(group)
            answers |= zip(asked, self._merge_trees([(merged[a], b) for a, b in asked], tree), strict=True)
        return found + [(a, b, files) for a, b in pairs if isinstance(files := answers[a, b], tuple)]

    def _onto(self, base: str, heads: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
        """Each head merged onto `base`; what cannot be merged at all (an unrelated history) is left out."""
        try:
            pairs = [(base, head) for head in heads]
            if heads:
                return dict(zip(heads, self._merge_trees(pairs, base), strict=True))
            return {}
        except GitFailed:
            if len(heads) == 1:
                return {}
        return {head: tree for one in heads for head, tree in self._onto(base, [one]).items()}

    # -- merging --

    def _merge_trees(self, pairs: Sequence[tuple[str, str]], under: str) -> list[str | tuple[str, ...]]:
        """For each pair the merged tree, or the conflicting paths, under the attributes of the tree `under`.

        Each answer says itself which it is; a pair that cannot be merged at all (an unknown commit) has no answer, and
        that raises. The attributes are looked up beside it, and it is done again in the rare case that they changed.
        """
        with reading(self.path) as mirror:
            with attributes.look(mirror, under) as look:
                answers = self._merged(mirror, pairs, look.guess)
                files = look.answer()
            if files == look.guess:
                return answers
            return self._merged(mirror, pairs, files)

    def _merged(
        self, mirror: Mirror, pairs: Sequence[tuple[str, str]], files: attributes.Files
    ) -> list[str | tuple[str, ...]]:
        arguments = ["--write-tree", "--stdin", "-z", "--name-only", "--no-messages"]
        asked = "".join(f"{ours} {theirs}\n" for ours, theirs in pairs).encode()
        merge_tree = attributes.commands(mirror, files).merge_tree
        status, out, said = merge_tree(*arguments, istream=asked, with_extended_output=True, with_exceptions=False)
        words = iter(out.split("\0"))
        answers: list[str | tuple[str, ...]] = []
        for _ in pairs:
            clean, tree = next(words, ""), next(words, "")
            if clean not in ("0", "1") or not gitcmd.SHA.fullmatch(tree):
                raise failures.failure("merge-tree", status, said)
            named = []
            while name := next(words, ""):
                named.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            answers.append(tree if clean == "1" else tuple(dict.fromkeys(named)) or ("(no path named)",))
        return answers

    # -- replaying --

    def _rebase(
        self, spec: CandidateSpec, base: str, head: str, base_tree: str
    ) -> Built | ConflictFound | NothingToMerge:
        """Replay each commit onto the base. git 2.39 knows no --merge-base here, so a commit is replayed by merging
        it with a stand-in for what came before: the same tree, with the original parent as its parent."""
        commits = self._with_authors(self._written(base, head))
        self._nothing_lost(commits)
        tip, tip_tree = base, base_tree
        for commit in commits:
            if len(commit.parents) > 1:
                continue
            stand_in = self._stand_in(tip_tree, [*commit.parents])
            (merged,) = self._merge_trees([(stand_in, commit.sha)], tip_tree)
            if isinstance(merged, tuple):
                return ConflictFound(merged, base, head)
            if merged == tip_tree:
                continue
            text = commit.message
            if not text.strip():
                text = spec.title
            tip = self._commit(merged, [tip], messages.with_trailers(text, spec.trailers), spec, commit.author)
            tip_tree = merged
        if tip_tree == base_tree:
            return NothingToMerge(base, head)
        return self._fit(Built(tip, tip_tree, base, head), base_tree)

    def _nothing_lost(self, commits: Sequence[Written]) -> None:
        """Raise GitFailed when replaying would lose what a merge commit brings itself: resolved conflicts, additions.

        A merge that git makes by itself in the same way brings nothing, and is passed over.
        """
        for commit in commits:
            if not commit.parents:
                why = "has no parent, so it cannot be replayed"
            elif len(commit.parents) == 1 or self._is_plain(commit):
                continue
            else:
                why = "brings what git does not merge by itself (resolved conflicts, or changes of its own)"
            raise GitFailed(
                f"rebasing would lose work: {commit.sha[:12]} ({commit.subject[:80]}) {why}. "
                'Set merge_method to "squash" or "merge", or rebase the branch by hand',
                kind="unfit",
            )

    def _is_plain(self, merge: Written) -> bool:
        """True when merging its parents, one after the other, gives exactly what this merge commit holds."""
        with reading(self.path) as mirror:
            wanted = mirror.odb.tree_of(merge.sha)
        tip, tree = merge.parents[0], ""
        for number, parent in enumerate(merge.parents[1:], 1):
            try:
                (found,) = self._merge_trees([(tip, parent)], tip)
            except GitFailed as error:
                if error.kind != "unrelated":
                    raise
                return False
            if not isinstance(found, str):
                return False
            tree = found
            if number + 1 < len(merge.parents):
                tip = self._stand_in(tree, [tip, parent])
        return tree == wanted

    def _with_authors(self, commits: Sequence[Written]) -> list[Written]:
        """The commits with their authors, also those that git itself cannot read: taken from the raw commit."""
        if not (odd := [c for c in commits if c.author is None]):
            return list(commits)
        with reading(self.path) as mirror:
            raw = {c.sha: mirror.odb.content(c.sha, "commit") for c in odd}
        found = {c.sha: messages.read_author(raw[c.sha], c.committed) for c in odd}
        return [replace(c, author=found.get(c.sha, c.author)) for c in commits]

    def _written(self, base: str, head: str, known: Sequence[str] = ()) -> list[Written]:
        with reading(self.path) as mirror:
            return messages.parse_log(mirror.git.log(*_log(base, head, known), stdout_as_string=False))

    def _stand_in(self, tree: str, parents: Sequence[str], message: str = "stand-in\n") -> str:
        return self._commit(tree, parents, message, CandidateSpec("", "", "", "", NOBODY, 0), None, signed=False)

    def _commit(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        spec: CandidateSpec,
        author: Author | None,
        *,
        signed: bool = True,
    ) -> str:
        """Write a commit. Not by `git commit-tree`: it takes off parts of names ("Jr.") and refuses others (".")."""
        name, mail = (messages.clean_name(word) for word in spec.committer)
        committer = f"{name or NOBODY[0]} <{mail}> {spec.date} +0000"
        raw = messages.commit_object(tree, parents, author.line if author else committer, committer, message)
        if signed and (key := self.access.signing_key()):
            raw = messages.signed(raw, gitcmd.ssh_signature(key, raw))
        with reading(self.path) as mirror:
            sha: str = mirror.git.hash_object("-t", "commit", "-w", "--stdin", istream=raw)
        return sha


def _log(base: str, head: str, known: Sequence[str] = ()) -> list[str]:
    """What `git log` is asked: the commits that `base` (and `known`) has not, the oldest first."""
    words = ["--reverse", "--topo-order", *messages.LOG, f"{base}..{head}"]
    return [*words, *(f"^{sha}" for sha in known), "--"]
