"""What a run has made, taken in: which heads it left, what it did not commit, and the objects, checked at the door.

Standard library only: the shim imports it. Git runs on the workspace only through `Inside`, the run's own sandbox
without its network, for the run could have written its config and hooks. Outside, heads are read as files, and packs go
through `agents.runtime.door`. Nothing here believes anything: what arrives and passes the checks is what there is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from agents.runtime import door, gitcmd, mirrors
from agents.runtime.gitcmd import GitFailed, run_git
from agents.runtime.insides import Inside
from agents.runtime.workspace import Peek, Workspace, packed_refs, peek

LOOK_SECONDS = 60.0
STATUS_SECONDS = 300.0
PACK_SECONDS = 1200.0  # for all of a run's packs
FILES_SECONDS = 900.0
SAID_BYTES = 1 << 20
MOST_BRANCHES = 20
FILES_BYTES = 2 << 30
RUNS, BRANCHES, SALVAGE = "refs/gastown/runs", "refs/gastown/branches", "refs/gastown/salvage"

_SAVED = " salvage"  # no branch is called so


NEW, NOTHING, UNCOMMITTED, REFUSED, UNSAVED = "new", "nothing", "uncommitted", "refused", "unsaved"


@dataclass
class Harvest:
    """What came of a run. `work`: new, nothing (no commit that was not known before), uncommitted (nothing new, but
    changed files), refused (what it made was not let in; `text` says why). `branches`: other branches with commits of
    their own that have arrived. `salvage`: the ref of a commit with what was not committed."""

    head: str = ""
    work: str = NOTHING
    text: str = ""
    branches: dict[str, str] = field(default_factory=dict)
    salvage: str = ""

    def report(self) -> dict[str, Any]:
        """As it stands in the exit report."""
        return {
            "head_sha": self.head,
            "work": self.work,
            "work_text": self.text,
            "branches": self.branches,
            "salvage_ref": self.salvage,
        }


@dataclass(frozen=True)
class _Source:
    """Whose work is taken in: a workspace, its run, the commit that it began on, and how git is asked inside."""

    space: Workspace
    run: str
    start: str
    inside: Inside
    limits: door.Limits


def take_in(space: Workspace, run: str, start: str, inside: Inside, limits: door.Limits | None = None) -> Harvest:
    """Take in what the run has made on top of `start`. Raises GitFailed or OSError when it cannot be done now (a full
    disk, a mirror that is away): nothing is lost then, for the workspace stays.

    The mirror's ref `refs/gastown/runs/<run>` is the run's head afterwards; without one, nothing was let in.
    """
    source = _Source(space, run, start, inside, limits or door.Limits(seconds=PACK_SECONDS))
    read = peek(space.tree)
    seen = read or Peek("", "", {})
    found = Harvest()
    _make_rescue(space, seen.branches)
    parent, wanted = start, _wanted(seen.head, seen.branches, start)
    if read is None:
        found.work, found.text = REFUSED, "its git directory is gone or cannot be read; its files are saved"
    elif seen.head and (seen.head == start or _holds(seen.head, inside)):
        parent = seen.head
    elif seen.head:
        found.work, found.text = REFUSED, f"its head {seen.head[:12]} is no commit that can be read"
        wanted.pop("", None)  # to ask for it again might take as long again, and longer
    saved, unsaved = _saved(space, run, parent, start, inside, whole=read is None or parent != seen.head)
    if seen.head == start:
        found.head, found.work = start, NOTHING
        mirrors.pin(space.mirror, f"{RUNS}/{run}", start)
        if not saved and not unsaved and _beyond_the_remote(space.mirror, start):
            found.work = NEW
    delivered = _deliver(source, wanted, saved)
    _note_delivered(found, delivered, seen.head)
    kept = _SAVED in delivered and not delivered[_SAVED].refused
    if found.work == REFUSED and not unsaved and (parent != start or (saved and not kept)):
        # its commits are not here, so all that it left is saved, as it differs from where it began
        saved, unsaved = _saved(space, run, start, start, inside, whole=True)
        delivered = _deliver(source, {}, saved)
        kept = bool(saved) and not delivered[_SAVED].refused
    if kept:
        found.salvage = f"{SALVAGE}/{run}"
    elif saved or unsaved:
        found.salvage = _save_files(space, run, inside)
    if found.work == NOTHING and found.salvage:
        found.work, found.text = UNCOMMITTED, f"changed files were not committed; they are saved in {found.salvage}"
    return found


def _note_delivered(found: Harvest, delivered: Mapping[str, door.Verdict], head: str) -> None:
    """What came through the door: the head (named ""), and other branches that bring something of their own."""
    for name, verdict in delivered.items():
        if name == "" and verdict.refused:
            found.work, found.text = REFUSED, verdict.refused
        elif name == "":
            found.head, found.work = head, NOTHING
            if verdict.own:
                found.work = NEW
        elif name != _SAVED and verdict.own and not verdict.refused:
            found.branches[name] = verdict.sha


def _beyond_the_remote(mirror: Path, sha: str) -> bool:
    """True when a commit brings something that no branch of the remote is known to have: an earlier attempt's work."""
    words = ["rev-list", "--max-count=1", sha, "--not", "--glob=refs/gastown/remote/*", "--tags"]
    return bool(run_git(words, cwd=mirror).text)


