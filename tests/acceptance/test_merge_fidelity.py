"""What is built is what `git merge` would make in a checkout of the target, says all that its commits said, and loses
nothing: over real repositories, compared with git itself."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from agents.runtime import mirrors, policy
from agents.runtime.gitcmd import GitFailed
from refinery.git import attributes
from refinery.git import repo as git
from tests.acceptance.fidelity import LINES, arrived, by_git, by_us, commit, edited, spec, write
from tests.acceptance.test_git import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Fresh ground."""
    return Ground(tmp_path)


ROOT = [
    "",
    "*.txt merge=union\n",
    "*.txt -merge\n",
    "*.txt merge=binary\n",
    "*.txt merge=text\n",
    "*.txt merge\n",
    "*.txt binary\n",
    "*.txt merge=somebodys-own-driver\n",
    "[attr]precious -merge -diff\n*.txt precious\n",
    "*.txt merge=union conflict-marker-size=21\n",
    "deep/** merge=union\n",
    "*.txt text eol=crlf filter=planted merge=union\n",
]
NESTED = [None, "*.txt merge=union\n", "a.txt -merge\n", "*.txt !merge\n", "[attr]x merge=union\na.txt x\n"]


@pytest.mark.parametrize(("root", "nested"), list(itertools.product(ROOT, NESTED)))
def test_g15_built_in_merge_drivers_hold_as_in_git_merge(ground: Ground, root: str, nested: str | None) -> None:
    start: dict[str, str | None] = {name: "".join(LINES) for name in ("a.txt", "deep/a.txt", "deep/er/a.txt", "b.c")}
    if root:
        start[".gitattributes"] = root
    if nested is not None:
        start["deep/.gitattributes"] = nested
    first = commit(ground, "main", "main", start)
    both: dict[str, tuple[tuple[int, str], tuple[int, str]]] = {
        "a.txt": ((3, "ours\n"), (3, "theirs\n")),  # in the same line
        "deep/a.txt": ((3, "ours\n"), (4, "theirs\n")),  # beside one another
        "deep/er/a.txt": ((1, "ours\n"), (10, "theirs\n")),  # far apart
        "b.c": ((1, "ours\n"), (10, "theirs\n")),
    }
    base = commit(ground, "main", "main", {name: edited(ours) for name, (ours, _) in both.items()})
    head = commit(ground, "feature", first, {name: edited(theirs) for name, (_, theirs) in both.items()})
    wanted = by_git(ground, base, head)
    for method in ("squash", "merge", "rebase"):
        assert by_us(ground.repo.build_candidate(spec(base, head, method))) == wanted
    foreseen = ground.repo.clashes(base, [head], ())
    assert {f for _, _, files in foreseen for f in files} == (wanted if isinstance(wanted, set) else set())
    assert ground.repo.merged_tree(base, head) == (wanted if isinstance(wanted, str) else None)


def test_g15_the_targets_attributes_count_and_not_the_changes(ground: Ground) -> None:
    first = commit(ground, "main", "main", {"a.txt": edited()})
    base = commit(ground, "main", "main", {"a.txt": edited((3, "ours\n"))})
    head = commit(ground, "feature", first, {"a.txt": edited((3, "theirs\n")), ".gitattributes": "* merge=union\n"})
    assert by_us(ground.repo.build_candidate(spec(base, head))) == by_git(ground, base, head) == {"a.txt"}
    union = commit(ground, "main", base, {".gitattributes": "* merge=union\n"})
    plain = commit(ground, "plain", first, {"a.txt": edited((3, "theirs\n"))})
    assert by_us(ground.repo.build_candidate(spec(union, plain))) == by_git(ground, union, plain)
    again = commit(ground, "main", union, {".gitattributes": None})
    assert by_us(ground.repo.build_candidate(spec(again, plain))) == by_git(ground, again, plain) == {"a.txt"}
    assert by_us(ground.repo.build_candidate(spec(union, plain))) == by_git(ground, union, plain)  # known again


def test_g15_what_one_change_says_of_attributes_holds_for_the_next_foreseen_on_it(ground: Ground) -> None:
    base = commit(ground, "main", "main", {"a.txt": edited()})
    one = commit(ground, "one", base, {"a.txt": edited((3, "one\n")), ".gitattributes": "*.txt merge=union\n"})
    two = commit(ground, "two", base, {"a.txt": edited((3, "two\n"))})
    three = commit(ground, "three", base, {"a.txt": edited((3, "three\n"))})
    assert ground.repo.clashes(base, [one, two, three], ()) == [(two, three, ("a.txt",))]
    on = ground.repo.build_candidate(spec(base, one))
    assert isinstance(on, git.Built)
    assert isinstance(ground.repo.build_candidate(spec(on.sha, two)), git.Built)
    free = commit(ground, "free", base, {"g.txt": "g\n"})
    for head in (free, one):  # what is built on what was built: with nothing new, and with new attributes
        made = ground.repo.build_candidate(spec(base, head))
        assert isinstance(made, git.Built)
        ground.run("fetch", "-q", str(ground.repo.path), f"refs/gastown/candidates/{made.sha}")
        upon = ground.repo.build_candidate(spec(made.sha, three))
        assert by_us(upon) == by_git(ground, made.sha, three)


