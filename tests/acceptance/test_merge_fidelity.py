"""What is built is what `git merge` would make in a checkout of the target, says all that its commits said, and loses
nothing: over real repositories, compared with git itself."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agents.runtime import mirrors, policy
from agents.runtime.gitcmd import GitFailed
from refinery.git import attributes
from refinery.git import repo as git
from tests.acceptance.test_git import Ground

LINES = [f"line {n}\n" for n in range(12)]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Fresh ground."""
    return Ground(tmp_path)


def write(ground: Ground, files: Mapping[str, str | None]) -> None:
    """Files into the clone; None removes one."""
    for name, text in files.items():
        path = ground.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


def commit(ground: Ground, branch: str, start: str, files: Mapping[str, str | None], *words: str) -> str:
    """Commit on `branch`, made anew from `start` unless that is empty, and have it in the mirror."""
    if start:
        ground.run("checkout", "-q", "-f", "-B", branch, start)
    write(ground, files)
    ground.run("add", "-A")
    ground.run("commit", "-q", "--allow-empty", *(words or ("-m", f"change {branch}")))
    return arrived(ground, branch)


def arrived(ground: Ground, branch: str) -> str:
    ground.run("push", "-q", "-f", ground.url, f"HEAD:refs/heads/{branch}")
    head = ground.run("rev-parse", "HEAD")
    ground.repo.fetch_sha(ground.url, head, branch)
    return head


def by_git(ground: Ground, base: str, head: str) -> str | set[str]:
    """What `git merge` makes in a checkout of the base: the tree, or the paths in conflict."""
    ground.run("checkout", "-q", "-f", "--detach", base)
    ground.run("clean", "-ffdxq")
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "merge", "-q", "--no-edit", "--no-ff", head]
    done = subprocess.run(command, cwd=ground.work, capture_output=True, check=False)
    if done.returncode == 0:
        return ground.run("rev-parse", "HEAD^{tree}")
    names = set(ground.run("diff", "--name-only", "--diff-filter=U").splitlines())
    ground.run("reset", "-q", "--hard")
    assert names
    return names


def by_us(found: git.Answer) -> str | set[str]:
    match found:
        case git.Built(tree=tree):
            return tree
        case git.ConflictFound(files=files):
            return set(files)
        case _:
            raise AssertionError(found)


def spec(base: str, head: str, method: str = "squash") -> git.CandidateSpec:
    return git.CandidateSpec(head, base, method, "Title", ("Me", "me@example.org"), 1700000000, "", [("Bead", "gt-1")])


def edited(*edits: tuple[int, str]) -> str:
    lines = list(LINES)
    for at, text in edits:
        lines[at] = text
    return "".join(lines)


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


# -- what a squash says --------------------------------------------------------------------------------------------


def shown(ground: Ground, sha: str, form: str) -> str:
    return ground.ours("show", "-s", f"--format={form}", sha)


def test_g16_a_squash_keeps_authors_trailers_zone_and_has_a_title(ground: Ground) -> None:
    ground.run("checkout", "-q", "-B", "feature", "main")
    dated = "--date=2026-11-20T09:00:00+0530"
    body = "Add c\n\nWhy.\n\nCo-authored-by: Cy <cy@example.org>\nSigned-off-by: Ann <ann@example.org>"
    commit(ground, "feature", "", {"c": "c\n"}, dated, "-m", body)
    commit(ground, "feature", "", {"d": "d\n"}, "--author=Bo <bo@example.org>", "-m", "Add d\n\nFixes: #7")
    head = commit(ground, "feature", "", {"e": "e\n"}, "-m", "fixup! Add c")
    asked = replace(spec(ground.base, head), title=ground.repo.title(ground.base, head))
    built = ground.repo.build_candidate(asked)
    assert isinstance(built, git.Built)
    assert shown(ground, built.sha, "%an <%ae> %aI|%s") == "Ann <ann@example.org> 2026-11-20T09:00:00+05:30|Add c"
    assert shown(ground, built.sha, "%(trailers)").splitlines() == [
        "Co-authored-by: Cy <cy@example.org>",
        "Signed-off-by: Ann <ann@example.org>",
        "Fixes: #7",
        "Co-authored-by: Bo <bo@example.org>",
        "Bead: gt-1",
    ]
    assert shown(ground, built.sha, "%b").startswith("* Add c\n\nWhy.\n\n* Add d\n\nCo-authored-by")


