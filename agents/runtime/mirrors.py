"""Bare repositories of ours: made, kept clean, fetched into, pushed from, asked. Several processes use one at a time.

Stdlib only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from agents.runtime.crashpoints import crashpoint
from agents.runtime.failures import GitFailed
from agents.runtime.gitcmd import (
    NETWORK_TIMEOUT,
    PACK_TIMEOUT,
    PUSH_SILENCE,
    SHA,
    SILENCE,
    Patience,
    check_sha,
    run_git,
)
from agents.runtime.names import check_branch

LOOSE = 6700  # so many objects in files of their own are too many (source: git's own gc.auto)

CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
NOT_OURS = (  # what git would read in a repository besides its config, and a mirror has no use for
    ".git", "config.worktree", "commondir", "shallow", "info/attributes", "info/grafts",
    "objects/info/alternates", "objects/info/http-alternates",
)  # fmt: skip


def ensure_bare(path: Path) -> None:
    """Make the bare repository at `path` when it is missing; several processes at once make one.

    It appears whole, by a rename: nobody sees a half-made one, and a process that is killed here leaves none. An
    existing one gets our config again: see `own_config`.
    """
    if path.exists():
        own_config(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            fresh = path.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            run_git(["init", "--quiet", "--bare", "--template=", str(fresh)], cwd=path.parent)
            crashpoint("repo.made")
            own_config(fresh)
            fresh.rename(path)


def own_config(repo: Path) -> bool:
    """Make the config of a bare repository exactly ours, and take away all else by which git would be told something.

    Whoever could write here (runs of an older version could) must not decide where a fetch or a push goes, nor what is
    run with it. Costs a few looks at the disk when all is well; returns whether something was mended.
    """
    mended = False
    config = repo / "config"
    if config.is_symlink() or not config.is_file() or config.read_bytes() != CONFIG:
        handle, fresh = tempfile.mkstemp(prefix="config.", dir=repo)
        with open(handle, "wb") as file:
            file.write(CONFIG)
            file.flush()
            os.fsync(file.fileno())
        if config.is_dir():
            _remove(config)
        os.replace(fresh, config)
        mended = True
    for name in NOT_OURS:
        place = repo / name
        if place.is_symlink() or place.exists():
            _remove(place)
            mended = True
    if mended:
        shutil.rmtree(repo / "gastown", ignore_errors=True)  # what is kept of attributes was not safe either
    return mended


def _remove(place: Path) -> None:
    """A file, a link (and not what it points to) or a whole directory."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def repo_lock(repo: Path, *, exclusive: bool) -> Iterator[None]:
    """Fetches share the repository; making or removing a worktree excludes them for a moment.

    A fetch walks every worktree's HEAD and fails on one that is half-made.
    """
    common = repo
    if not (repo / "HEAD").exists():
        common = repo.parent
    with (common / "gastown.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def has_commit(repo: Path, sha: str) -> bool:
    """True when the bare `repo` holds the commit `sha` and all that it needs: what a fetch that was cut off has left of
    one does not count. Seen at once where a ref of ours, made when it was complete, bears its name."""
    if any((repo / "refs" / "gastown" / kind / check_sha(sha)).exists() for kind in ("candidates", "fetched")):
        return True
    tips = run_git(["for-each-ref", "--count=1", f"--points-at={sha}"], cwd=repo, check=False)
    if tips.returncode or tips.stdout:
        return not tips.returncode
    asked = ["rev-list", "--objects", "--quiet", sha, "--not", "--all"]
    return run_git(asked, cwd=repo, check=False, timeout=NETWORK_TIMEOUT).returncode == 0


def fetch(
    repo: Path, url: str, ref: str, *, timeout: float = NETWORK_TIMEOUT, env: Mapping[str, str] | None = None
) -> str:
    """Fetch a branch (or a full object id) and return its commit. Objects stay reachable under refs/gastown.

    With it come the tags of what is here, under refs/tags: those that are known are left as they are.
    `env`: what opens the remote (see `agents.access`).
    """
    if SHA.fullmatch(ref):
        local = f"refs/gastown/fetched/{ref}"
        source = ref
    else:
        local = f"refs/gastown/remote/{check_branch(ref)}"
        source = f"refs/heads/{ref}"
    spec = f"+{source}:{local}"
    arguments = ["fetch", "--quiet", "--no-write-fetch-head", "--no-auto-gc"]
    for attempt in range(4):
        try:
            with repo_lock(repo, exclusive=False):
                words = [*arguments, "--end-of-options", url, spec]
                if attempt == 3:
                    # at last without the remote's tags: one that stands in another's way must not keep a branch from us
                    words.insert(1, "--no-tags")
                told = run_git(words, cwd=repo, timeout=Patience(timeout, SILENCE), env=env).stderr
                if "shallow roots are not allowed" in told:  # it says so, and exits with 0
                    raise GitFailed(f"the remote is shallow: it has not got the whole history of {ref}", kind="shallow")
            break
        except GitFailed as error:
            # a race: another fetch was updating the same ref; its objects are here now, so the next try is short
            if error.kind != "stale_lease" or attempt == 3:
                raise
    found: str | None = ref
    if source != ref:
        found = known_branch(repo, ref)
    if found is None:
        raise GitFailed(f"what was fetched of {ref} is gone", kind="missing_ref")
    return found


def pack(repo: Path) -> int:
    """Pack loose objects and refs when there are more than LOOSE objects; drop what was unreachable for two weeks.

    Every landing and every look ahead leaves some, and nobody else tidies up here (`gc.auto` is off). Returns how many
    were loose. Safe while others use the repository; a worktree that is half-made may make it fail, and the next call
    does it then.
    """
    loose = int(run_git(["count-objects"], cwd=repo).text.split()[0])
    if loose <= LOOSE:
        return 0
    run_git(["gc", "--quiet", "--cruft", "--prune=2.weeks.ago"], cwd=repo, timeout=PACK_TIMEOUT)
    return loose


def publish(
    path: Path,
    url: str,
    sha: str,
    branch: str,
    *,
    timeout: float = NETWORK_TIMEOUT,
    env: Mapping[str, str] | None = None,
) -> None:
    """Push `sha` as `branch`: idempotent, never forced. `env`: what opens the remote. Raises GitFailed."""
    spec = f"{check_sha(sha)}:refs/heads/{check_branch(branch)}"
    words = ["push", "--quiet", "--no-verify", "--end-of-options", url, spec]
    run_git(words, cwd=path, timeout=Patience(timeout, PUSH_SILENCE), env=env)


def resolve(repo: Path, name: str) -> str | None:
    """The commit that a ref or an expression names, or None when there is none such."""
    found = run_git(["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], cwd=repo, check=False)
    if found.returncode:
        return None
    return found.text


def known_branch(repo: Path, branch: str) -> str | None:
    """Where a branch of the remote was when it was last fetched; None when it never was."""
    return read_ref(repo, f"refs/gastown/remote/{check_branch(branch)}")


def read_ref(repo: Path, ref: str) -> str | None:
    """As `resolve`, for a ref of ours that names a commit: read from its file where it has one, without a process."""
    with contextlib.suppress(OSError):
        if SHA.fullmatch(found := (repo / ref).read_text().strip()):
            return found
    return resolve(repo, ref)


def pin(path: Path, ref: str, sha: str) -> None:
    """Keep a commit by a ref of ours, so that it is never collected."""
    run_git(["update-ref", ref, check_sha(sha)], cwd=path)
