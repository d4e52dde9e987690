"""What a commit only points to: submodules, checked out where the commit wants them.

The URL of a submodule is written by whoever wrote the commit, an agent for one. It is followed when the target itself,
as it has landed, names the same one, or when it leads to the very host of the rig's remote; never to a path, nor to
any other host. What is fetched is kept in mirrors of their own, one for each rig and URL; credentials go to the rig's
own host alone. Stdlib only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agents.runtime import lfs as large
from agents.runtime import trees
from agents.runtime.gitcmd import (
    NETWORK_TIMEOUT,
    SILENCE,
    GitFailed,
    Patience,
    check_branch,
    check_remote_url,
    check_sha,
    redact,
    run_git,
)
from agents.runtime.gitdirs import View, config_text
from agents.runtime.mirrors import ensure_bare, has_commit, known_branch, pin, repo_lock
from agents.runtime.trash import discard
from beads.errors import Invalid

DEPTH = 5
_MOST_BYTES = 1 << 20  # of a .gitmodules file
_HOSTED = re.compile(
    r"(?P<scheme>https?|ssh|git)://(?:(?P<user>[\w.~%+:-]*)@)?(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/[\w.~/+%@:-]*)"
)
_SCP = re.compile(r"(?P<user>[\w.+-]+)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[\w.~/+%@-]+)")
_PORTS = {"http": "80", "https": "443", "ssh": "22", "git": "9418"}

_AWAY = ("auth", "credential", "host_key", "not_found", "redirect", "silent", "timeout", "unreachable")
Fetch = Callable[[Path, str, Sequence[str]], None]  # mirror, URL, refspecs


@dataclass(frozen=True)
class Source:
    """Where a rig's submodules come from: its mirror, its remote, the folder of their mirrors, and who fetches."""

    mirror: Path
    remote_url: str
    home: Path
    fetch: Fetch


@dataclass(frozen=True)
class Module:
    """A submodule that was checked out at `path` (below the tree); its git directory borrows `mirror`'s objects."""

    path: str
    name: str
    url: str
    sha: str
    mirror: Path