def _wanted(head: str, branches: Mapping[str, str], start: str) -> dict[str, str]:
    """What is to be delivered, by name: "" is HEAD; other branches where they are elsewhere."""
    wanted = {}
    if head and head != start:
        wanted[""] = head
    others = {name: sha for name, sha in sorted(branches.items()) if sha not in (head, start)}
    for name in list(others)[:MOST_BRANCHES]:
        # git has no branch below another one: such a pair was written by hand, and no repository takes both
        above = {name.rsplit("/", depth)[0] for depth in range(1, name.count("/") + 1)}
        if above.isdisjoint(wanted):
            with contextlib.suppress(Exception):
                wanted[gitcmd.check_branch(name)] = others[name]
    return wanted


def _make_rescue(space: Workspace, branches: Mapping[str, str]) -> None:
    """A git directory of ours beside the tree: our config; objects of the mirror and of the workspace."""
    path = space.rescue
    if path.exists():
        return
    for part in ("objects/info", "objects/pack", "refs/heads"):
        (path / part).mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/rescue\n")
    (path / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\thooksPath = /dev/null\n\tfsmonitor = false\n"
        "\tautocrlf = false\n\tattributesFile = /dev/null\n[gc]\n\tauto = 0\n[pack]\n\tthreads = 1\n"
    )
    lines = [str(space.objects)]
    if (space.tree / ".git" / "objects").is_dir():
        lines.append(str(space.tree / ".git" / "objects"))
    (path / "objects" / "info" / "alternates").write_text("\n".join(lines) + "\n")
    (path / "packed-refs").write_text(packed_refs([]))


def _run(inside: Inside, argv: Sequence[str], env: Mapping[str, str], seconds: float) -> bytes:
    """Run a command inside; its output. Raises GitFailed when it fails or takes too long."""
    process = inside(argv, env)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    # what it says is the run's: no more of it is kept than we have a use for
    out, err = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_keep_first, args=pair, daemon=True)
        for pair in ((process.stdout, out), (process.stderr, err))
    ]
    for reader in readers:
        reader.start()
    end = time.monotonic() + seconds
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        for reader in readers:  # `Popen.wait` with a limit looks only now and then; the end of its output comes at once
            reader.join(max(end - time.monotonic(), 0))
        process.wait(max(end - time.monotonic(), 0.001))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a box dies with its bubblewrap; a plain process has children
        process.wait()
        raise GitFailed(f"{argv[0]} in the workspace took longer than {seconds:.0f} s", kind="timeout") from None
    finally:
        for reader in readers:
            reader.join(5.0)
    if process.returncode:
        said = err.decode("utf-8", "replace").strip().splitlines()
        raise GitFailed(f"git in the workspace: {said[-1][:300] if said else f'exit {process.returncode}'}")
    return bytes(out)


def _keep_first(stream: IO[bytes], kept: bytearray) -> None:
    """Read to the end, and keep the beginning."""
    with stream:
        while data := stream.read1(65536):  # type: ignore[attr-defined]
            kept += data[: SAID_BYTES - len(kept)]


def _holds(sha: str, inside: Inside) -> bool:
    """True when the workspace holds this commit; a tag that names one is none."""
    try:
        kind = _run(inside, ["git", "cat-file", "-t", gitcmd.check_sha(sha)], {}, LOOK_SECONDS)
    except GitFailed:
        return False
    return kind.strip() == b"commit"


