"""The door by which a run's work comes back: packs into a quarantine, checks, and only then the run's own refs.

Standard library only: the shim and the HTTP door's hook use the same checks. A pack is indexed with `--strict` (git's
fsck of every object) into a directory of its own; then everything that the offered commits need must be there, and what
git would lose on the way is refused. What is refused leaves nothing behind, and says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0:1] = [str(Path(__file__).resolve().parents[2])]

from agents.runtime import gitcmd, mirrors, policy
from agents.runtime.gitcmd import GitFailed, check_sha, run_git

CHECK_SECONDS = 600.0
Packer = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class Limits:
    """`pack`: the most bytes of one pack; `seconds`: how long it may take to come."""

    pack: int = 2 << 30
    seconds: float = gitcmd.PACK_TIMEOUT


@dataclass(frozen=True)
class Offer:
    """A commit that is to be kept under `ref`. `lenient`: saved work, which never lands: no policy holds for it."""

    name: str
    sha: str
    ref: str
    lenient: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of an offer. `own`: how many of its commits nobody had before. `refused`: why it was not let in."""

    sha: str
    own: int = 0
    refused: str = ""


class _Refused(Exception):
    """What was offered is not let in."""


def deliver(
    mirror: Path, run: str, base: str, offers: Sequence[Offer], pack: Packer, limits: Limits | None = None
) -> dict[str, Verdict]:
    """Let in what `pack` gives for the offers; their verdicts, by name. All of them are let in, or none.

    `base`: a commit of the mirror that they stand on. Raises GitFailed or OSError when the mirror cannot take it now.
    """
    with _quarantine(mirror, run) as (quarantine, env):
        try:
            _index(mirror, env, pack([offer.sha for offer in offers]), limits or Limits())
            own = {offer.name: check(mirror, base, offer, env, run) for offer in offers}
        except _Refused as error:
            return {offer.name: Verdict(offer.sha, refused=str(error)) for offer in offers}
        _move(quarantine / "pack", mirror / "objects" / "pack")
    told = "".join(f"update {offer.ref}\0{check_sha(offer.sha)}\0\0" for offer in offers)
    run_git(["update-ref", "--stdin", "-z"], cwd=mirror, input=told.encode())
    return {offer.name: Verdict(offer.sha, own[offer.name]) for offer in offers}


def check(mirror: Path, base: str, offer: Offer, env: Mapping[str, str], run: str) -> int:
    """How many commits of the offer nobody but this run had before. Raises _Refused for what is not complete or would
    be lost.

    `env` shows git the quarantine. What is taken in twice, for a shim died in between, is the run's own all the same.
    """
    sha = check_sha(offer.sha)
    kind = run_git(["cat-file", "-t", sha], cwd=mirror, env=env, check=False).text
    if kind != "commit":  # a tag would be taken for its commit by some of what follows, and not by the rest
        raise _Refused(f"{sha[:12]} is no commit{f', but a {kind}' if kind else ', or did not arrive'}")
    asked = ["rev-list", "--objects", "--quiet", sha, "--not", "--all"]
    complete = run_git(asked, cwd=mirror, env=env, check=False, timeout=CHECK_SECONDS)
    if complete.returncode:
        raise _Refused(f"commit {sha[:12]} did not arrive whole: {gitcmd.failure('rev-list', complete).message}")
    ours = [
        f"--exclude=refs/gastown/{kind}/{run}{rest}" for kind in ("runs", "branches", "salvage") for rest in ("", "/*")
    ]
    own = int(run_git(["rev-list", "--count", sha, "--not", *ours, "--all"], cwd=mirror, env=env).text)
    if not offer.lenient:
        try:
            problems = policy.refusals(mirror, base, sha, env=env)
        except GitFailed as error:
            if error.kind != "unfit":
                raise
            problems = [error.message]
        if problems:
            raise _Refused("; ".join(problems))
        if run_git(["merge-base", base, sha], cwd=mirror, env=env, check=False).returncode:
            raise _Refused(f"commit {sha[:12]} has no history in common with {base[:12]}: the repository was made anew")
    return own


def _index(mirror: Path, env: Mapping[str, str], packer: subprocess.Popen[bytes], limits: Limits) -> None:
    """Index the pack into the quarantine. Raises _Refused for what fsck refuses, or a pack that is none."""
    with packer:
        words = ["index-pack", "--strict", "--stdin", "--fix-thin", f"--max-input-size={limits.pack}"]
        assert packer.stdout is not None
        with gitcmd.started_git(words, cwd=mirror, env=env, stdin=packer.stdout) as indexing:
            packer.stdout.close()
            try:
                done = indexing.result(timeout=limits.seconds, check=False)
            except GitFailed:
                if packer.poll() is None:  # it waits for a run's own doing: a pipe in place of an object, for one
                    raise _Refused(f"its commits could not be read within {limits.seconds:.0f} s") from None
                raise
            finally:
                if packer.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        packer.wait(5)
                if packer.poll() is None:
                    packer.kill()
        packed = packer.wait()
        said = (packer.stderr.read() if packer.stderr else b"").decode("utf-8", "replace").strip().splitlines()
    if packed:
        raise _Refused(f"its commits cannot be read: {said[-1][:300] if said else f'exit {packed}'}")
    if done.returncode:
        error = gitcmd.failure("index-pack", done)
        if error.kind == "disk_full":
            raise error
        raise _Refused(f"its commits were not let in: {error.message}")


@contextlib.contextmanager
def _quarantine(mirror: Path, run: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory for objects that count for nobody else, and the environment in which git sees it, too."""
    path = Path(tempfile.mkdtemp(prefix=f"incoming-{run}-", dir=mirror / "objects"))
    try:
        (path / "pack").mkdir()
        escaped = str(mirror / "objects").replace("\\", "\\\\").replace('"', '\\"')
        yield path, {"GIT_OBJECT_DIRECTORY": str(path), "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{escaped}"'}
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Move packs in; a pack is there for others once its index is, which comes last."""
    target.mkdir(exist_ok=True)
    order = {".pack": 0, ".rev": 1, ".idx": 2}
    for path in sorted(source.iterdir(), key=lambda p: (order.get(p.suffix, 1), p.name)):
        os.replace(path, target / path.name)


def head_of(mirror: Path, run: str) -> str:
    """The head of a run: what arrived at the door; "" when nothing did."""
    return mirrors.read_ref(mirror, f"refs/gastown/runs/{run}") or ""


# -- the hook of the HTTP door ------------------------------------------------------------------------------------


def pre_receive(lines: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Why a push into a door repository is refused, line by line; empty when it is let in.

    Runs as git's `pre-receive`: its environment shows the quarantine, and one ref is allowed.
    """
    allowed, base = env["GASTOWN_DOOR_REF"], env["GASTOWN_DOOR_BASE"]
    shown = {
        name: env[name]
        for name in ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")
        if name in env
    }
    problems = []
    for line in lines:
        _, new, ref = line.split(" ", 2)
        if ref not in (allowed, env["GASTOWN_DOOR_SALVAGE"]):
            problems.append(f"{ref}: only {allowed} may be pushed here")
        elif not new.strip("0"):
            problems.append(f"{ref}: it cannot be deleted")
        else:
            try:
                check(Path(env["GIT_DIR"]).absolute(), base, Offer("", new, ref, lenient=ref != allowed), shown, "")
            except (_Refused, GitFailed) as error:
                problems.append(f"{ref}: {error}")
    return problems


def main() -> int:
    """The hook's entry: refusals on stderr, which git shows to who pushes."""
    problems = pre_receive(sys.stdin.read().splitlines(), os.environ)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
