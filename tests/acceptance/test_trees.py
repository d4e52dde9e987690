"""The tree that a gate sees is the candidate's, to the byte and the mode, whatever the gate before has done to it."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.runtime import trash, trees
from agents.runtime.gitdirs import View

ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
for who in ("AUTHOR", "COMMITTER"):
    ENV |= {f"GIT_{who}_NAME": "Ann", f"GIT_{who}_EMAIL": "ann@example.org"}


class Ground:
    """A mirror with two commits, and a slot for gates."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mirror, self.work = root / "mirror.git", root / "work"
        self.git("init", "-q", "--bare", "-b", "main", str(self.mirror), cwd=root)
        self.git("init", "-q", "-b", "main", str(self.work), cwd=root)
        self.slot = trees.Slot(root / "pool" / "0")
        self.base = self.commit(
            {
                "README.md": b"# Project\n",
                "config.json": b"good\n",
                "src/a.py": b"a = 1\n",
                "src/deep/er/b.py": b"b = 2\n",
                "src/id.txt": b"$Id$ by ident\n",
                "dos.txt": b"one\ntwo\n",
                "wide.txt": "breit \u00e4\n".encode(),
                "lines\nin its name": b"x\n",
                b"bad-\xff-utf8".decode("utf-8", "surrogateescape"): b"y\n",
                "Case.txt": b"upper\n",
                "case.txt": b"lower\n",
                "big.bin": bytes(range(256)) * 400,
                ".gitignore": b"*.log\nbuild/\n",
                ".gitattributes": b"dos.txt text eol=crlf\nsrc/id.txt ident\nwide.txt working-tree-encoding=UTF-16LE\n"
                b"README.md filter=planted\n",
            },
            modes={"run.sh": b"#!/bin/sh\nexit 0\n"},
            links={"link": "README.md", "dangling": "/etc/nowhere"},
        )
        self.next = self.commit({"src/a.py": b"a = 2\n", "new/c.py": b"c = 3\n"}, gone=["src/deep/er/b.py"])

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd or self.work, env=ENV, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return os.fsdecode(done.stdout).strip()

    def commit(
        self,
        files: dict[str, bytes],
        modes: dict[str, bytes] | None = None,
        links: dict[str, str] | None = None,
        gone: list[str] | None = None,
    ) -> str:
        for name, content in (files | (modes or {})).items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).unlink(missing_ok=True)
            (self.work / name).write_bytes(content.decode().encode("utf-16-le") if name == "wide.txt" else content)
        for name in modes or {}:
            (self.work / name).chmod(0o755)
        for name, to in (links or {}).items():
            (self.work / name).symlink_to(to)
        for name in gone or []:
            (self.work / name).unlink()
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "A change")
        self.git("push", "-q", "--force", str(self.mirror), "HEAD:refs/heads/main")
        return self.git("rev-parse", "HEAD")

    def prepare(self, sha: str) -> Path:
        return trees.prepare(self.slot, View(self.mirror, sha, self.base, "main", "https://u:pw@git.example.org/x.git"))

    def inode(self) -> int:
        """Which tree it is: another one after it was thrown away."""
        return self.slot.tree.stat().st_ino

    def exact(self, sha: str) -> None:
        """The slot's tree against a plain check-out of a clone that nobody has touched."""
        plain = self.root / f"plain-{sha}"
        if not plain.exists():
            command = ["sh", "-c", 'umask 022; git clone -qn "$0" "$1"; cd "$1"; git checkout -q --detach "$2"']
            subprocess.run([*command, str(self.mirror), str(plain), sha], env=ENV, check=True)
        assert picture(self.slot.tree) == picture(plain)