# A nested repository would be saved as one line that names a commit nobody has: its git directory is renamed, so that
# its files, and its objects, are files like others. `git submodule`s that the commit knows are left alone.
_SALVAGE = """
set -u
cd "$GASTOWN_TREE" || exit 3
known=$(git ls-tree -r "$GASTOWN_PARENT" | sed -n 's/^160000 commit [0-9a-f]*\\t//p')
find . -mindepth 2 -name .git -prune 2>/dev/null | while IFS= read -r nested; do
  inner=${nested#./}; inner=${inner%/.git}
  printf '%s\\n' "$known" | grep -qxF -- "$inner" && continue
  mv -- "$nested" "${nested%/.git}/.git-nested" 2>/dev/null && : > "$GIT_DIR/nested"
done
chmod -R u+rwX . 2>/dev/null
if [ -f .git/index ] && [ ! -e "$GIT_DIR/nested" ] && [ -z "$GASTOWN_WHOLE" ]; then
  cp .git/index "$GIT_DIR/index" && git update-index -q --really-refresh >/dev/null 2>&1
else
  rm -f "$GIT_DIR/index"; git read-tree "$GASTOWN_PARENT" || exit 4
fi
git add --all --ignore-errors . >/dev/null 2>&1
tree=$(git write-tree) || { rm -f "$GIT_DIR/index"; git read-tree "$GASTOWN_PARENT" || exit 4
  git add --all --ignore-errors . >/dev/null 2>&1; tree=$(git write-tree) || exit 5; }
[ "$tree" = "$(git rev-parse "$GASTOWN_PARENT^{tree}")" ] && exit 0
git commit-tree "$tree" -p "$GASTOWN_PARENT" -m "Salvage of $GASTOWN_RUN"
"""


def _saved(space: Workspace, run: str, parent: str, start: str, inside: Inside, *, whole: bool) -> tuple[str, bool]:
    """`_salvage`, and where the workspace is in no state for that: on top of `start`; True: git cannot save it at all,
    for its objects are damaged, or it does not come to an end."""
    for upon, all_of_it in ((parent, whole), (start, True)):
        try:
            return _salvage(space, run, upon, inside, whole=all_of_it), False
        except GitFailed as error:
            if error.kind == "timeout":
                break
    return "", True


def _salvage(space: Workspace, run: str, parent: str, inside: Inside, *, whole: bool) -> str:
    """Make a commit of what was not committed (untracked files too, ignored ones not); "" when there is nothing.

    The index of the workspace makes it quick; it is the run's own, so flags in it can at most hide files from this.
    Touches neither the workspace's index nor its HEAD.
    """
    env = {
        "GIT_DIR": str(space.rescue),
        "GIT_WORK_TREE": str(space.tree),
        "GASTOWN_TREE": str(space.tree),
        "GASTOWN_PARENT": parent,
        "GASTOWN_RUN": run,
        "GASTOWN_WHOLE": "",
    }
    if whole:
        env["GASTOWN_WHOLE"] = "1"
    out = _run(inside, ["sh", "-c", _SALVAGE], env, STATUS_SECONDS).decode("ascii", "replace").strip()
    if not re.fullmatch(gitcmd.SHA, out):
        return ""
    return out


def _deliver(source: _Source, wanted: Mapping[str, str], saved: str) -> dict[str, door.Verdict]:
    """Bring each wanted commit, and the salvage, through the door; by its name, what became of it.

    One pack for all of them. Where it is not let in, each goes by itself: an odd branch keeps no other one out.
    """
    space, run, start, limits = source.space, source.run, source.start, source.limits
    offers = []
    for name, sha in wanted.items():
        ref = f"{RUNS}/{run}"
        if name:
            ref = f"{BRANCHES}/{run}/{name}"
        offers.append(door.Offer(name, sha, ref))
    if saved:
        offers.append(door.Offer(_SAVED, saved, f"{SALVAGE}/{run}", lenient=True))
    if not offers:
        return {}
    end = time.monotonic() + limits.seconds

    def pack(shas: Sequence[str]) -> subprocess.Popen[bytes]:
        """`pack-objects` inside, of these and not of what the mirror has."""
        process = source.inside(
            ["git", "pack-objects", "-q", "--revs", "--thin", "--stdout", "--delta-base-offset"],
            {"GIT_DIR": str(space.rescue)},
        )
        assert process.stdin is not None
        asked = "".join(f"{sha}\n" for sha in shas) + f"^{start}\n"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(asked.encode())
            process.stdin.close()
        return process

    together = door.deliver(space.mirror, run, start, offers, pack, limits)
    if len(offers) == 1 or not any(verdict.refused for verdict in together.values()):
        return together
    for offer in offers:
        left = end - time.monotonic()
        if left > 0:
            alone = replace(limits, seconds=left)
            together |= door.deliver(space.mirror, run, start, [offer], pack, alone)
    return together


def _save_files(space: Workspace, run: str, inside: Inside) -> str:
    """What no git takes is kept as it lies: an archive under GASTOWN_HOME/salvage; returns its name."""
    folder = space.root.parent.parent / "salvage"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{run}.tar.gz"
    process = inside(["sh", "-c", 'cd "$1" && exec tar -cSzf - . 2>/dev/null', "sh", str(space.tree)], {})
    left = FILES_BYTES
    late = threading.Timer(FILES_SECONDS, process.kill)
    late.daemon = True
    late.start()
    with process, path.open("wb") as archive:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        while left > 0 and (data := process.stdout.read(1 << 20)):
            archive.write(data[:left])
            left -= len(data)
        process.kill()
    late.cancel()
    return f"file:salvage/{path.name}"
