"""What a squash and a rebase keep of the commits that they are made from."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agents.runtime.gitcmd import GitFailed
from refinery.git import repo as git
from tests.acceptance.fidelity import by_git, by_us, commit, spec, write
from tests.acceptance.test_git import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Fresh ground."""
    return Ground(tmp_path)


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
