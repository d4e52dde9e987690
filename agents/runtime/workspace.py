"""An agent's workspace: a repository of its own that borrows the mirror's objects and shares nothing else with anybody.

Standard library only: the shim imports it. Everything is made by the server before the run's command starts; from then
on no git is ever run outside the sandbox in a place that the run can write: `agents.runtime.harvest` takes the work in.

    workspaces/<run>/tree/        the checkout, its git directory inside
    workspaces/<run>/origin.git/  the door repository: what the run sees as its remote, read-only inside
    workspaces/<run>/home/        its HOME
    workspaces/<run>/rescue/      made at the end: a git directory of ours for the same tree
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.runtime import gitcmd, trash
from agents.runtime.gitcmd import GitFailed, check_branch, check_sha, run_git

PINS = "refs/gastown/workspaces"
SAVED = "refs/gastown/saved"  # in a workspace: what the run before it had not committed
CHECKOUT_SECONDS = 600.0
PEEK_BYTES = 1 << 20
PEEK_REFS = 2000
_BARE = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tlogAllRefUpdates = false\n[gc]\n\tauto = 0\n"


@dataclass(frozen=True)
class Workspace:
    """Where a run's workspace is. `mirror`: the rig's bare repository, whose objects it borrows."""

    root: Path
    mirror: Path

    @property
    def run(self) -> str:
        """The run's id."""
        return self.root.name

    @property
    def tree(self) -> Path:
        """The checkout."""
        return self.root / "tree"

    @property
    def origin(self) -> Path:
        """The door repository."""
        return self.root / "origin.git"

    @property
    def home(self) -> Path:
        """The run's HOME."""
        return self.root / "home"

    @property
    def rescue(self) -> Path:
        """A git directory of ours for the same tree."""
        return self.root / "rescue"

    @property
    def objects(self) -> Path:
        """The mirror's objects."""
        return self.mirror / "objects"


@dataclass(frozen=True)
class Plan:
    """What a workspace shows. `start`: the commit it starts from; `heads`: branches of the remote, by name → commit;
    `branch`: the run's own (empty: detached); `also`: other commits that its task names; `saved`: one with what the run
    before it had not committed, or empty."""

    start: str
    target: str
    heads: Mapping[str, str]
    branch: str = ""
    agent: str = "Gastown"
    mail: str = "gastown@gastown.invalid"
    also: tuple[str, ...] = ()
    saved: str = ""


def make(space: Workspace, plan: Plan) -> None:
    """Make the workspace; leftovers of the same run are replaced. Raises GitFailed or OSError, leaving nothing.

    What it borrows is pinned first, so that no packing of the mirror can take it away.
    """
    if space.root.exists():
        shutil.rmtree(space.root)
    try:
        named = {f"heads/{name}": sha for name, sha in plan.heads.items()}
        also = [*plan.also, *filter(None, [plan.saved])]
        _pin(space, {"start": plan.start, **named, **{f"also/{sha}": sha for sha in also}})
        space.root.mkdir(parents=True, mode=0o700)
        space.home.mkdir(mode=0o700)
        tags = _tags(space.mirror)
        _make_origin(space, plan, tags)
        _make_tree(space, plan, tags)
    except BaseException:
        release(space)
        discard(space)
        raise


def release(space: Workspace) -> None:
    """Drop the pins: nothing borrows any more. Raises GitFailed."""
    prefix = f"{PINS}/{space.run}/"
    names = run_git(["for-each-ref", "--format=%(refname)", prefix], cwd=space.mirror).text.splitlines()
    if names:
        told = "".join(f"delete {name}\0\0" for name in names)
        run_git(["update-ref", "--stdin", "-z"], cwd=space.mirror, input=told.encode())


def discard(space: Workspace) -> None:
    """Put the workspace into the home's trash, which the runner empties."""
    if space.root.exists():
        trash.discard(space.root, space.root.parent.parent / "trash")


# -- making -------------------------------------------------------------------------------------------------------


def _pin(space: Workspace, pins: Mapping[str, str]) -> None:
    told = "".join(f"update {PINS}/{space.run}/{name}\0{check_sha(sha)}\0\0" for name, sha in pins.items())
    run_git(["update-ref", "--stdin", "-z"], cwd=space.mirror, input=told.encode())


def _tags(mirror: Path) -> list[tuple[str, str, str]]:
    """The remote's tags: name, object, and the commit that an annotated one names (else empty)."""
    words = ["for-each-ref", "--format=%(objectname) %(refname) %(*objectname)", "refs/tags/"]
    rows = [line.split(" ") for line in run_git(words, cwd=mirror).text.splitlines()]
    return [(row[1], row[0], row[2] if len(row) > 2 else "") for row in rows if len(row) >= 2]


def packed_refs(refs: Iterable[tuple[str, str, str]]) -> str:
    """The content of a `packed-refs` file: (name, object, peeled or empty), in any order."""
    lines = ["# pack-refs with: peeled fully-peeled sorted "]
    for name, sha, peeled in sorted(refs):
        lines.append(f"{sha} {name}")
        if peeled:
            lines.append(f"^{peeled}")
    return "\n".join(lines) + "\n"