def test_g15_attributes_are_no_files_to_follow_and_a_fresh_process_knows_them(ground: Ground) -> None:
    first = commit(ground, "main", "main", {"a.txt": edited(), "rules": "* merge=union\n"})
    os.symlink("rules", ground.work / ".gitattributes")
    base = commit(ground, "main", "", {"a.txt": edited((3, "ours\n"))})
    head = commit(ground, "feature", first, {"a.txt": edited((3, "theirs\n"))})
    assert by_us(ground.repo.build_candidate(spec(base, head))) == by_git(ground, base, head) == {"a.txt"}
    (ground.work / ".gitattributes").unlink(missing_ok=True)
    union = commit(ground, "main", base, {"deep/.gitattributes": "x", ".gitattributes": None})
    union = commit(ground, "main", union, {".gitattributes": "* merge=union\n"})
    wanted = by_git(ground, union, head)
    assert by_us(ground.repo.build_candidate(spec(union, head))) == wanted
    attributes._known.clear()
    attributes._last.clear()
    assert by_us(ground.repo.build_candidate(spec(union, head))) == wanted


# -- what git would lose -------------------------------------------------------------------------------------------


def inner(ground: Ground, name: str) -> None:
    """A repository inside the clone, as `git init` and a commit make one."""
    ground.run("init", "-q", "-b", "main", name)
    (ground.work / name / "inside.txt").write_text("precious\n")
    ground.run("add", "-A", cwd=ground.work / name)
    ground.run("commit", "-q", "-m", "inside", cwd=ground.work / name)


@pytest.mark.parametrize("method", ["squash", "merge", "rebase"])
def test_g11_a_repository_inside_without_a_word_of_where_it_is_is_refused(ground: Ground, method: str) -> None:
    ground.run("checkout", "-q", "-B", "feature", "main")
    inner(ground, "front end")
    head = commit(ground, "feature", "", {"c": "c\n"})
    with pytest.raises(GitFailed, match=r"front end: a repository inside.*files would be lost") as failed:
        ground.repo.build_candidate(spec(ground.base, head, method))
    assert failed.value.kind == "unfit"
    assert policy.lost_gitlinks(ground.repo.path, ground.base, head) == ["front end"]
    assert policy.lost_gitlinks(ground.repo.path, "", head) == ["front end"]
    half = commit(ground, "feature", "", {".gitmodules": '[submodule "x"]\n\tpath = front end\n'})
    assert policy.lost_gitlinks(ground.repo.path, ground.base, half) == ["front end"]  # no url
    told = '[submodule "x"]\n\tpath = front end\n\turl = https://example.org/x.git\n'
    good = commit(ground, "feature", "", {".gitmodules": told})
    assert policy.lost_gitlinks(ground.repo.path, ground.base, good) == []
    assert isinstance(ground.repo.build_candidate(spec(ground.base, good, method)), git.Built)
    forgotten = commit(ground, "feature", "", {".gitmodules": ""})
    assert policy.lost_gitlinks(ground.repo.path, good, forgotten) == ["front end"]
    gone = commit(ground, "feature", "", {".gitmodules": None})
    assert policy.lost_gitlinks(ground.repo.path, good, gone) == ["front end"]


def test_g11_a_symbolic_link_for_gitmodules_says_nothing(ground: Ground) -> None:
    ground.run("checkout", "-q", "-B", "feature", "main")
    inner(ground, "lib")
    write(ground, {"elsewhere": '[submodule "x"]\n\tpath = lib\n\turl = https://example.org/x.git\n'})
    commit(ground, "feature", "", {})
    link = ground.run("hash-object", "-w", "elsewhere")
    rows = ground.run("ls-tree", "HEAD") + f"\n120000 blob {link}\t.gitmodules\n"  # git itself adds none
    made = subprocess.run(["git", "mktree"], cwd=ground.work, input=rows.encode(), capture_output=True, check=True)
    ground.run(
        "reset", "-q", "--soft", ground.run("commit-tree", made.stdout.decode().strip(), "-p", "HEAD", "-m", "x")
    )
    head = arrived(ground, "feature")
    told = policy.refusals(ground.repo.path, ground.base, head)
    assert [word.split(":")[0].split(" is")[0] for word in told] == ["lib", ".gitmodules"]