def test_g16_one_commit_keeps_its_body(ground: Ground) -> None:
    head = commit(ground, "feature", "main", {"c": "c\n"}, "-m", "Add c\n\nBecause of y.\n\nRefs: #1")
    built = ground.repo.build_candidate(replace(spec(ground.base, head), body="What the agent said."))
    assert isinstance(built, git.Built)
    assert shown(ground, built.sha, "%B") == "Title\n\nBecause of y.\n\nRefs: #1\nBead: gt-1"


def raw_commit(ground: Ground, branch: str, author: bytes, message: bytes = b"raw\n", more: bytes = b"") -> str:
    """A commit with just these bytes, as old importers made them."""
    ground.run("checkout", "-q", "-f", "-B", branch, "main")
    write(ground, {f"{branch}.txt": "x\n"})
    ground.run("add", "-A")
    head = f"tree {ground.run('write-tree')}\nparent {ground.run('rev-parse', 'HEAD')}\n".encode()
    body = head + b"author " + author + b"\ncommitter Ok <ok@example.org> 1700000000 +0530\n" + more + b"\n" + message
    command = ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"]
    sha = subprocess.run(command, cwd=ground.work, input=body, capture_output=True, check=True).stdout.decode().strip()
    ground.run("push", "-q", "-f", ground.url, f"{sha}:refs/heads/{branch}")
    ground.repo.fetch_sha(ground.url, sha, branch)
    return sha


ODD = {
    b". <a@b.org> 1700000000 +0530": ". <a@b.org> 1700000000 +0530",
    b"Jim Doe Jr. <a@b.org> 1700000000 +0530": "Jim Doe Jr. <a@b.org> 1700000000 +0530",
    b"Old <a@b.org> -100000 +0000": "Old <a@b.org> 1700000000 +0530",
    b"No Date <a@b.org>": "No Date <a@b.org> 1700000000 +0530",
    b"Far <a@b.org> 18446744073709551615 +0000": "Far <a@b.org> 1700000000 +0530",
    b" <a@b.org> 17 +0000": "a@b.org <a@b.org> 17 +0000",
    b"<a@b.org> 17 +0000": "a@b.org <a@b.org> 17 +0000",
    b"No Mail <> 17 +0000": "No Mail <> 17 +0000",
    b"Epoch <a@b.org> 0 +0000": "Epoch <a@b.org> 0 +0000",
    b"J\xf6rg <j@b.org> 17 +0000": "Jörg <j@b.org> 17 +0000",
    b"": "unknown <> 1700000000 +0530",
}