def fetcher(view: View) -> Fetch:
    """Fetches into mirrors, raising GitFailed: with what opens the rig's remote exactly from that remote's host."""

    def _fetch(repo: Path, url: str, refspecs: Sequence[str]) -> None:
        own = _host(view.remote_url)
        opened: Mapping[str, str] = {}
        if own is not None and _host(url) == own:
            opened = view.opened
        words = ["fetch", "--quiet", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules"]
        words += ["--end-of-options", url, *refspecs]
        with repo_lock(repo, exclusive=False):
            run_git(words, cwd=repo, timeout=Patience(NETWORK_TIMEOUT, SILENCE), env=opened)

    return _fetch


def found(mirror: Path, sha: str) -> dict[str, Any]:
    """What a commit points to: its `submodules` (path and URL, credentials removed) and its `lfs` patterns."""
    named = _named(mirror, sha)
    submodules = [
        {"path": path, "url": redact(named[path][1]) if path in named else ""} for path in _gitlinks(mirror, sha)
    ]
    return {"submodules": submodules, "lfs": _lfs_patterns(mirror, sha)}


def checkout(tree: Path, source: Source, sha: str, *, base: str = "", scratch: Path) -> list[Module]:
    """Check the submodules of `sha` out into `tree`, where it is checked out already, and theirs; returns them.

    `base`: a commit that has landed, whose .gitmodules is trusted. `scratch`: a folder for git directories of ours,
    outside the tree. Raises GitFailed, and Invalid for a URL that is not followed.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    made: list[Module] = []
    top = _Commit(source.mirror, sha, source.remote_url)
    _level(_Checkout(source, scratch, made), tree, "", top, _Commit(source.mirror, base), DEPTH)
    shutil.rmtree(scratch, ignore_errors=True)
    return made


def filler(view: View, home: Path, *, submodules: bool, lfs: bool, fetch: Fetch | None = None) -> trees.Fill | None:
    """What `trees.prepare` is to put into a tree of gates; `home`: GASTOWN_HOME/repos/modules. None: nothing."""

    def act(slot: trees.Slot) -> trees.Filled:
        """Put submodules and LFS files into the slot's tree. Raises GitFailed."""
        made: list[Module] = []
        if lfs:
            large.fill(slot.tree, slot.git / "index", slot.git, view)
        if submodules:
            made = _for_gates(slot, Source(view.mirror, view.remote_url, home, fetch or fetcher(view)), view)
        values = config(made) | (large.CONFIG if lfs else {})
        return trees.Filled(values, [module.mirror for module in made])

    if submodules or lfs:
        return act
    return None


def into_workspace(tree: Path, view: View, home: Path, *, submodules: bool, lfs: bool) -> list[Path]:
    """The same for an agent's workspace that was just made, with its git directory inside; returns the repositories
    beside the mirror whose objects it borrows. Raises GitFailed, and Invalid for a URL that is not followed."""
    git = tree / ".git"
    made: list[Module] = []
    if lfs:
        large.fill(tree, git / "index", git, view)
    if submodules:
        source = Source(view.mirror, view.remote_url, home, fetcher(view))
        made = checkout(tree, source, view.sha, base=_landed(view), scratch=tree.parent / "modules")
    with (git / "config").open("a") as file:
        file.write(config_text(config(made) | (large.CONFIG if lfs else {})))
    return [module.mirror for module in made]


def _for_gates(slot: trees.Slot, source: Source, view: View) -> list[Module]:
    """Check them out; where a URL is not known from the target as it was last seen, look at the target again."""
    scratch = slot.path / "modules"
    landed = _landed(view)
    try:
        return checkout(slot.tree, source, view.sha, base=landed, scratch=scratch)
    except Invalid:
        ref = f"+refs/heads/{check_branch(view.target)}:refs/gastown/remote/{view.target}"
        source.fetch(view.mirror, view.remote_url, [ref])
        if _landed(view) == landed:
            raise
    for path in _gitlinks(view.mirror, view.sha):
        discard(slot.tree / path, slot.trash)
        (slot.tree / path).mkdir()
    return checkout(slot.tree, source, view.sha, base=_landed(view), scratch=scratch)


def _landed(view: View) -> str:
    """The target's head as it was last seen on the remote: a candidate's base may itself be one that has not landed."""
    if view.target:
        return known_branch(view.mirror, view.target) or ""
    return ""


def config(modules: Sequence[Module]) -> dict[str, str]:
    """What the config of the git directory at the top says of its submodules, so that `git submodule` knows them."""
    values = {}
    for module in modules:
        if module.name and "\n" not in module.name:
            values[f"submodule.{module.name}.url"] = redact(module.url)
            values[f"submodule.{module.name}.active"] = "true"
    return values


@dataclass(frozen=True)
class _Commit:
    """A commit in a mirror, and where that mirror's remote is. `sha`: empty where there is none."""

    mirror: Path
    sha: str
    url: str = ""


@dataclass(frozen=True)
class _Checkout:
    """What goes for all levels: where modules come from, a folder for git directories of ours, and what is made."""

    source: Source
    scratch: Path
    made: list[Module]


def _level(whole_of: _Checkout, tree: Path, above: str, at: _Commit, landed: _Commit, depth: int) -> None:
    """Check out the submodules of one repository, `at` a commit, and theirs. `landed`: its base, which is trusted."""
    source, made = whole_of.source, whole_of.made
    links = _gitlinks(at.mirror, at.sha)
    if not links:
        return
    if depth == 0:
        raise GitFailed(f"submodules are nested deeper than {DEPTH} levels at {above or '.'}", kind="rejected")
    named = _named(at.mirror, at.sha)
    trusted_links, trusted = {}, {}
    if landed.sha and has_commit(landed.mirror, landed.sha):
        trusted_links = _gitlinks(landed.mirror, landed.sha)
        known = _named(landed.mirror, landed.sha)
        trusted = {path: resolve(at.url, there) for path, (_, there) in known.items()}
    for path, commit in links.items():
        whole = f"{above}/{path}".lstrip("/")
        if path not in named:
            raise GitFailed(f"{whole} is a submodule that .gitmodules does not name", kind="rejected")
        name, there = named[path]
        place = allowed(resolve(at.url, there), source.remote_url, set(trusted.values()), whole)
        kept = _bring(source, place, commit, whole)
        directory = tree / path
        if not directory.is_dir() or directory.is_symlink() or any(directory.iterdir()):
            raise GitFailed(f"there is no empty directory for the submodule {whole}")
        view = View(kept, commit, remote_url=place)
        trees.populate(directory, whole_of.scratch / f"{len(made)}", view)
        if above:
            name = ""  # only those of the top are named in its config
        made.append(Module(whole, name, place, commit, kept))
        base = ""
        if trusted.get(path) == resolve(at.url, there):
            base = trusted_links.get(path, "")
        if base:
            with contextlib.suppress(GitFailed):  # what cannot be had names nothing
                _bring(source, place, base, whole)
        _level(whole_of, directory, whole, _Commit(kept, commit, place), _Commit(kept, base), depth - 1)


def _bring(source: Source, url: str, sha: str, path: str) -> Path:
    """The mirror of a submodule's repository, with the commit in it.

    One for each rig: what one rig's credentials have fetched, another rig does not see.
    """
    digest = sha256(f"{source.mirror.name}\0{redact(url)}".encode("utf-8", "surrogateescape")).hexdigest()
    mirror = source.home / f"{digest}.git"
    ensure_bare(mirror)
    if has_commit(mirror, check_sha(sha)):
        return mirror
    kept = f"refs/gastown/fetched/{sha}"
    try:
        source.fetch(mirror, url, [f"+{sha}:{kept}"])
    except GitFailed as error:
        if error.kind in (*_AWAY, "disk_full"):
            # another host's trouble is not that of the rig's remote
            own = error.kind == "disk_full" or _host(url) in (None, _host(source.remote_url))
            raise GitFailed(f"submodule {path}: {error.message}", kind=error.kind if own else "other") from error
        # a remote that gives out only what its branches and tags name
        source.fetch(mirror, url, ["+refs/heads/*:refs/gastown/heads/*", "+refs/tags/*:refs/tags/*"])
    if not has_commit(mirror, sha):
        raise GitFailed(f"submodule {path}: {redact(url)} has no commit {sha[:12]}", kind="missing_ref")
    pin(mirror, kept, sha)
    return mirror


# -- what is named, and what may be --------------------------------------------------------------------------------


def _gitlinks(mirror: Path, sha: str) -> dict[str, str]:
    """Path → commit of each submodule of a commit."""
    listing = run_git(["ls-tree", "-r", "-z", "--full-tree", check_sha(sha)], cwd=mirror, env=trees.ENVIRONMENT).stdout
    if b"160000 commit " not in listing:
        return {}
    entries = (entry.partition(b"\t") for entry in listing.split(b"\0") if entry.startswith(b"160000 "))
    return {os.fsdecode(path): head.split()[2].decode() for head, _, path in entries}


def _named(mirror: Path, sha: str) -> dict[str, tuple[str, str]]:
    """Path → (name, URL) of each submodule that .gitmodules of a commit names; the last one counts, as for git."""
    blob = f"{check_sha(sha)}:.gitmodules"
    size = run_git(["cat-file", "-s", blob], cwd=mirror, env=trees.ENVIRONMENT, check=False)
    if size.returncode or int(size.text) > _MOST_BYTES:
        return {}
    asked = ["config", f"--blob={blob}", "--no-includes", "-z", "--get-regexp", r"^submodule\..*\.(path|url)$"]
    told = run_git(asked, cwd=mirror, env=trees.ENVIRONMENT, check=False)
    if told.returncode not in (0, 1):
        raise GitFailed(f".gitmodules of {sha[:12]} cannot be read: {told.stderr.strip()[:200]}", kind="rejected")
    values: dict[str, dict[str, str]] = {}
    for entry in told.stdout.split(b"\0"):
        key, _, value = os.fsdecode(entry).partition("\n")
        name, _, what = key.removeprefix("submodule.").rpartition(".")
        values.setdefault(name, {})[what] = value
    return {
        told["path"].rstrip("/"): (name, told["url"]) for name, told in values.items() if told.keys() == {"path", "url"}
    }


def _lfs_patterns(mirror: Path, sha: str) -> list[str]:
    """The patterns of the top .gitattributes that hand files to git-lfs."""
    shown = run_git(["cat-file", "blob", f"{check_sha(sha)}:.gitattributes"], cwd=mirror, check=False)
    lines = []
    if not shown.returncode:
        lines = shown.stdout.decode("utf-8", "replace").splitlines()
    return [words[0] for words in (line.split() for line in lines) if "filter=lfs" in words[1:]]


def resolve(remote: str, url: str) -> str:
    """The URL of a submodule, a relative one against the URL of the repository that names it."""
    if not url.startswith(("./", "../")):
        return url
    at, rest = remote.rstrip("/"), url
    while rest.startswith(("./", "../")):
        if rest.startswith("../"):
            head, slash, _ = at.rpartition("/")
            if not slash and ":" in at:
                head = at.partition(":")[0] + ":"
            if not head or head.endswith(("/", "://", ":/")):
                raise Invalid(f"the submodule's URL {redact(url)!r} leads out of {redact(remote)}", field="submodule")
            at = head
        rest = rest.partition("/")[2]
    if at.endswith(":"):
        return at + rest
    return f"{at}/{rest}"


def _host(url: str) -> tuple[str, str, str] | None:
    """(scheme, host, port) of a URL that has them, written in no way that two readers could read differently."""
    if found := _HOSTED.fullmatch(url):
        return found["scheme"], found["host"].lower(), found["port"] or _PORTS[found["scheme"]]
    if found := _SCP.fullmatch(url):
        return "ssh", found["host"].lower(), "22"
    return None


def allowed(url: str, remote: str, landed: set[str], path: str) -> str:
    """The URL to fetch a submodule from, with the rig's own user for the rig's own host. Raises Invalid."""
    check_remote_url(url, f"the URL of submodule {path}")
    own = _host(remote)
    if own is not None and _host(url) == own:
        ours, theirs = _HOSTED.fullmatch(remote), _HOSTED.fullmatch(url)
        if ours is None or theirs is None:
            return url
        user = ""
        if ours["user"]:
            user = f"{ours['user']}@"
        port = ""
        if theirs["port"]:
            port = f":{theirs['port']}"
        return f"{theirs['scheme']}://{user}{theirs['host']}{port}{theirs['path']}"
    if url in landed:
        return url
    raise Invalid(
        f"submodule {path}: {redact(url)} is neither on the host of the rig's remote nor named by .gitmodules of the"
        " target: land that first, or have a person change it",
        field="submodule",
    )
