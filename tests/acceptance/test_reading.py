"""How mirrors are read: long-lived readers that die, are late, go stale, are shared by nobody, and believe nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents.runtime import gitcmd, mirrors
from agents.runtime.gitcmd import GitFailed, run_git
from beads.errors import Invalid
from refinery.git import objects
from refinery.git import repo as git
from refinery.git.objects import reading
from tests.acceptance.test_git import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Fresh ground, with the target in the mirror, and no reader of an earlier test."""
    objects.close_idle()
    made = Ground(tmp_path)
    made.repo.fetch_branch(made.url, "main")
    return made


def readers(path: Path) -> list[int]:
    """The processes that read this mirror, by what the kernel says."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words, cwd = (place / "cmdline").read_bytes().split(b"\0"), os.readlink(place / "cwd")
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"cat-file" in words and cwd.removesuffix(" (deleted)") == str(path) and state != "Z":
            found.append(int(place.name))
    return sorted(found)


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds: what a signal does takes a moment."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


# -- readers stay, and end -----------------------------------------------------------------------------------------


def test_one_reader_answers_many_questions_and_ends_when_nobody_asks(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "IDLE", 0.5)
    with reading(ground.repo.path) as mirror:
        assert mirror.odb.find(ground.base)
        first = readers(ground.repo.path)
        assert mirror.odb.find("d" * 40) is None  # this is an answer, too
        assert mirror.odb.tree_of(ground.base) == ground.ours("rev-parse", f"{ground.base}^{{tree}}")
        assert len(first) == 1 and readers(ground.repo.path) == first
    wait_for(lambda: not readers(ground.repo.path))
    assert ground.repo.type_of(ground.base) == "commit"
    os.kill(readers(ground.repo.path)[0], signal.SIGSTOP)
    wait_for(lambda: not readers(ground.repo.path))


def test_no_more_than_a_few_idle_readers_are_kept(ground: Ground) -> None:
    many = threading.Barrier(objects.KEPT + 3)

    def ask(_: int) -> None:
        with reading(ground.repo.path) as mirror:
            assert mirror.odb.find(ground.base)
            many.wait(20)

    with ThreadPoolExecutor(objects.KEPT + 3) as pool:
        list(pool.map(ask, range(objects.KEPT + 3)))
    assert len(readers(ground.repo.path)) == objects.KEPT


def test_a_reader_ends_with_its_server_however_that_ends(ground: Ground) -> None:
    program = (
        "import sys; from pathlib import Path; from refinery.git.objects import reading\n"
        "with reading(Path(sys.argv[1])) as mirror: print(mirror.odb.find(sys.argv[2]).size, flush=True)\n"
        "sys.stdin.read()"
    )
    for kill in (True, False):
        words = [sys.executable, "-c", program, str(ground.repo.path), ground.base]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout and server.stdin and int(server.stdout.readline()) > 100
            assert readers(ground.repo.path)
            if kill:
                server.kill()
            server.stdin.close()
        wait_for(lambda: not readers(ground.repo.path))


def test_a_forked_child_reads_by_itself_and_leaves_its_parents_readers_alone(ground: Ground) -> None:
    assert ground.repo.type_of(ground.base) == "commit"
    (mine,) = readers(ground.repo.path)
    child = os.fork()
    if not child:
        try:
            fine = ground.repo.type_of(ground.base) == "commit" and len(readers(ground.repo.path)) == 2
            objects.close_idle()
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ground.repo.type_of(ground.base) == "commit"
    assert readers(ground.repo.path) == [mine]


# -- readers die, or are late --------------------------------------------------------------------------------------


def test_a_killed_reader_is_replaced(ground: Ground) -> None:
    with reading(ground.repo.path) as mirror:
        for _ in range(3):
            assert mirror.odb.content(ground.base, "commit").startswith(b"tree ")
            for pid in readers(ground.repo.path):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not readers(ground.repo.path))
        assert mirror.odb.find(ground.base)
    (pid,) = readers(ground.repo.path)
    os.kill(pid, signal.SIGKILL)  # while it is idle
    wait_for(lambda: not readers(ground.repo.path))
    assert ground.repo.type_of(ground.base) == "commit"


def test_an_answer_that_was_cut_off_is_none(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob larger than any pipe: its reader dies when half of it is read, once, and then each time."""
    blob = ground.commit("large", {"large.txt": "x" * 4_000_000}) + ":large.txt"
    ground.repo.fetch_branch(ground.url, "large")
    sha, read, deaths = ground.ours("rev-parse", blob), objects._Voice.readinto, [1]

    def dying(voice: objects._Voice, buffer: memoryview) -> int:
        got = read(voice, buffer)
        if got > 1000 and deaths[0]:
            deaths[0] -= 1
            voice._process.kill()
            voice._process.wait()
        return got

    monkeypatch.setattr(objects._Voice, "readinto", dying)
    with reading(ground.repo.path) as mirror:
        assert mirror.odb.content(sha, "blob") == b"x" * 4_000_000
    deaths[0] = 1000
    with pytest.raises(GitFailed) as failed, reading(ground.repo.path) as mirror:
        mirror.odb.content(sha, "blob")
    assert failed.value.kind == "other"
    wait_for(lambda: not readers(ground.repo.path))