def test_a_path_that_git_refuses_to_check_out_is_refused(ground: Ground) -> None:
    blob = ground.run("hash-object", "-w", "a.txt")
    for name in (".git", "git~1", ".GIT ", ".."):
        raw = f"100644 {name}\0".encode() + bytes.fromhex(blob)
        inside = subprocess.run(
            ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
            cwd=ground.repo.path, input=raw, capture_output=True, check=True,
        ).stdout.decode().strip()  # fmt: skip
        assert "refuses to check out" in policy.refusals(ground.repo.path, "", inside)[0]


# -- a mirror that nobody else has written -------------------------------------------------------------------------


def test_s8_a_poisoned_config_gives_no_false_landing(ground: Ground, tmp_path: Path) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    false = tmp_path / "false.git"
    ground.run("clone", "-q", "--bare", ground.url, str(false))
    mirror = ground.repo.path
    for key, value in {
        f"url.{false}.insteadOf": ground.url,
        f"url.{false}.pushInsteadOf": ground.url,
        "core.hooksPath": str(mirror / "hooks"),
        "merge.union.driver": "touch planted %A",
        "include.path": str(tmp_path / "more"),
    }.items():
        ground.run("config", key, value, cwd=mirror)
    (mirror / "hooks").mkdir(exist_ok=True)
    (mirror / "info").mkdir(exist_ok=True)
    (mirror / "info" / "attributes").write_text("* merge=union\n")
    (mirror / "info" / "grafts").write_text(f"{built.sha}\n")
    (mirror / "shallow").write_text(f"{built.sha}\n")
    (mirror / "commondir").write_text(f"{false}\n")
    (mirror / "objects" / "info").mkdir(exist_ok=True)
    (mirror / "objects" / "info" / "alternates").write_text(f"{false}/objects\n")
    cured = git.Repo.open_or_create(mirror)
    assert cured.look(ground.url, ["main"], ground.base, built.sha) == {"main": ground.base}
    assert cured.land(ground.url, "main", ground.base, built.sha) == git.Landed(built.sha)
    assert ground.run("rev-parse", "main", cwd=ground.remote) == built.sha
    assert ground.run("rev-parse", "main", cwd=false) == ground.base
    assert (mirror / "config").read_bytes() == mirrors.CONFIG
    assert not [name for name in mirrors.NOT_OURS if (mirror / name).exists()]
    assert not mirrors.own_config(mirror)  # nothing is left to mend


def test_s8_replaced_objects_count_for_nothing(ground: Ground) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    other = ground.built(ground.commit("other", {"d.txt": "d\n"}))
    ground.run("replace", built.sha, other.sha, cwd=ground.repo.path)
    ground.run("replace", "--graft", ground.base, built.sha, cwd=ground.repo.path)
    assert ground.repo.touched(ground.base, built.sha) == ["c.txt"]
    assert not ground.repo.is_ancestor(built.sha, ground.base)


def test_a_config_that_is_a_link_or_a_folder_is_made_ours(tmp_path: Path) -> None:
    path = tmp_path / "mirror.git"
    mirrors.ensure_bare(path)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(mirrors.CONFIG)
    (path / "config").unlink()
    (path / "config").symlink_to(foreign)
    mirrors.ensure_bare(path)
    assert not (path / "config").is_symlink()
    (path / "config").unlink()
    (path / "config").mkdir()
    mirrors.ensure_bare(path)
    assert (path / "config").read_bytes() == mirrors.CONFIG


def test_a_ref_that_cannot_be_written_is_an_answer_of_git(ground: Ground) -> None:
    head = commit(ground, "feature", "main", {"c.txt": "c\n"})
    place = ground.repo.path / "refs" / "gastown" / "candidates"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way")
    with pytest.raises(GitFailed) as failed:
        ground.repo.build_candidate(spec(ground.base, head))
    assert failed.value.kind == "local"
    assert not list(ground.repo.path.glob("ref.*"))
    place.unlink()
    built = ground.repo.build_candidate(spec(ground.base, head))
    assert isinstance(built, git.Built)
    assert ground.run("for-each-ref", "--format=%(refname)", "refs/gastown/candidates", cwd=ground.repo.path) == (
        f"refs/gastown/candidates/{built.sha}"
    )


# -- what cannot be built ------------------------------------------------------------------------------------------


def test_g5_an_unrelated_history_and_a_head_that_is_none_are_answers(ground: Ground) -> None:
    ground.repo.fetch_branch(ground.url, "main")
    ground.run("checkout", "-q", "--orphan", "island")
    island = commit(ground, "island", "", {"a.txt": "i\n"})
    with pytest.raises(GitFailed) as failed:
        ground.repo.build_candidate(spec(ground.base, island))
    assert (failed.value.kind, failed.value.disposition) == ("unrelated", "permanent")
    blob = ground.ours("rev-parse", f"{ground.base}:a.txt")
    with pytest.raises(GitFailed) as failed:
        ground.repo.build_candidate(spec(ground.base, blob))
    assert failed.value.disposition == "permanent"
    assert (ground.repo.type_of(blob), ground.repo.type_of("d" * 40)) == ("blob", "")
