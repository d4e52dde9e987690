"""A train over a real remote: gates that the test holds, lets pass and lets fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.models import Run
from refinery.git.mirror import repo_of
from refinery.models import GateResult, Landing, ReviewEntry
from refinery.pages import boards
from tests.acceptance.conftest import Stage

# on the target itself it passes
HELD = 'test "$GASTOWN_CANDIDATE" = "$GASTOWN_BASE" && exit 0; while [ ! -e .go ]; do sleep 0.02; done; exit $(cat .go)'


class Train:
    """A stage whose gates wait for a word."""

    def __init__(self, stage: Stage, window: int = 8, **refinery: Any) -> None:
        self.stage = stage
        stage.open(agents=False, **{"gates": [HELD], "train": {"window": window}, **refinery})
        self.begin = stage.sha()
        self.pushes = stage.root / "pushes"
        hook = stage.remote / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f'#!/bin/sh\ngrep refs/heads/main >> "{self.pushes}" || true\n')
        hook.chmod(0o755)

    def submit(self, *names: str) -> list[ReviewEntry]:
        """Branches that each add a file, in this order."""
        for name in names:
            self.stage.commit(name, {f"{name}.txt": f"{name}\n"})
        return [self.stage.submit(name) for name in names]

    def now(self, entry: ReviewEntry) -> ReviewEntry:
        return ReviewEntry.objects.select_related("bead").get(pk=entry.pk)

    def sha(self, entry: ReviewEntry) -> str:
        """Its present candidate's commit, or an empty string."""
        found = self.now(entry)
        made = found.candidates.filter(build_no=found.build_no, result="built").first()
        return made.sha if made else ""

    def gating(self, *entries: ReviewEntry) -> None:
        """Wait until the gates of all these are running on their present candidates."""

        def ready() -> bool:
            live = set(Run.objects.filter(kind="gates", state="running").values_list("start_sha", flat=True))
            return all(self.sha(e) in live for e in entries)

        self.stage.until(ready)

    def say(self, entry: ReviewEntry, code: int) -> None:
        """Let the running gates of an entry's present candidate end with `code`, and wait until that is taken in."""
        runs = self.word(entry, code)
        self.stage.until(lambda: not Run.objects.filter(pk__in=runs).exclude(state="ended").exists())

    def word(self, entry: ReviewEntry, code: int) -> list[str]:
        """Let them end; returns the runs."""
        self.gating(entry)
        sha = self.sha(entry)
        runs = list(Run.objects.filter(start_sha=sha, state="running").values_list("pk", flat=True))
        for path in (Path(self.stage.runner.home) / "gates").glob("*/[0-9]*/tree"):
            # one that is just being made ready has no git directory yet
            if path.is_dir() and self.stage.git("rev-parse", "HEAD", cwd=path, check=False) == sha:
                (path / ".go").write_text(str(code))
        return runs

    def runs_of(self, *entries: ReviewEntry) -> int:
        """How many gate runs of these are live."""
        return Run.objects.filter(kind="gates", bead__in=[e.pk for e in entries]).exclude(state="ended").count()

    def told(self, entry: ReviewEntry) -> str:
        """What is said of it."""
        return boards.Board(self.stage.town).entry(self.now(entry)).reason

    def blamed(self, entry: ReviewEntry) -> str:
        """The tree that it was blamed for."""
        return str(entry.candidates.order_by("-id").values_list("tree_sha", flat=True)[0])

    def merged(self, *entries: ReviewEntry) -> None:
        for entry in entries:
            self.stage.await_phase(entry, "merged")

    def base(self, entry: ReviewEntry) -> str:
        """What its candidate stands on."""
        return self.stage.git("rev-parse", f"{self.sha(entry)}^", cwd=repo_of(self.stage.rig).path)

    def incident(self) -> None:
        """Each landed tree was gated and passed, and each merged change is there."""
        stage = self.stage
        trees = stage.git("log", "--first-parent", "--format=%T", f"{self.begin}..main", cwd=stage.remote).split()
        outside = {t for t in trees if not Landing.objects.filter(candidate__tree_sha=t, state="landed").exists()}
        passed = set(GateResult.objects.filter(outcome="pass").values_list("tree_sha", flat=True))
        assert set(trees) - outside <= passed
        stage.git("fetch", "-q", str(stage.remote), "+refs/heads/*:refs/remotes/origin/*")
        for entry in ReviewEntry.objects.filter(state="merged"):
            missing = stage.git("cherry", "origin/main", entry.head_sha)
            assert not [line for line in missing.splitlines() if line.startswith("+")], entry