def _git_directory(path: Path, objects: Path, head: str, config: str, refs: Iterable[tuple[str, str, str]]) -> None:
    """A git directory written by hand: no process, no template, no hook."""
    for part in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
        (path / part).mkdir(parents=True)
    (path / "HEAD").write_text(head + "\n")
    (path / "config").write_text(config)
    (path / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    (path / "packed-refs").write_text(packed_refs(refs))


def _make_origin(space: Workspace, plan: Plan, tags: list[tuple[str, str, str]]) -> None:
    """What the run sees as its remote: the target, the default branch, the tags, where it starts; nothing of others."""
    heads = [(f"refs/heads/{check_branch(name)}", sha, "") for name, sha in plan.heads.items()]
    start = ("refs/gastown/start", plan.start, "")
    _git_directory(space.origin, space.objects, f"ref: refs/heads/{plan.target}", _BARE, [*heads, *tags, start])


def _quoted(value: str) -> str:
    """A value in a git config file."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


# who pushes all the same is told so by git itself: it runs this in place of receive-pack
_NO_PUSH = "echo 'no push is needed: what is committed here is taken in when the run ends' >&2; exit 1; :"


def _make_tree(space: Workspace, plan: Plan, tags: list[tuple[str, str, str]]) -> None:
    git = space.tree / ".git"
    remote = [(f"refs/remotes/origin/{name}", sha, "") for name, sha in plan.heads.items()]
    config = (
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tlogAllRefUpdates = true\n[gc]\n\tauto = 0\n"
        f"[user]\n\tname = {_quoted(plan.agent)}\n\temail = {_quoted(plan.mail)}\n"
        f'[remote "origin"]\n\turl = {_quoted(str(space.origin))}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
        f"\treceivepack = {_quoted(_NO_PUSH)}\n"
    )
    head = check_sha(plan.start)
    if plan.branch:
        own = check_branch(plan.branch)
        config += f'[branch "{own}"]\n\tremote = origin\n\tmerge = refs/heads/{plan.target}\n'
        head = f"ref: refs/heads/{own}"
    saved = [(SAVED, check_sha(plan.saved), "")] if plan.saved else []
    _git_directory(git, space.objects, head, config, [*remote, *tags, *saved])
    if plan.branch:
        ref = git / "refs" / "heads" / plan.branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(f"{plan.start}\n")
    (git / "refs" / "remotes" / "origin").mkdir(parents=True)
    (git / "refs" / "remotes" / "origin" / "HEAD").write_text(f"ref: refs/remotes/origin/{plan.target}\n")
    run_git(["reset", "--quiet", "--hard"], cwd=space.tree, timeout=CHECKOUT_SECONDS)
    (git / "ORIG_HEAD").unlink(missing_ok=True)


# -- looking ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peek:
    """What the files of a workspace's git directory say: `head` and `branches` are object ids, not yet of anything that
    is known to exist. `head` is empty where there is none (an unborn branch)."""

    head: str
    on: str
    branches: Mapping[str, str]


def peek(tree: Path) -> Peek | None:
    """Read HEAD and the local branches as plain files: no git is run on what an agent can write.

    None when it cannot be told: no git directory, or one of another kind. Links, pipes and huge files are not read.
    """
    git = tree / ".git"
    try:
        if not stat.S_ISDIR(git.lstat().st_mode):
            return None
        head = _read(git / "HEAD")
    except OSError:
        return None
    packed: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _read(git / "packed-refs").splitlines():
            sha, _, name = line.partition(" ")
            if name.startswith("refs/heads/") and gitcmd.SHA.fullmatch(sha):
                packed[name] = sha
    for name, sha in _loose(git / "refs" / "heads", "refs/heads"):
        packed[name] = sha
    branches = {name.removeprefix("refs/heads/"): sha for name, sha in packed.items()}
    if gitcmd.SHA.fullmatch(head):
        return Peek(head, "", branches)
    found = re.fullmatch(r"ref: refs/heads/(\S+)", head)
    if found:
        return Peek(branches.get(found[1], ""), found[1], branches)
    return None


def _loose(root: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """The refs that have a file of their own. No link is followed, and neither depth nor number matters."""
    left = PEEK_REFS
    waiting = []
    if root.parent.is_dir() and not root.parent.is_symlink():
        waiting = [(root, prefix)]
    while waiting:
        at, name = waiting.pop()
        with contextlib.suppress(OSError, ValueError):
            if at.is_symlink():
                continue
            with os.scandir(at) as entries:
                for entry in sorted(entries, key=lambda one: one.name, reverse=True):
                    left -= 1
                    if left < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((Path(entry.path), f"{name}/{entry.name}"))
                        continue
                    with contextlib.suppress(OSError, ValueError):
                        if gitcmd.SHA.fullmatch(found := _read(Path(entry.path))):
                            yield f"{name}/{entry.name}", found


def _read(path: Path) -> str:
    """A small regular file's text, stripped. Raises OSError for anything else."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is no file")
        return file.read(PEEK_BYTES).decode("utf-8", "replace").strip()


def released(space: Workspace) -> bool:
    """`release`, tried: a mirror that cannot be asked now is asked by the next clean-up."""
    try:
        release(space)
    except GitFailed:
        return False
    return True