def test_a_reader_that_does_not_answer_is_ended_in_time(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ground.repo.type_of(ground.base) == "commit"
    (pid,) = readers(ground.repo.path)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(gitcmd, "TIMEOUT", 0.2)
    with pytest.raises(GitFailed, match="took longer") as failed:
        ground.repo.type_of(ground.base)
    assert failed.value.kind == "timeout"
    assert pid not in readers(ground.repo.path)


def test_what_fails_is_sorted_as_everywhere(ground: Ground, tmp_path: Path) -> None:
    kinds, asked = {}, dict[str, Callable[[], object]]()
    shutil.copytree(ground.repo.path / "objects", tmp_path / "none" / "objects")
    asked["no commit"] = lambda: ground.repo.is_ancestor("d" * 40, ground.base)
    asked["no diff"] = lambda: ground.repo.touched("d" * 40, ground.base)
    asked["no tree"] = lambda: ground.repo.tree_of("d" * 40)
    asked["no mirror"] = lambda: git.Repo(tmp_path / "none").type_of(ground.base)
    for name, ask in asked.items():
        with pytest.raises(GitFailed) as failed:
            ask()
        kinds[name] = failed.value.kind
        assert failed.value.message.startswith("git ") and "\n" not in str(failed.value)
    assert kinds == {"no commit": "other", "no diff": "bad_object", "no tree": "bad_object", "no mirror": "not_found"}
    with pytest.raises(FileNotFoundError):
        git.Repo(tmp_path / "nowhere").type_of(ground.base)


def test_what_is_huge_is_not_read(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LARGEST", 20)
    with pytest.raises(GitFailed, match="too large") as failed, reading(ground.repo.path) as mirror:
        mirror.odb.content(ground.base, "commit")
    assert failed.value.kind == "unfit"


# -- what is read is what is there ---------------------------------------------------------------------------------


def test_a_reader_sees_what_is_packed_and_added_under_it(ground: Ground) -> None:
    with reading(ground.repo.path) as mirror:
        assert mirror.odb.content(ground.base, "commit")
        ground.ours("repack", "-a", "-d", "-q")
        for pack in (ground.repo.path / "objects" / "pack").glob("*.pack"):
            assert pack.stat().st_size
        added = ground.commit("later", {"later.txt": "1\n"})
        ground.repo.fetch_branch(ground.url, "later")
        assert mirror.odb.find(added)
        ground.ours("repack", "-a", "-d", "-q", "--no-write-bitmap-index", "--depth=1")
        ground.ours("prune-packed")
        assert mirror.odb.content(ground.base, "commit") and mirror.odb.content(added, "commit")


def test_what_a_repack_has_dropped_is_no_longer_shown(ground: Ground) -> None:
    blob = gitcmd.run_git(["hash-object", "-w", "--stdin"], cwd=ground.repo.path, input=b"nothing reaches this").text
    packed = gitcmd.run_git(["pack-objects", "objects/pack/pack"], cwd=ground.repo.path, input=f"{blob}\n".encode())
    ground.ours("prune-packed")
    assert ground.repo.type_of(blob) == "blob"
    for part in (ground.repo.path / "objects" / "pack").glob(f"*{packed.text}*"):
        part.unlink()
    assert ground.repo.type_of(blob) == ""


def test_a_mirror_that_was_replaced_is_not_read_through_an_old_reader(ground: Ground) -> None:
    path = ground.repo.path
    run_git(["repack", "-adq"], cwd=path)  # a reader that has a pack open reads on in it when it is deleted
    assert ground.repo.type_of(ground.base) == "commit"
    shutil.rmtree(path)
    git.Repo.open_or_create(path)
    assert ground.repo.type_of(ground.base) == ""
    assert len(readers(path)) == 1  # that of the deleted one is gone
    moved = path.with_name("moved.git")
    path.rename(moved)
    git.Repo.open_or_create(path).fetch_branch(ground.url, "main")
    assert ground.repo.type_of(ground.base) == "commit"


def test_threads_do_not_get_each_others_answers(ground: Ground) -> None:
    shas = {}
    for number in range(6):
        shas[ground.commit(f"b{number}", {"n.txt": f"{number}\n" * 50_000}) + ":n.txt"] = number
        ground.repo.fetch_branch(ground.url, f"b{number}")
    blobs = {ground.ours("rev-parse", name): f"{number}\n".encode() * 50_000 for name, number in shas.items()}

    def ask(_: int) -> bool:
        with reading(ground.repo.path) as mirror:
            return all(mirror.odb.content(sha, "blob") == text for sha, text in blobs.items())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(60)))


