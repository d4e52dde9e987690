"""Git as the refinery needs it: a bare mirror per rig, candidates built without a worktree, landing by lease.

What is here is read through GitPython (`refinery.git.objects`), and all that writes is fixed plumbing over object ids;
what talks to a remote is `agents.runtime.gitcmd`'s. Answers are typed; *unknown* (the remote could not be asked) always
raises.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.runtime import gitcmd, mirrors
from agents.runtime.crashpoints import crashpoint
from agents.runtime.gitcmd import GitFailed, check_branch, check_sha, run_git
from agents.runtime.names import PULL, ref_of
from beads.errors import GastownError
from refinery.core.relations import contained
from refinery.git import diffs
from refinery.git.access import Access
from refinery.git.candidates import (
    AlreadyMerged,
    Answer,
    Built,
    Candidates,
    CandidateSpec,
    ConflictFound,
    NothingToMerge,
)
from refinery.git.objects import reading

__all__ = [
    "AlreadyMerged",
    "Answer",
    "Built",
    "CandidateSpec",
    "Commit",
    "ConflictFound",
    "Landed",
    "NothingToMerge",
    "PushRefused",
    "Repo",
    "TargetMoved",
]
STACK_COMMITS = 20_000


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


class Repo(Candidates):
    """A bare repository that mirrors what the refinery needs of a rig's remote, which `access` opens."""

    @classmethod
    def open_or_create(cls, path: Path, access: Access = Access()) -> Repo:  # noqa: B008 - frozen
        """Open the repository at `path`, making it when missing; its config is exactly ours from then on."""
        mirrors.ensure_bare(path)
        return cls(path, access)

    # -- the remote --

    def ls_remote(self, url: str, branch: str, timeout: float = gitcmd.TIMEOUT) -> str | None:
        """The branch's head on the remote; None only when the remote answered that it has no such branch."""
        return self.heads(url, [branch], timeout)[branch]

    def heads(self, url: str, branches: Sequence[str], timeout: float = gitcmd.TIMEOUT) -> dict[str, str | None]:
        """Where these branches are on the remote, asked at once; None: the remote answered that there is no such."""
        refs = [ref_of(branch) for branch in dict.fromkeys(branches)]
        asked = ["ls-remote", "--end-of-options", url, *refs]
        patience = gitcmd.Patience(timeout, gitcmd.ASK_SILENCE)
        result = run_git(asked, cwd=self.path, timeout=patience, env=self.access.env())
        rows = [line.partition("\t") for line in result.text.splitlines()]
        found = {name: check_sha(sha) for sha, _, name in rows if name in refs}
        return {branch: found.get(ref_of(branch)) for branch in branches}

    def look(self, url: str, branches: Sequence[str], old: str, new: str) -> dict[str, str | None]:
        """`heads`, while git is asked whether `new` contains `old`; raises GastownError when it does not."""
        words = ["merge-base", "--is-ancestor", check_sha(old), check_sha(new)]
        with reading(self.path) as mirror, mirror.git.beside(*words) as asked:
            found = self.heads(url, branches)
            answer = asked.result(check=False)
            if answer.returncode not in (0, 1):
                raise gitcmd.failure("merge-base", answer)
            if answer.returncode == 1:
                raise GastownError(f"candidate {new[:12]} does not stand on {old[:12]}")
        return found

    def default_branch(self, url: str) -> str | None:
        """The branch that the remote's HEAD names, or None when it names none."""
        arguments = ["ls-remote", "--symref", "--end-of-options", url, "HEAD"]
        patience = gitcmd.Patience(gitcmd.TIMEOUT, gitcmd.ASK_SILENCE)
        result = run_git(arguments, cwd=self.path, timeout=patience, env=self.access.env())
        for line in result.text.splitlines():
            if line.startswith("ref: refs/heads/"):
                return line.removeprefix("ref: refs/heads/").partition("\t")[0]
        return None

    def fetch_branch(self, url: str, branch: str) -> str:
        """A branch's commit on the remote, fetched unless it is here: mostly it is one that we have landed."""
        known = (self.path / "refs/gastown/remote" / check_branch(branch)).exists()  # see `known_branch`
        found = None
        if known:
            found = self.ls_remote(url, branch)
        if found is not None and mirrors.has_commit(self.path, found):
            return found
        return mirrors.fetch(self.path, url, branch, env=self.access.env())

    def fetch_sha(self, url: str, sha: str, branch: str) -> None:
        """Have the commit `sha`: from here, by its id, or through the branch it was on. Raises GitFailed."""
        if mirrors.has_commit(self.path, sha):
            return
        try:
            mirrors.fetch(self.path, url, check_sha(sha), env=self.access.env())
            return
        except GitFailed as error:
            if error.kind not in ("missing_ref", "bad_object", "other") or PULL.fullmatch(branch):
                raise
        mirrors.fetch(self.path, url, check_branch(branch), env=self.access.env())
        if not mirrors.has_commit(self.path, sha):
            raise GitFailed(f"the remote no longer has commit {sha[:12]} of {branch}", kind="missing_ref")

    # -- questions --

    def is_ancestor(self, old: str, new: str) -> bool:
        """True when `new` contains `old`. Raises GitFailed when either is unknown."""
        with reading(self.path) as mirror:
            return mirror.is_ancestor(mirror.at(old), mirror.at(new))

    def merge_base(self, a: str, b: str) -> str | None:
        """The best common ancestor, or None for unrelated histories."""
        with reading(self.path) as mirror:
            found = mirror.merge_base(mirror.at(a), mirror.at(b))
        if found:
            return found[0].hexsha
        return None

    # -- foresight --

    def stacked(self, base: str, heads: Sequence[str]) -> list[tuple[str, str]]:
        """(upper, lower) for each of `heads` that contains another one which `base` does not contain. One process.

        Of histories with more than `STACK_COMMITS` commits outside of `base` the oldest part is not looked at.
        """
        if len(heads) < 2:
            return []
        asked = "".join(f"{check_sha(head)}\n" for head in heads) + f"^{check_sha(base)}\n"
        words = ["--parents", "--topo-order", f"--max-count={STACK_COMMITS}", "--stdin"]
        with reading(self.path) as mirror:
            out: str = mirror.git.rev_list(*words, istream=asked.encode())
        rows = [line.split(" ") for line in out.splitlines()]
        return contained({sha: above for sha, *above in rows}, heads)

    def own(self, base: str, head: str) -> list[str]:
        """The commits of `base..head`, the newest `STACK_COMMITS`."""
        words = [f"--max-count={STACK_COMMITS}", f"{check_sha(base)}..{check_sha(head)}", "--"]
        with reading(self.path) as mirror:
            out: str = mirror.git.rev_list(*words)
        return out.split()

    # -- landing --

    def land(self, url: str, target: str, expected: str, candidate: str) -> Landed | TargetMoved | PushRefused:
        """Push `candidate`, which must stand on `expected` (see `look`), onto `target` if that is still there.

        The remote's own report that it has moved the branch is an answer. After any other one it is looked at: what it
        holds counts, not what was said. Raises when it cannot be asked, for then nothing is known.
        """
        ref = f"refs/heads/{check_branch(target)}"
        lease = f"--force-with-lease={ref}:{check_sha(expected)}"
        arguments = ["push", "--quiet", "--no-verify", lease, "--end-of-options", url, f"{candidate}:{ref}"]
        result = run_git(
            arguments,
            cwd=self.path,
            check=False,
            env=self.access.env(),
            timeout=gitcmd.Patience(gitcmd.NETWORK_TIMEOUT, gitcmd.PUSH_SILENCE),
        )
        crashpoint("land.pushed")
        if result.returncode == 0:
            return Landed(candidate)
        actual = self.ls_remote(url, target)
        error = gitcmd.failure("push", result)
        if actual is not None and actual != expected:
            actual = self.fetch_branch(url, target)
            if self.is_ancestor(candidate, actual):
                return Landed(actual)
            return TargetMoved(actual)
        if error.kind in ("rejected", "other", "stale_lease"):
            return PushRefused(gitcmd.refusal(result.stderr) or error.message)
        raise error

    def create_branch(self, url: str, branch: str, sha: str) -> str:
        """Make `branch` at `sha`; when it exists, return where it is."""
        found = self.ls_remote(url, branch)
        if found is None:
            try:
                mirrors.publish(self.path, url, sha, branch, env=self.access.env())
            except GitFailed:
                found = self.ls_remote(url, branch)
                if found is None:
                    raise
        return found or sha

    def move_branch(self, url: str, branch: str, old: str, new: str) -> None:
        """Let `branch` be at `new`, if it is at `old`; nothing when it is there already.

        Raises GitFailed, `stale_lease` when somebody else has moved it.
        """
        found = self.ls_remote(url, branch)
        if found == new:
            return
        if found != old:
            raise GitFailed(f"{branch} is at {(found or 'nothing')[:12]}, not at {old[:12]}", kind="stale_lease")
        ref = f"refs/heads/{check_branch(branch)}"
        lease = f"--force-with-lease={ref}:{check_sha(old)}"
        words = ["push", "--quiet", "--no-verify", lease, "--end-of-options", url, f"{check_sha(new)}:{ref}"]
        patience = gitcmd.Patience(gitcmd.NETWORK_TIMEOUT, gitcmd.PUSH_SILENCE)
        run_git(words, cwd=self.path, timeout=patience, env=self.access.env())

    def delete_branch(self, url: str, branch: str, expected: str) -> bool:
        """Delete `branch` if it still is at `expected`; True when it is gone."""
        ref = f"refs/heads/{check_branch(branch)}"
        found = self.ls_remote(url, branch)
        if found != expected:
            return found is None
        lease = f"--force-with-lease={ref}:{check_sha(expected)}"
        arguments = ["push", "--quiet", "--no-verify", lease, "--end-of-options", url, f":{ref}"]
        patience = gitcmd.Patience(gitcmd.TIMEOUT, gitcmd.PUSH_SILENCE)
        run_git(arguments, cwd=self.path, timeout=patience, env=self.access.env())
        return True

    def drop_refs(self, refs: Iterable[str]) -> int:
        """Delete refs of ours (all under refs/gastown/), those that exist; returns how many went. A name that ends in /
        stands for all below it."""
        wanted = set(refs)
        folders = tuple(ref for ref in wanted if ref.endswith("/"))
        with reading(self.path) as mirror:
            known: str = mirror.git.for_each_ref("--format=%(refname)", "refs/gastown/")
            doomed = sorted(ref for ref in known.split("\n") if ref in wanted or ref.startswith(folders))
            if doomed:
                told = "".join(f"delete {ref}\0\0" for ref in doomed)
                mirror.git.update_ref("--stdin", "-z", istream=told.encode("utf-8", "surrogateescape"))
        return len(doomed)

    # -- reading, for pages --

    def commits(self, base: str, head: str, limit: int = 200) -> list[Commit]:
        """The commits of `base..head`, newest first, at most `limit`."""
        words = [f"--max-count={limit}", "-z", "--format=%H%n%P%n%an%n%ae%n%at%n%B"]
        # not by GitPython's Commit: it knows no encodings, and a date of thousands of digits is too much for it
        with reading(self.path) as mirror:
            asked = [*words, f"{check_sha(base)}..{check_sha(head)}", "--"]
            out: bytes = mirror.git.log(*asked, stdout_as_string=False)
        found = []
        for row in out.decode("utf-8", "replace").split("\0"):
            if row:
                sha, parents, author, mail, at, message = row.split("\n", 5)
                found.append(Commit(sha, tuple(parents.split()), author, mail, int(at or 0), message.strip()))
        return found

    def committers(self, base: str, head: str) -> set[str]:
        """The mail addresses of who committed `base..head`."""
        words = [f"--max-count={STACK_COMMITS}", "--format=%ce", f"{check_sha(base)}..{check_sha(head)}", "--"]
        with reading(self.path) as mirror:
            out: bytes = mirror.git.log(*words, stdout_as_string=False)
        return set(out.decode("utf-8", "replace").splitlines())

    def known_branch(self, branch: str) -> str | None:
        """Where the branch was when it was last fetched; None when it never was."""
        return mirrors.known_branch(self.path, branch)

    def has(self, sha: str) -> bool:
        """True when the commit is here."""
        return mirrors.has_commit(self.path, sha)

    def tree_of(self, sha: str) -> str:
        """The tree of a commit."""
        with reading(self.path) as mirror:
            return mirror.odb.tree_of(sha)

    def type_of(self, sha: str) -> str:
        """commit, tag, tree or blob; empty when the object is not here."""
        with reading(self.path) as mirror:
            found = mirror.odb.find(sha)
        if found is None:
            return ""
        kind: str = found.type.decode()
        return kind

    def changes(self, base: str, sha: str) -> list[diffs.Change]:
        """What a diff of two commits or trees touches, with the lines it counts."""
        return list(_changes(self.path, check_sha(base), check_sha(sha)))

    def touched(self, base: str, sha: str) -> list[str]:
        """Every path that differs between two commits; what was renamed counts with both its names."""
        words = ["-r", "-z", "--no-renames", "--name-only", check_sha(base), check_sha(sha)]
        with reading(self.path) as mirror:
            out: str = mirror.git.diff_tree(*words)
        return [path for path in out.split("\0") if path]

    def patches(self, base: str, sha: str, changes: Sequence[diffs.Change]) -> list[diffs.Patch]:
        """The hunks of some of a diff's changes, in their order. Files larger than a person reads come without."""
        sizes = self._sizes([i for c in changes for i in (c.old_id, c.new_id) if i.strip("0")])
        small = [c for c in changes if max(sizes.get(c.old_id, 0), sizes.get(c.new_id, 0)) <= diffs.LARGE_BYTES]
        if not small:
            return [diffs.Patch(c.old_id, c.new_id) for c in changes]
        # the same renames must be found among some of the files as were found among all
        likeness = [c.similarity for c in small if c.status == "R"]
        renames = "-M"
        if not likeness:
            renames = "--no-renames"
        elif min(likeness) == 100:
            renames = "-M100%"
        words = ["-r", "-p", renames, "--full-index", "--no-color", "--no-ext-diff", "--no-textconv"]
        paths = dict.fromkeys(path for c in small for path in (c.old_path, c.path))
        with reading(self.path) as mirror:
            asked = [*words, check_sha(base), check_sha(sha), "--", *paths]
            out: bytes = mirror.git(literal_pathspecs=True).diff_tree(*asked, stdout_as_string=False)
        found = dict(zip(small, diffs.match_patches(small, diffs.parse_patch(out)), strict=True))
        return [found.get(c) or diffs.Patch(c.old_id, c.new_id) for c in changes]

    def _sizes(self, ids: Sequence[str]) -> dict[str, int]:
        """The sizes of blobs in bytes; what is no blob here (a submodule's commit) is left out."""
        with reading(self.path) as mirror:
            found = {sha: mirror.odb.find(sha) for sha in ids}
        return {sha: info.size for sha, info in found.items() if info}


@functools.lru_cache(maxsize=32)
def _changes(path: Path, base: str, sha: str) -> tuple[diffs.Change, ...]:
    """Two commits differ for ever in the same way: the pages of one diff ask once."""
    with reading(path) as mirror:
        out: bytes = mirror.git.diff_tree("-r", "-M", "-z", "--raw", "--numstat", base, sha, stdout_as_string=False)
    return tuple(diffs.parse_changes(out))
