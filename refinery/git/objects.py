"""How a mirror is read: GitPython's objects and commands, with processes started as all git here is.

GitPython by itself takes over the server's environment, looks for a repository (`.git`, `commondir`, `GIT_*`), believes
its config, and waits for a process for ever. Here it looks for nothing and reads no config (`Mirror`), every process is
one of `agents.runtime.gitcmd` (`Commands`), and an answer that was cut off is never taken for a whole one (`Objects`).

Callers give object ids and fixed words, no names: `mirror.git.rev_list(...)`, `mirror.odb.find(sha)`. What git refuses
raises GitFailed, sorted as everywhere. What of GitPython is not used, and why: docs/adr/0025-gitpython.md.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import git as gitpython
from git.db import GitCmdObjectDB
from gitdb.base import OInfo, OStream
from gitdb.util import hex_to_bin

from agents.runtime import gitcmd
from agents.runtime.gitcmd import GitFailed, GitResult, Started

IDLE = 10.0  # seconds: a reader that nobody has used for so long ends
KEPT = 4  # so many idle ones of a mirror at most
LARGEST = 128 << 20  # bytes: what is larger is read by nobody here
_OPTIONS = {"stdout_as_string", "strip_newline_in_stdout", "kill_after_timeout"}

Answer = TypeVar("Answer")


class CommandFailed(GitFailed, gitpython.GitCommandError):
    """A git command said no: sorted for us, with the exit code (`status`) for GitPython."""

    def __init__(self, failed: GitFailed, status: int) -> None:
        GitFailed.__init__(self, failed.message, kind=failed.kind)
        self.status = status


class _Voice(io.RawIOBase):
    """What a reader's process says. When it says nothing for `gitcmd.TIMEOUT` seconds, it is ended."""

    def __init__(self, started: Started) -> None:
        assert started.process.stdout is not None
        self._process, self._pipe = started.process, started.process.stdout
        self._waiting = select.poll()
        self._waiting.register(self._pipe, select.POLLIN)
        self.late = False

    def readable(self) -> bool:
        """It is, as a file."""
        return True

    def fileno(self) -> int:
        """Of its pipe."""
        return self._pipe.fileno()

    def speaks(self) -> bool:
        """True when it can be read at once. Of a reader that was asked nothing, this means: it has ended."""
        return self.closed or bool(self._waiting.poll(0))

    def readinto(self, buffer: Any, /) -> int:
        """Some bytes; 0 at its end."""
        if not self._waiting.poll(gitcmd.TIMEOUT * 1000):
            self.late = True
            self._process.kill()
            return 0
        return os.readv(self._pipe.fileno(), [buffer])

    def close(self) -> None:
        """Close its pipe."""
        self._pipe.close()
        super().close()