@pytest.mark.parametrize("line", sorted(ODD))
def test_g4_odd_authors_are_built_as_they_are_or_clean(ground: Ground, line: bytes) -> None:
    head = raw_commit(ground, "odd", line)
    for method in ("squash", "rebase"):
        built = ground.repo.build_candidate(spec(ground.base, head, method))
        assert isinstance(built, git.Built)
        raw = ground.ours("cat-file", "commit", built.sha)
        assert f"\nauthor {ODD[line]}\n" in raw
        packed = subprocess.run(
            ["git", "pack-objects", "--stdout"], cwd=ground.repo.path, input=built.sha.encode(), capture_output=True
        )
        strict = ["git", "index-pack", "--strict", "--stdin"]
        checked = subprocess.run(strict, cwd=ground.repo.path, input=packed.stdout, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
    assert isinstance(ground.repo.build_candidate(spec(ground.base, head, "merge")), git.Built)


def test_g4_encodings_nuls_and_long_messages_are_built(ground: Ground) -> None:
    latin = "Größe: ändern\n\nSo ist es.\n".encode("latin-1")
    head = raw_commit(ground, "latin", "Jörg <j@b.org> 17 +0000".encode("latin-1"), latin, b"encoding latin-1\n")
    built = ground.repo.build_candidate(spec(ground.base, head, "rebase"))
    assert isinstance(built, git.Built)
    assert shown(ground, built.sha, "%an|%B") == "Jörg|Größe: ändern\n\nSo ist es.\n\nBead: gt-1"
    for name, message in (("nul", b"before\0after\n"), ("huge", b"x\n\n" + b"long line\n" * 200_000), ("none", b"")):
        head = raw_commit(ground, name, b"A <a@b.org> 17 +0000", message)
        for method in ("squash", "rebase"):
            assert isinstance(ground.repo.build_candidate(spec(ground.base, head, method)), git.Built)


# -- rebase --------------------------------------------------------------------------------------------------------


def test_g17_a_rebase_keeps_each_commits_trailers_author_and_zone(ground: Ground) -> None:
    ground.run("checkout", "-q", "-B", "feature", "main")
    dated = "--date=2026-11-20T09:00:00+0530"
    commit(ground, "feature", "", {"c": "c\n"}, dated, "-m", "Add c\n\nSigned-off-by: Ann <ann@example.org>")
    head = commit(ground, "feature", "", {"d": "d\n"}, "--author=Bo <bo@example.org>", "-m", "Add d")
    base = commit(ground, "main", "main", {"m": "m\n"})
    built = ground.repo.build_candidate(spec(base, head, "rebase"))
    assert isinstance(built, git.Built)
    assert shown(ground, built.sha, "%an|%B") == "Bo|Add d\n\nBead: gt-1"
    below = f"{built.sha}^"
    assert shown(ground, below, "%aI|%B") == (
        "2026-11-20T09:00:00+05:30|Add c\n\nSigned-off-by: Ann <ann@example.org>\nBead: gt-1"
    )
    assert shown(ground, below, "%(trailers)") == "Signed-off-by: Ann <ann@example.org>\nBead: gt-1"


@pytest.mark.parametrize("kind", ["adds", "resolves", "ours", "plain", "topic"])
def test_g14_a_rebase_that_would_lose_a_merges_own_content_is_refused(ground: Ground, kind: str) -> None:
    both = {"a.txt": "1\ntwo\n3\n"} if kind == "resolves" else {"m.txt": "m\n"}
    branch = commit(ground, "feature", "main", {"b.txt": "b\n", "a.txt": "1\nzwei\n3\n"})
    base = commit(ground, "main", ground.base, dict(both))
    ground.run("checkout", "-q", "-f", "-B", "feature", branch)
    if kind == "topic":
        ground.run("checkout", "-q", "-B", "topic", ground.base)
        commit(ground, "topic", "", {"t.txt": "t\n"})
        ground.run("checkout", "-q", "feature")
    other = {"topic": "topic"}.get(kind, base)
    words = ["-s", "ours"] if kind == "ours" else []
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "merge", "-q", "--no-commit", *words, other]
    subprocess.run(command, cwd=ground.work, capture_output=True, check=kind != "resolves")
    write(ground, {"adds": {"fix.txt": "needed\n"}, "resolves": {"a.txt": "1\nboth\n3\n"}}.get(kind, {}))
    head = commit(ground, "feature", "", {}, "-m", "Merge")
    if kind in ("plain", "topic"):
        built = ground.repo.build_candidate(spec(base, head, "rebase"))
        assert isinstance(built, git.Built)
        assert built.tree == by_git(ground, base, head)
        return
    with pytest.raises(GitFailed, match='Set merge_method to "squash" or "merge"') as failed:
        ground.repo.build_candidate(spec(base, head, "rebase"))
    assert failed.value.kind == "unfit"
    assert head[:12] in failed.value.message
    squashed = by_us(ground.repo.build_candidate(spec(base, head)))
    assert squashed == ground.run("rev-parse", "feature^{tree}") or kind == "ours"


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
