"""Which repository is a rig's: its bare mirror under GASTOWN_HOME; and a first look at a remote."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from django.conf import settings

from agents import access, work
from agents.runtime.failures import KINDS
from agents.runtime.gitcmd import GitFailed, check_branch, redact
from beads.errors import Invalid, Refused
from beads.models import Rig
from refinery.core.telling import led_by
from refinery.git.access import Access
from refinery.git.repo import Repo


def access_of(rig: Rig) -> Access:
    """A rig's own credential and signing key, each read once and then kept here."""
    return Access(functools.cache(lambda: access.access_of(rig)), functools.cache(lambda: access.signing_key(rig)))


def repo_of(rig: Rig) -> Repo:
    """The rig's bare mirror, made when missing."""
    return Repo.open_or_create(work.mirror_of(rig.pk), access_of(rig))


def fetch_target(rig: Rig, repo: Repo, target: str) -> str:
    """The head of a branch that changes are for. Raises GitFailed: `missing_target` when the rig's default branch is
    not on the remote, `unfit` when another one is not."""
    try:
        return repo.fetch_branch(rig.remote_url, target)
    except GitFailed as error:
        if error.kind != "missing_ref":
            raise
        if target == rig.default_branch:
            raise missing_target(rig, repo) from error
        raise GitFailed(f"the remote has no branch {target} (any more)", kind="unfit") from error


def missing_target(rig: Rig, repo: Repo | None = None) -> GitFailed:
    """What is said of a remote that answers, and has not got the rig's default branch."""
    said = f"the remote has no branch {rig.default_branch}"
    with contextlib.suppress(GitFailed):
        if named := (repo or repo_of(rig)).default_branch(rig.remote_url):
            return GitFailed(f"{said} any more: its default branch is {named}", kind="missing_target", branch=named)
    return GitFailed(said, kind="missing_target")


@contextlib.contextmanager
def fetched_first(url: str, branch: str, opened: Mapping[str, str], slug: str) -> Iterator[Callable[[Rig], None]]:
    """The branch of a remote that is to be a rig, fetched: what it yields makes that the rig's mirror. Else it goes.

    Raises Refused, with nothing left behind, for a remote that cannot be served: shallow, or of another object format.
    """
    path = Path(settings.GASTOWN_HOME) / "repos" / f"new-{slug}.git"
    shutil.rmtree(path, ignore_errors=True)
    scratch = Repo.open_or_create(path, Access(lambda: opened))
    try:
        scratch.fetch_branch(url, branch)
        yield lambda rig: _adopt(path, rig)
    except GitFailed as error:
        said = f"remote_url {redact(url)} cannot be used: {error.message}"
        said += led_by(": ", KINDS[error.kind].remedy_for(slug, branch))
        raise Refused(said, code=error.kind, details={"field": "remote_url"}) from error
    finally:
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".lock").unlink(missing_ok=True)  # by which it was made: see `mirrors.ensure_bare`


def _adopt(path: Path, rig: Rig) -> None:
    mirror = work.mirror_of(rig.pk)
    if not mirror.exists():
        path.rename(mirror)


def look(url: str, branch: str | None, opened: Mapping[str, str]) -> str:
    """The branch (without one: the default branch), after having seen it on a remote that is perhaps no rig yet.

    `opened`: what opens it, see `agents.access.variables`. Raises Invalid when it is not there, Refused when the remote
    cannot be read.
    """
    path = Path(settings.GASTOWN_HOME) / "repos" / "look.git"
    scratch = Repo.open_or_create(path, Access(lambda: opened))
    try:
        if branch is None:
            names = ["main", "master"]
            if named := scratch.default_branch(url):
                names = [named]
            for name in names:
                if scratch.ls_remote(url, name):
                    return check_branch(name, "default_branch")
            raise Invalid(
                f"remote {redact(url)} names no default branch: give --default-branch", field="default_branch"
            )
        if scratch.ls_remote(url, branch) is None:
            raise Invalid(f"remote {redact(url)} has no branch {branch}", field="default_branch")
    except GitFailed as error:
        raise Refused(
            f"remote_url {redact(url)} cannot be read: {error.message}",
            code=error.kind,
            details={"field": "remote_url"},
        ) from error
    return branch