class Commands(gitpython.Git):
    """Git commands in the directory `place`, with `env` beside the environment that all git has here.

    As `gitpython.Git`, but `istream` is what the process reads, as bytes. Only the two `cat-file` of an object database
    are left running; they end with `close`.
    """

    def __init__(self, place: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(os.fspath(place))
        self.place, self.env = place, env or {}
        self._open = contextlib.ExitStack()
        self._readers: list[tuple[Started, _Voice]] = []
        _all.add(self)

    def execute(  # type: ignore[override]  # fewer ways than GitPython's
        self,
        command: list[str],
        istream: bytes | int | None = None,
        with_extended_output: bool = False,
        with_exceptions: bool = True,
        as_process: bool = False,
        **options: Any,
    ) -> Any:
        """Run `command`, of which the first word is GitPython's name for git. Raises GitFailed."""
        if unknown := set(options) - _OPTIONS:
            raise TypeError(f"git is not started with {', '.join(sorted(unknown))} here")
        if as_process:
            return self.AutoInterrupt(self._reader(command[1:]).process, command)
        assert not isinstance(istream, int)
        timeout = options.get("kill_after_timeout") or gitcmd.TIMEOUT
        result = gitcmd.run_git(command[1:], cwd=self.place, env=self.env, input=istream, timeout=timeout, check=False)
        if with_exceptions and result.returncode:
            raise CommandFailed(gitcmd.failure(command[1], result), result.returncode)
        return _told(result, with_extended_output, options)

    def beside(self, *words: str, memory: int = gitcmd.MEMORY) -> contextlib.AbstractContextManager[Started]:
        """A command at work beside the body, whose answer may be bounded: see `gitcmd.started_git`."""
        return gitcmd.started_git(words, cwd=self.place, env=self.env, memory=memory)

    def _reader(self, words: list[str]) -> Started:
        started = self._open.enter_context(gitcmd.started_git(words, cwd=self.place, env=self.env, stdin=gitcmd.PIPE))
        voice = _Voice(started)
        started.process.stdout = io.BufferedReader(voice)
        self._readers.append((started, voice))
        return started

    def in_step(self) -> bool:
        """True when no reader has ended, or says what it was not asked."""
        return not any(voice.late or voice.speaks() for _, voice in self._readers)

    def ended(self) -> GitFailed:
        """End the readers, of which one is not in step, and tell what was wrong with it."""
        failed = GitFailed("git cat-file has ended")
        for started, voice in self._readers:
            if voice.late:
                failed = GitFailed(f"git cat-file took longer than {gitcmd.TIMEOUT:.0f} s", kind="timeout")
            elif voice.speaks():
                started.process.kill()
                failed = gitcmd.failure(started.name, started.result(check=False))
        self.close()
        return failed

    def close(self) -> None:
        """End the readers; they start again when they are asked."""
        for started, _ in self._readers:  # GitPython asks them to end, and waits: one that is stopped does not hear it
            started.process.kill()
        self._readers.clear()
        self.clear_cache()
        self._open.close()

    def disown(self) -> None:
        """In a forked child: the readers are the parent's. They are neither asked nor ended here."""
        for started, _ in self._readers:
            started.process.returncode = 0


def _told(result: GitResult, extended: bool, options: Mapping[str, Any]) -> Any:
    """What a command said, in the form that was asked for."""
    said = result.stdout
    if options.get("strip_newline_in_stdout", True):
        said = said.removesuffix(b"\n")
    out: str | bytes = said
    if options.get("stdout_as_string", True):
        out = said.decode("utf-8", "surrogateescape")
    if extended:
        return (result.returncode, out, result.stderr)
    return out


class Objects(GitCmdObjectDB):
    """The objects of a mirror, asked of `cat-file` processes that stay. Ids only; raises GitFailed.

    A reader that was killed is started once more; a second time, or when it is late, raises.
    """

    _git: Commands

    def find(self, sha: str) -> OInfo | None:
        """The type and size of an object; None when it is not here."""
        name = gitcmd.check_sha(sha)
        found = self._asked(lambda: self._git.get_object_header(name))
        return found and OInfo(bytes.fromhex(sha), *found[1:])

    def info(self, binsha: bytes) -> OInfo:
        """As `find`. Raises GitFailed when it is not here."""
        found = self.find(binsha.hex())
        if found is None:
            raise GitFailed(f"git cat-file: missing object {binsha.hex()}", kind="bad_object")
        return found

    def stream(self, binsha: bytes) -> OStream:
        """The whole content of an object, read to its end. Raises GitFailed when it is not here, or huge."""
        found = self.info(binsha)
        if found.size > LARGEST:
            raise GitFailed(f"{found.type.decode()} {binsha.hex()[:12]} is too large to be read", kind="unfit")
        content = self._asked(lambda: self._content(binsha.hex()))
        if content is None:
            raise GitFailed(f"git cat-file: missing object {binsha.hex()}", kind="bad_object")
        return OStream(binsha, found.type, found.size, io.BytesIO(content))

    def tree_of(self, sha: str) -> str:
        """The tree of a commit, or of a tag on one. Raises GitFailed."""
        name = f"{gitcmd.check_sha(sha)}^{{tree}}"
        found = self._asked(lambda: self._git.get_object_header(name))
        if found is None:
            raise GitFailed(f"git cat-file: {sha[:12]} does not point to a tree here", kind="bad_object")
        return str(hex_to_bin(found[0]).hex())

    def content(self, sha: str, kind: str) -> bytes:
        """The content of an object of this kind. Raises GitFailed as `stream` does, and for one of another kind."""
        found = self.stream(bytes.fromhex(gitcmd.check_sha(sha)))
        if found.type != kind.encode():
            raise GitFailed(f"{sha[:12]} is a {found.type.decode()}, not a {kind}", kind="bad_object")
        content: bytes = found.read()
        return content

    def _content(self, sha: str) -> bytes:
        _, _, size, stream = self._git.stream_object_data(sha)
        content: bytes = stream.read()
        del stream  # it reads on when it goes: while the pipe is open
        if len(content) != size:
            raise EOFError
        return content

    def _asked(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer to a question to a reader; None: it says that there is no such object."""
        for again in (True, False):
            try:
                return question()
            except (ValueError, EOFError, BrokenPipeError):  # as GitPython tells that there was no good answer
                if self._git.in_step():
                    return None
                failed = self._git.ended()
                if not again or failed.kind == "timeout":
                    raise failed from None
        raise AssertionError("unreachable")


class Mirror(gitpython.Repo):
    """GitPython's view of the bare repository at `path`, which only the server writes."""

    git: Commands
    odb: Objects

    def __init__(self, path: Path) -> None:
        # not GitPython's own: that looks for a repository, by the path's content, its config and our environment
        self.path = Path(os.path.abspath(path))
        self.git_dir = self.working_dir = os.fspath(self.path)
        self._bare = True
        self.git = Commands(self.path, {"GIT_DIR": self.git_dir})
        self.odb = Objects(os.path.join(self.git_dir, "objects"), self.git)
        self._packs = os.path.join(self.git_dir, "objects", "pack")
        self._stamp, self.used = self._seen(), 0.0

    def at(self, sha: str) -> gitpython.Commit:
        """The commit with this id, which may not be here: nothing is asked yet."""
        return gitpython.Commit(self, bytes.fromhex(gitcmd.check_sha(sha)))

    def fresh(self) -> bool:
        """True when it shows what is at its path now: the same repository, with the same packs."""
        return self._stamp == self._seen() and self.git.in_step()

    def _seen(self) -> tuple[int, ...]:
        """What is another when the repository is, or was packed; empty when there is none. The inode of one that was
        deleted is not given away again while a reader has it for its directory."""
        try:
            here, packs = os.stat(self.git_dir), os.stat(self._packs)
        except OSError:
            return ()
        return here.st_dev, here.st_ino, packs.st_ino, packs.st_mtime_ns

    def close(self) -> None:
        """End its processes."""
        self.git.close()


# -- who may read -------------------------------------------------------------------------------------------------
# A reader answers one question at a time, so each belongs to the thread that has it.

_lock = threading.Lock()
_idle: dict[Path, list[Mirror]] = {}
_all: weakref.WeakSet[Commands] = weakref.WeakSet()  # for a child, who must not touch them
_sweeper: threading.Timer | None = None


class _Mine(threading.local):
    """What this thread is reading, by its path."""

    def __init__(self) -> None:
        self.mirrors: dict[Path, Mirror] = {}


_mine = _Mine()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Mirror]:
    """The mirror at `path`, for this thread alone: inside of another `reading` it is the same. Its readers are kept for
    the next one who asks. After an error they are not: what they were asked last may be unanswered."""
    mine = _mine.mirrors
    if path in mine:
        yield mine[path]
        return
    mine[path] = mirror = _kept(path) or Mirror(path)
    try:
        yield mirror
    except BaseException:
        mirror.close()
        raise
    finally:
        mine.pop(path, None)
    _keep(path, mirror)


def _kept(path: Path) -> Mirror | None:
    """One that is idle, and shows what is there now."""
    while True:
        with _lock:
            mirror = None
            if _idle.get(path):
                mirror = _idle[path].pop()
        if mirror is None or mirror.fresh():
            return mirror
        mirror.close()


def _keep(path: Path, mirror: Mirror) -> None:
    global _sweeper
    mirror.used = time.monotonic()
    with _lock:
        kept = _idle.setdefault(path, [])
        kept.append(mirror)
        surplus = None
        if len(kept) > KEPT:
            surplus = kept.pop(0)
        if _sweeper is None:
            _sweeper = _timer()
    if surplus is not None:
        surplus.close()


def _timer() -> threading.Timer:
    timer = threading.Timer(IDLE, _sweep)
    timer.daemon = True
    timer.start()
    return timer


def _sweep() -> None:
    """End what nobody has used for long, and look again while something is left."""
    global _sweeper
    oldest, ended = time.monotonic() - IDLE, []
    with _lock:
        for path, kept in list(_idle.items()):
            ended += [mirror for mirror in kept if mirror.used <= oldest]
            _idle[path] = [mirror for mirror in kept if mirror.used > oldest]
            if not _idle[path]:
                del _idle[path]
        _sweeper = None
        if _idle:
            _sweeper = _timer()
    for mirror in ended:
        mirror.close()


@atexit.register
def close_idle() -> None:
    """End every reader that nobody has."""
    with _lock:
        ended = [mirror for kept in _idle.values() for mirror in kept]
        _idle.clear()
    for mirror in ended:
        mirror.close()


def _forget() -> None:
    """In a forked child: what is open is the parent's, who may hold the lock."""
    global _lock, _sweeper
    _lock, _sweeper = threading.Lock(), None
    for commands in list(_all):
        commands.disown()
    _idle.clear()
    _mine.mirrors.clear()


os.register_at_fork(after_in_child=_forget)