# -- nothing is believed -------------------------------------------------------------------------------------------


def test_hostile_names_are_words_and_no_options(ground: Ground, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    for name in (f"--upload-pack=touch {planted}", f"--output={planted}", "-o", "--", "main\nmain", "ext::sh -c x"):
        for ask in (ground.repo.known_branch, lambda name: ground.repo.fetch_branch(ground.url, name)):
            with pytest.raises((GitFailed, Invalid)):
                ask(name)
        for sha in (
            ground.repo.tree_of, ground.repo.type_of, ground.repo.has,
            lambda name: ground.repo.is_ancestor(name, ground.base), lambda name: ground.repo.merge_base(name, "main"),
            lambda name: ground.repo.commits(ground.base, name), lambda name: ground.repo.touched(ground.base, name),
            lambda name: ground.repo.own(name, ground.base), lambda name: ground.repo.stacked(name, [name, name]),
        ):  # fmt: skip
            with pytest.raises(GitFailed, match="not an object id"):
                sha(name)
    files = {"--output=x": "1\n", "-p": "2\n", "two\nlines": "3\n", ":(glob)*": "4\n", "--": "5\n"}
    head = ground.commit("odd", files)
    ground.repo.fetch_branch(ground.url, "odd")
    changes = ground.repo.changes(ground.base, head)
    assert {change.path for change in changes} == set(ground.repo.touched(ground.base, head)) == set(files)
    for change in changes:
        (patch,) = ground.repo.patches(ground.base, head, [change])
        assert [line.text for hunk in patch.hunks for line in hunk.lines] == [files[change.path].strip()]
    assert ground.repo.drop_refs(["--all", "refs/gastown/remote/-x", f"--output={planted}"]) == 0
    assert not planted.exists()


def test_refs_that_look_like_options_are_listed_and_dropped(ground: Ground) -> None:
    odd = [f"refs/gastown/salvage/{name}" for name in ("-rf", "--upload-pack=touch", "ü/--x")]
    for ref in odd:
        mirrors.pin(ground.repo.path, ref, ground.base)
    assert ground.repo.drop_refs(odd) == len(odd)
    assert ground.ours("for-each-ref", "refs/gastown/salvage") == ""


def test_a_config_planted_in_a_mirror_is_not_believed(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before it is mended, and however the server's own environment talks of git."""
    head = ground.commit("feature", {"c.txt": "c\n"})
    ground.repo.fetch_branch(ground.url, "feature")
    other = tmp_path / "other.git"
    ground.run("clone", "-q", "--bare", ground.url, str(other))
    mirror, planted = ground.repo.path, tmp_path / "planted"
    for key, value in {
        "core.bare": "false", "core.worktree": str(tmp_path / "work"), "core.fsmonitor": f"touch {planted}",
        "core.pager": f"touch {planted}", "diff.external": f"touch {planted}", "core.hooksPath": str(tmp_path),
        "core.attributesFile": str(tmp_path / "attributes"), "alias.rev-list": f"!touch {planted}",
        "include.path": str(tmp_path / "more"),
    }.items():  # fmt: skip
        ground.run("config", "-f", str(mirror / "config"), key, value, cwd=tmp_path)
    (mirror / ".git").write_text(f"gitdir: {other}\n")
    names = ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE")
    for name in (*names, "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_PARAMETERS"):
        monkeypatch.setenv(name, str(other if name in names else planted))
    monkeypatch.setenv("GIT_PYTHON_GIT_EXECUTABLE", "/bin/false")
    candidate = gitcmd.run_git(["commit-tree", f"{head}^{{tree}}", "-m", "only here"], cwd=mirror, env={"GIT_DIR": "."})
    with reading(mirror) as here:
        assert here.bare and here.working_dir == here.git_dir == here.common_dir == str(mirror)
        assert here.odb.find(candidate.text)
        assert here.git.rev_parse("--absolute-git-dir") == str(mirror)
    assert ground.repo.is_ancestor(ground.base, head) and ground.repo.merge_base(ground.base, head) == ground.base
    (change,) = ground.repo.changes(ground.base, head)
    assert ground.repo.patches(ground.base, head, [change])[0].hunks
    assert not planted.exists()
    cured = git.Repo.open_or_create(mirror)
    assert (mirror / "config").read_bytes() == mirrors.CONFIG and not (mirror / ".git").exists()
    assert cured.type_of(candidate.text) == "commit"


def test_git_is_started_in_no_other_way(ground: Ground) -> None:
    with reading(ground.repo.path) as mirror:
        for option in ("shell", "env", "output_stream", "universal_newlines"):
            with pytest.raises(TypeError, match=f"is not started with {option}"):
                mirror.git.version(**{option: {"a": "b"}})