def picture(tree: Path) -> dict[bytes, tuple[int, int, bytes, list[str]]]:
    """Of each entry but the git directory at the top: mode, links, content, extended attributes."""
    seen = {}
    root = os.fsencode(tree)
    for at, directories, files in os.walk(root):
        if at == root:
            directories.remove(b".git")
        for name in [*directories, *files]:
            path = os.path.join(at, name)
            told = os.lstat(path)
            content = b""
            if stat.S_ISLNK(told.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(told.st_mode):
                with open(path, "rb") as handle:
                    content = handle.read()
            links = 0 if stat.S_ISDIR(told.st_mode) else told.st_nlink
            seen[path[len(root) :]] = (told.st_mode, links, content, os.listxattr(path, follow_symlinks=False))
    return seen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def ground(made: Ground, tmp_path: Path) -> Ground:
    """With a slot of its own; the commits are shared."""
    made.slot = trees.Slot(tmp_path / "pool" / "0")
    return made


SAME_SIZE = """
for f in config.json src/a.py README.md big.bin; do
  cp -p "$f" /tmp/.$$; tr a-zA-Z0-9 b-zA-Z0-9a < /tmp/.$$ > "$f"; touch -r /tmp/.$$ "$f"; rm /tmp/.$$
done"""
GATES: dict[str, str] = {
    "nothing": "true",
    "edits of the same size with the old times": SAME_SIZE,
    "written in place by dd": "printf bad | dd of=config.json conv=notrunc status=none; "
    "touch -d @1000000000 config.json",
    "another ident of the same size, times put back": "sed -i 's/\\$Id: ..../$Id: aaaa/' src/id.txt",
    "other line ends": "printf 'one\\ntwo\\n' > dos.txt",
    "modes": "chmod 600 README.md; chmod 4755 src/a.py; chmod 644 run.sh; chmod 000 config.json; chmod 1777 src",
    "directories closed": "chmod 000 src/deep src; chmod 500 .",
    "a directory of mode 300 with a secret": "mkdir src/x; echo y > src/x/y; chmod 300 src/x",
    "deleted": "rm -rf src README.md link",
    "a directory becomes a link to /etc": "rm -rf src; ln -s /etc src",
    "a directory becomes a link inside": "mv src other; ln -s other src",
    "a moved directory": "mv src srcs",
    "a file becomes a fifo": "rm config.json; mkfifo config.json",
    "a file becomes a directory": "rm config.json; mkdir -p config.json/a/b; echo x > config.json/a/b/c",
    "a file becomes a link to its twin": "cp config.json twin; rm config.json; ln -s twin config.json",
    "a socket": "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"",
    "leftovers": "mkdir -p build/x empty/of/all; touch build/x/y src/a.pyc; "
    "echo > debug.log; touch 'a\nb' $(printf 'c\\377d')",
    "an empty directory in a tracked one": "mkdir -p src/deep/void",
    "hard links between tracked files": "ln -f config.json README.md",
    "a hard link to an untracked file": "ln config.json stolen",
    "a nested repository": "git init -q nested; cd nested; touch f; git add f; git commit -qm x",
    "a nested repository in a tracked directory": "git init -q src/deep; rm -rf src/deep/.git/hooks",
    "a git directory deep inside": "mkdir -p src/deep/.git; echo 'gitdir: /etc' > src/.git",
    "planted attributes": "printf '* text eol=crlf ident filter=evil\\n' > .gitattributes; "
    "cp .gitattributes src/; rm src/a.py",
    "untracked attributes": "printf '* text eol=crlf\\n' > src/.gitattributes; rm src/*.py",
    "planted ignores": "printf '*\\n' > .gitignore; echo '*' > .git/info/exclude; touch left.over; rm src/a.py",
    "filters in its git directory": "git config filter.planted.smudge 'sh -c \"echo bad\"'; "
    "git config filter.planted.clean cat; rm README.md",
    "line ends in its git directory": "git config core.autocrlf true; git config core.fsmonitor 'touch pwned';"
    " git checkout -f .; rm src/a.py",
    "skip-worktree": "git update-index --skip-worktree config.json; echo good test settings > config.json",
    "assume-unchanged": "git update-index --assume-unchanged config.json; echo stub > config.json",
    "sparse": "git sparse-checkout set src",
    "its git directory is gone": "rm -rf .git",
    "a link to /etc as git directory": "rm -rf .git; ln -s /etc .git",
    "a fifo as git directory": "rm -rf .git; mkfifo .git",
    "a file as git directory": "rm -rf .git; echo 'gitdir: /etc' > .git",
    "a closed git directory": "mkdir -p .git/x/y; chmod 000 .git/x .git",
    "a replaced index": "rm .git/index; git read-tree HEAD; git commit -q --allow-empty -m x; git checkout -q HEAD~1",
    "stash, commit and branch": "echo x > config.json; git stash -q; git checkout -qb mine; "
    "git rm -q run.sh; git commit -qm x",
    "times of the future": "touch -d 2099-01-01 config.json src . README.md; "
    "echo 'evil' > README.md; touch -d 2099-01-01 README.md",
    "a deep chain": "python3 -c \"import os\nfor _ in range(40): os.mkdir('d' * 200); os.chdir('d' * 200)\"",
    "a very deep chain": "python3 -c \"import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\"",
    "case variants": "mv case.txt CASE.TXT; mkdir SRC; touch SRC/a.py Readme.md",
    "extended attributes": "python3 -c \"import os\nfor p in ('config.json', "
    "'src', '.'): os.setxattr(p, 'user.x', b'1')\"",
    "everything at once": SAME_SIZE
    + "; rm -rf .git src; ln -s / src; ln -s /etc .git; chmod 000 config.json; mkdir -p e/e",
}


def is_rid(trash_can: Path) -> bool:
    return not trash_can.exists() or not any(trash_can.iterdir())


@pytest.mark.parametrize("gate", GATES)
def test_whatever_a_gate_does_the_next_sees_exactly_the_candidate(ground: Ground, gate: str) -> None:
    """First the same commit again, then another one: no byte, no mode and no entry differs."""
    ground.prepare(ground.next)
    done = subprocess.run(["sh", "-c", GATES[gate]], cwd=ground.slot.tree, env=ENV, capture_output=True, check=False)
    assert done.returncode == 0 or gate == "a closed git directory", done.stderr
    ground.prepare(ground.next)
    ground.exact(ground.next)
    ground.prepare(ground.base)
    ground.exact(ground.base)
    trash._remove_all(ground.slot.trash)
    assert is_rid(ground.slot.trash)


WITHIN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "another ident, of the same size": (
        "src/id.txt",
        lambda path: path.write_bytes(path.read_bytes().replace(b"$Id: ", b"$Id: abcd")[: path.stat().st_size]),
    ),
    "a mode that git does not know": ("README.md", lambda path: path.chmod(0o600)),
    "set-uid": ("run.sh", lambda path: path.chmod(0o4755)),
    "content": ("config.json", lambda path: path.write_bytes(b"evil\n")),
    "an extended attribute": ("config.json", lambda path: os.setxattr(path, "user.x", b"1")),
    "a hard link elsewhere": ("config.json", lambda path: os.link(path, path.parents[2] / "stolen")),
}


