"""A candidate from its branch to the remote's target, gates left out, against the ways in which others merge, on the
same repositories in one run: a kept worktree (checkout, merge --squash, commit, push), and a fresh worktree each time.

And what it costs to bring a kept worktree, as gates use it, to the next candidate.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

from agents.runtime import gitdirs, trees
from agents.runtime.gitcmd import run_git
from bench.candidates import generate, timed
from refinery.git import repo as git

TARGETS = {5_000: 60, 50_000: 120}  # milliseconds of our own per landing
KEPT, FRESH = 5, 50  # at least so many times faster on the large repository
ROUNDS, SWITCHES, FRESH_ROUNDS = 10, 6, 3
WHO = ["-c", "user.name=A", "-c", "user.email=a@x.org"]


class Contest:
    """One repository, three ways to merge into it."""

    def __init__(self, root: Path, files: int) -> None:
        self.remote = root / "remote.git"
        _, heads = generate(self.remote, files)
        self.heads = {f"b{n}": head for n, head in enumerate(heads)}  # known since they were submitted
        self.url = str(self.remote)
        self.repo = git.Repo.open_or_create(root / "ours.git")
        self.kept, self.fresh = root / "kept", root / "fresh"
        for place in (self.kept, self.fresh):
            run_git(["clone", "--quiet", self.url, str(place)], cwd=root, timeout=600)
        self.slot = trees.Slot(root / "gates" / "0")
        self.latest = ""
        self.repo.fetch_branch(self.url, "main")
        for branch, head in self.heads.items():  # as the clones have them
            self.repo.fetch_sha(self.url, head, branch)

    def ours(self, branch: str) -> None:
        """As the refinery does it: see where the target is, build, look, push."""
        head = self.heads[branch]
        base = self.repo.fetch_branch(self.url, "main")
        built = self.repo.build_candidate(git.CandidateSpec(head, base, "squash", branch, ("A", "a@x.org"), 1))
        assert isinstance(built, git.Built)
        self.repo.look(self.url, ["main", branch], base, built.sha)
        assert isinstance(self.repo.land(self.url, "main", base, built.sha), git.Landed)
        self.latest = built.sha

    def worktree(self, branch: str) -> None:
        """In a worktree that is kept."""
        run_git(["fetch", "--quiet", "origin"], cwd=self.kept)
        run_git(["checkout", "--quiet", "--detach", "origin/main"], cwd=self.kept)
        self._squash(self.kept, branch)

    def anew(self, branch: str) -> None:
        """In a worktree made for it."""
        place = self.fresh.parent / f"wt-{branch}"
        run_git(["fetch", "--quiet", "origin"], cwd=self.fresh)
        run_git(["worktree", "add", "--quiet", "--detach", str(place), "origin/main"], cwd=self.fresh, timeout=600)
        self._squash(place, branch)
        run_git(["worktree", "remove", "--force", str(place)], cwd=self.fresh, timeout=600)

    def _squash(self, place: Path, branch: str) -> None:
        run_git([*WHO, "merge", "--quiet", "--squash", f"origin/{branch}"], cwd=place, timeout=600)
        run_git([*WHO, "commit", "--quiet", "-m", branch], cwd=place, timeout=600)
        run_git(["push", "--quiet", "origin", "HEAD:refs/heads/main"], cwd=place, timeout=600)

    def first(self) -> None:
        """A tree for the gates of the latest candidate."""
        trees.prepare(self.slot, gitdirs.View(self.repo.path, self.latest, target="main"))

    def switch(self) -> None:
        """The gates' tree to the latest candidate."""
        self.first()


def main() -> None:
    """Print a table."""
    names = ("ours", "target", "kept", "ratio", "fresh", "ratio", "switch", "first")
    print(f"{'files':>7} " + " ".join(f"{name:>8}" for name in names))
    for files, target in TARGETS.items():
        with tempfile.TemporaryDirectory() as scratch:
            contest = Contest(Path(scratch), files)
            # one way after the other: what a checkout of 50,000 files leaves to be written would slow down the next
            branches = iter(contest.heads)
            ours = [timed(partial(contest.ours, b)) for b in islice(branches, ROUNDS)]
            made = timed(contest.first)
            switch = []
            for branch in islice(branches, SWITCHES):
                contest.ours(branch)
                switch.append(timed(contest.switch))
            kept = [timed(partial(contest.worktree, b)) for b in islice(branches, ROUNDS)]
            fresh = [timed(partial(contest.anew, b)) for b in islice(branches, FRESH_ROUNDS)]
            mine, theirs, anew = (statistics.median(x) for x in (ours, kept, fresh))
            row = (mine, target, theirs, theirs / mine, anew, anew / mine, statistics.median(switch), made)
            print(f"{files:>7} " + " ".join(f"{x:>8.1f}" for x in row), flush=True)
    print(f"(median ms per landing; targets: ours as told, ratios ≥ {KEPT} and ≥ {FRESH} on the large repository)")