@pytest.mark.parametrize("change", WITHIN)
def test_a_change_in_the_very_second_of_the_check_out_with_all_times_put_back_is_seen(
    ground: Ground, change: str, tmp_path: Path
) -> None:
    """git's times are whole seconds: to it, nothing has happened to the file."""
    name, act = WITHIN[change]
    for number in range(50):
        ground.slot = trees.Slot(tmp_path / f"pool{number}" / "0")
        path = ground.prepare(ground.next) / name
        before = path.stat()
        act(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        if int(before.st_ctime) == int(after.st_ctime):
            break
    else:
        pytest.fail("the machine is too slow for this")
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    ground.prepare(ground.next)
    ground.exact(ground.next)


KEPT = [
    "nothing",
    "leftovers",
    "edits of the same size with the old times",
    "a nested repository in a tracked directory",
]


@pytest.mark.parametrize("gate", KEPT)
def test_what_gates_usually_leave_does_not_cost_the_tree(ground: Ground, gate: str) -> None:
    ground.prepare(ground.next)
    was = ground.inode()
    subprocess.run(["sh", "-c", GATES[gate]], cwd=ground.slot.tree, env=ENV, check=True, capture_output=True)
    ground.prepare(ground.base)
    assert ground.inode() == was


def test_other_attributes_alone_change_the_files_that_they_speak_of(ground: Ground) -> None:
    """The file itself is the same in both commits; a fresh check-out has other line ends."""
    ground.prepare(ground.base)
    other = ground.commit({".gitattributes": b"config.json text eol=crlf\n", "wide.txt": "breit \u00e4\n".encode()})
    ground.prepare(other)
    assert (ground.slot.tree / "config.json").read_bytes() == b"good\r\n"
    ground.prepare(ground.base)
    ground.exact(ground.base)


def test_a_dead_servers_leftovers_stop_nobody(ground: Ground) -> None:
    """It died in the midst of a switch: a lock, half a tree, no state."""
    ground.prepare(ground.next)
    (ground.slot.git / "index.lock").touch()
    (ground.slot.tree / "README.md").write_text("half")
    ground.prepare(ground.base)
    ground.exact(ground.base)
    (ground.slot.path / "state.json").unlink()
    ground.prepare(ground.next)
    ground.exact(ground.next)


def test_a_clock_that_was_set_back_makes_a_fresh_tree(ground: Ground) -> None:
    ground.prepare(ground.next)
    was = ground.inode()
    trees._note(ground.slot, {**trees._state(ground.slot), "stamp": time.time_ns() + 10**12})
    ground.prepare(ground.next)
    assert ground.inode() != was
    ground.exact(ground.next)


def test_slots_of_before_were_worktrees_and_are_replaced(ground: Ground) -> None:
    ground.slot.path.parent.mkdir(parents=True)
    ground.git("worktree", "add", "-q", "--detach", str(ground.slot.path), ground.base, cwd=ground.mirror)
    ground.prepare(ground.next)
    ground.exact(ground.next)
    assert not (ground.slot.path / ".git").exists()
    assert str(ground.slot.path) not in ground.git("worktree", "list", cwd=ground.mirror)


ANSWERS: list[tuple[str, Callable[[Ground], str]]] = [
    ("git status --porcelain --ignored", lambda _: ""),
    ("git describe --tags", lambda _: "v1.0-1"),
    ("git diff --name-only refs/gastown/base", lambda _: "new/c.py\nsrc/a.py\nsrc/deep/er/b.py"),
    ("git rev-parse HEAD", lambda ground: ground.next),
    ("git rev-parse origin/main", lambda ground: ground.base),
    ("git remote get-url origin", lambda _: "https://git.example.org/x.git"),
    ("git log --format=%s origin/HEAD..HEAD", lambda _: "A change"),
    ("echo x > f; echo y >> README.md; git add -A; git diff --cached --name-only", lambda _: "README.md\nf"),
    (
        "echo y >> README.md; git stash -q; git status --porcelain; git stash pop -q; git diff --name-only",
        lambda _: "README.md",
    ),
    ("git commit -q --allow-empty -m mine; git log -1 --format=%s", lambda _: "mine"),
]


@pytest.mark.parametrize(("typed", "answer"), ANSWERS, ids=[typed for typed, _ in ANSWERS])
def test_git_works_in_it_as_people_know_it_and_harms_only_itself(
    ground: Ground, typed: str, answer: Callable[[Ground], str]
) -> None:
    ground.git("tag", "-f", "-a", "v1.0", "-m", "v1.0", ground.base)
    ground.git("push", "-q", "--force", str(ground.mirror), "v1.0")
    ground.prepare(ground.next)
    before = ground.git("for-each-ref", cwd=ground.mirror), (ground.slot.git / "index").read_bytes()
    env = {key: value for key, value in ENV.items() if not key.startswith("GIT_AUTHOR") and "COMMITTER" not in key}
    run = subprocess.run(
        ["sh", "-c", typed], cwd=ground.slot.tree, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    told = run.stdout.strip()
    wanted = answer(ground)
    assert told.startswith(wanted) if "describe" in typed else told == wanted
    assert before == (ground.git("for-each-ref", cwd=ground.mirror), (ground.slot.git / "index").read_bytes())
