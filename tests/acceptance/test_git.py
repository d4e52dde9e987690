"""The refinery's git over real repositories: what is built, what is refused, and what a push really did."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from agents.runtime import gitcmd, mirrors
from agents.runtime.gitcmd import GitFailed
from beads.errors import GastownError, Invalid
from refinery.git import repo as git

ME = ("Gastown", "gastown@example.org")


class Ground:
    """A remote, a person's clone, and our mirror."""

    def __init__(self, root: Path) -> None:
        self.root, self.remote, self.work = root, root / "remote.git", root / "work"
        self.url = str(self.remote)
        self.run("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=root)
        self.run("init", "-q", "-b", "main", str(self.work), cwd=root)
        self.base = self.commit("main", {"a.txt": "1\n2\n3\n", "b b.txt": "x\n"}, new=False)
        self.repo = git.Repo.open_or_create(root / "mirror.git")

    def run(self, *words: str, cwd: Path | None = None) -> str:
        command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *words]
        return subprocess.run(command, cwd=cwd or self.work, check=True, capture_output=True, text=True).stdout.strip()

    def ours(self, *words: str) -> str:
        """What git says in our mirror."""
        return self.run(*words, cwd=self.repo.path)

    def commit(self, branch: str, files: dict[str, str], new: bool = True, start: str = "main") -> str:
        if new:
            self.run("checkout", "-q", "-B", branch, start)
        for name, text in files.items():
            (self.work / name).write_text(text)
        self.run("add", "-A")
        self.run("commit", "-q", "--allow-empty", "-m", f"change {branch}")
        self.run("push", "-q", "-f", self.url, f"HEAD:refs/heads/{branch}")
        return self.run("rev-parse", "HEAD")

    def spec(self, head: str, method: str = "squash", base: str = "") -> git.CandidateSpec:
        self.repo.fetch_branch(self.url, "main")
        self.repo.fetch_sha(self.url, head, "main")
        trailers = [("Bead", "gt-1"), ("Merge-Request", "gt-2")]
        return git.CandidateSpec(head, base or self.base, method, "Title", ME, 1700000000, "Body", trailers)

    def built(self, head: str, method: str = "squash", base: str = "") -> git.Built:
        found = self.repo.build_candidate(self.spec(head, method, base))
        assert isinstance(found, git.Built)
        return found


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Fresh ground."""
    return Ground(tmp_path)


def test_a_squash_keeps_the_author_and_carries_the_trailers_and_is_the_same_again(ground: Ground) -> None:
    ground.commit("feature", {"c.txt": "c\n"})
    head = ground.commit("feature", {"d.txt": "d\n"}, new=False)
    built = ground.built(head)
    assert built == ground.built(head)
    show = ground.ours("show", "-s", "--format=%an %ae|%cn|%P|%B", built.sha)
    assert show.startswith(
        f"Ann ann@example.org|Gastown|{ground.base}|Title\n\nBody\n\nBead: gt-1\nMerge-Request: gt-2"
    )
    assert {f.path for f in ground.repo.changes(ground.base, built.sha)} == {"c.txt", "d.txt"}


def test_merge_and_rebase(ground: Ground) -> None:
    first = ground.commit("feature", {"c.txt": "c\n"})
    head = ground.commit("feature", {"d.txt": "d\n"}, new=False)
    main = ground.commit("main", {"e.txt": "e\n"})
    merged = ground.built(head, "merge", main)
    assert ground.ours("show", "-s", "--format=%P", merged.sha) == f"{main} {head}"
    rebased = ground.built(head, "rebase", main)
    assert rebased.tree == merged.tree
    log = ground.ours("log", "--format=%s %an", f"{main}..{rebased.sha}").splitlines()
    assert log == ["change feature Ann", "change feature Ann"]
    assert not ground.repo.is_ancestor(first, rebased.sha)


def test_a_conflict_names_its_files(ground: Ground) -> None:
    name = 'odd "ünï" name.txt'
    base = ground.commit("main", {name: "1\n"}, new=False)
    head = ground.commit("feature", {"a.txt": "1\nmine\n3\n", name: "mine\n"})
    main = ground.commit("main", {"a.txt": "1\ntheirs\n3\n", name: "theirs\n"}, start=base)
    for method in ("squash", "rebase"):
        found = ground.repo.build_candidate(ground.spec(head, method, main))
        assert isinstance(found, git.ConflictFound)
        assert set(found.files) == {"a.txt", name}


def test_what_is_there_already_and_what_changes_nothing(ground: Ground) -> None:
    assert isinstance(ground.repo.build_candidate(ground.spec(ground.base)), git.AlreadyMerged)
    head = ground.commit("empty", {})
    assert isinstance(ground.repo.build_candidate(ground.spec(head)), git.NothingToMerge)


def test_an_unknown_commit_is_no_conflict(ground: Ground) -> None:
    head = ground.commit("feature", {"c.txt": "c\n"})
    spec = ground.spec(head)
    for wrong in (replace(spec, head="d" * 40), replace(spec, base="d" * 40), replace(spec, head="--output=x")):
        with pytest.raises(GitFailed):
            ground.repo.build_candidate(wrong)


def test_landing_twice_is_landing_once(ground: Ground) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    for _ in range(2):
        assert ground.repo.land(ground.url, "main", ground.base, built.sha) == git.Landed(built.sha)
    assert ground.run("rev-list", "--count", "main", cwd=ground.remote) == "2"


def test_a_moved_target_is_never_forced(ground: Ground) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    outside = ground.commit("main", {"e.txt": "e\n"})
    assert ground.repo.land(ground.url, "main", ground.base, built.sha) == git.TargetMoved(outside)
    assert ground.run("rev-parse", "main", cwd=ground.remote) == outside


def test_what_does_not_stand_on_the_target_is_not_pushed_over_it(ground: Ground) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    outside = ground.commit("main", {"e.txt": "e\n"})
    ground.repo.fetch_branch(ground.url, "main")
    assert ground.repo.look(ground.url, ["main"], ground.base, built.sha) == {"main": outside}
    with pytest.raises(GastownError, match=f"{built.sha[:12]} does not stand on {outside[:12]}"):
        ground.repo.look(ground.url, ["main"], outside, built.sha)
    with pytest.raises(GitFailed):
        ground.repo.look(ground.url, ["main"], "d" * 40, built.sha)


def test_a_branch_that_is_here_is_not_fetched_again_and_still_seen(ground: Ground) -> None:
    assert ground.repo.fetch_branch(ground.url, "main") == ground.base
    outside = ground.commit("main", {"e.txt": "e\n"})
    assert ground.repo.fetch_branch(ground.url, "main") == outside
    ground.run("update-ref", "refs/heads/main", ground.base, cwd=ground.remote)  # somebody took it back
    assert ground.repo.fetch_branch(ground.url, "main") == ground.base
    with pytest.raises(GitFailed) as failed:
        ground.repo.fetch_branch(ground.url, "no-such-branch")
    assert failed.value.kind == "missing_ref"


def test_what_a_fetch_that_was_cut_off_has_left_of_a_commit_is_not_taken_for_it(ground: Ground) -> None:
    head = ground.commit("feature", {"c.txt": "c\n"})
    raw = subprocess.run(["git", "cat-file", "commit", head], cwd=ground.remote, capture_output=True, check=True).stdout
    write = ["git", "hash-object", "-t", "commit", "-w", "--stdin"]
    subprocess.run(write, cwd=ground.repo.path, input=raw, capture_output=True, check=True)  # and none of its files
    assert not mirrors.has_commit(ground.repo.path, head)
    ground.repo.fetch_sha(ground.url, head, "feature")
    assert mirrors.has_commit(ground.repo.path, head)
    assert ground.built(head).tree


def test_a_refusing_remote_says_why(ground: Ground) -> None:
    built = ground.built(ground.commit("feature", {"c.txt": "c\n"}))
    hook = ground.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'only on Tuesdays' >&2\nexit 1\n")
    hook.chmod(0o755)
    found = ground.repo.land(ground.url, "main", ground.base, built.sha)
    assert isinstance(found, git.PushRefused)
    assert "only on Tuesdays" in found.message


def test_a_remote_that_cannot_be_asked_is_unknown_never_absent(ground: Ground) -> None:
    with pytest.raises(GitFailed) as failed:
        ground.repo.ls_remote(str(ground.root / "nowhere.git"), "main")
    assert failed.value.kind == "not_found"
    assert ground.repo.ls_remote(ground.url, "no-such-branch") is None


def test_branches_are_made_once_and_deleted_only_where_they_were_seen(ground: Ground) -> None:
    ground.repo.fetch_branch(ground.url, "main")
    assert ground.repo.create_branch(ground.url, "convoy/x/head", ground.base) == ground.base
    head = ground.commit("convoy/x/head", {"c.txt": "c\n"})
    assert ground.repo.create_branch(ground.url, "convoy/x/head", ground.base) == head
    assert ground.repo.delete_branch(ground.url, "convoy/x/head", ground.base) is False
    assert ground.repo.delete_branch(ground.url, "convoy/x/head", head) is True
    assert ground.repo.delete_branch(ground.url, "convoy/x/head", head) is True


@pytest.mark.parametrize("url", ["--upload-pack=x", "ext::sh -c x", "ftp://x/y", "relative/path", "", "a\nb", "-x@h:p"])
def test_a_remote_url_is_never_an_option(url: str) -> None:
    with pytest.raises(Invalid):
        gitcmd.check_remote_url(url)


@pytest.mark.parametrize(
    "url", ["/abs/path with space.git", "https://host:8443/x.git", "git@host:me/x.git", "ssh://h/x"]
)
def test_usual_remotes_are_taken(url: str) -> None:
    assert gitcmd.check_remote_url(url) == url


def test_credentials_are_not_shown() -> None:
    assert gitcmd.redact("fatal: https://me:secret@host:8443/x") == "fatal: https://host:8443/x"


def test_a_mirror_that_many_make_at_once_is_never_met_half_made(tmp_path: Path, ground: Ground) -> None:
    """A run of four used to fail its start now and then: HEAD was there before the rest of the repository."""
    for number in range(10):
        path = tmp_path / f"fresh-{number}.git"

        def look(path: Path = path) -> str:
            mirrors.ensure_bare(path)
            return mirrors.fetch(path, str(ground.remote), "main")

        with ThreadPoolExecutor(4) as pool:
            assert len({made.result() for made in [pool.submit(look) for _ in range(4)]}) == 1


def test_who_contains_whom_among_what_is_not_on_the_base(ground: Ground) -> None:
    low = ground.commit("low", {"c.txt": "c\n"})
    middle = ground.commit("middle", {"d.txt": "d\n"}, start="low")
    high = ground.commit("high", {"e.txt": "e\n"}, start="middle")
    beside = ground.commit("beside", {"f.txt": "f\n"}, start="low")
    alone = ground.commit("alone", {"g.txt": "g\n"})
    heads = [high, alone, low, beside, middle, ground.base]  # the base itself is nobody's burden
    for head in heads:
        ground.repo.fetch_sha(ground.url, head, "main")
    expected = {(high, middle), (high, low), (middle, low), (beside, low)}
    assert set(ground.repo.stacked(ground.base, heads)) == expected
    assert ground.repo.stacked(ground.base, [high]) == []


def test_conflicts_are_foreseen_in_pairs_on_the_present_base_and_not_between_stale_branches(ground: Ground) -> None:
    one = ground.commit("one", {"a.txt": "1\n2\nthree\n"})
    other = ground.commit("other", {"a.txt": "1\n2\ndrei\n", "x.txt": "x\n"})
    free = ground.commit("free", {"g.txt": "g\n"})
    stale = ground.commit("stale", {"b b.txt": "mine\n"})
    rootless = ground.commit("rootless", {"a.txt": "r\n"})
    ground.run("checkout", "-q", "--orphan", "island")
    island = ground.commit("island", {"a.txt": "i\n"}, new=False)
    base = ground.commit("main", {"b b.txt": "theirs\n"}, start="main")
    heads = [one, other, free, stale, island]
    for head in [*heads, base, rootless]:
        ground.repo.fetch_sha(ground.url, head, "main")
    found = ground.repo.clashes(base, heads, apart=())
    assert found == [(stale, "", ("b b.txt",)), (one, other, ("a.txt",))]
    assert ground.repo.clashes(base, heads, {frozenset((one, other))}) == [(stale, "", ("b b.txt",))]
    assert ground.repo.clashes(base, heads, (), known=heads) == []
    assert ground.repo.clashes(base, [], ()) == []


def test_what_landed_squashed_does_not_conflict_with_what_was_built_upon_it(ground: Ground) -> None:
    low = ground.commit("low", {"a.txt": "1\n2\nthree\n"})
    high = ground.commit("high", {"a.txt": "1\n2\nthree!\n"}, start="low")
    landed = ground.built(low).sha
    conflicting = ground.spec(high, base=landed)
    assert isinstance(ground.repo.build_candidate(conflicting), git.ConflictFound)
    built = ground.repo.build_candidate(replace(conflicting, landed=[low]))
    assert isinstance(built, git.Built)
    assert ground.ours("show", f"{built.sha}:a.txt") == "1\n2\nthree!"
    assert ground.ours("rev-parse", f"{built.sha}^") == landed
    assert isinstance(ground.repo.build_candidate(ground.spec(high, "rebase", landed)), git.Built)  # knows it anyway


def test_what_is_not_on_the_base_any_more_is_not_taken_for_landed(ground: Ground) -> None:
    low = ground.commit("low", {"a.txt": "1\n2\nthree\n", "c.txt": "c\n"})
    high = ground.commit("high", {"a.txt": "1\n2\nthree!\n"}, start="low")
    reverted = ground.commit("main", {"a.txt": "1\n2\ndrei\n"})
    spec = replace(ground.spec(high, "squash", reverted), landed=[low])
    ground.repo.fetch_sha(ground.url, low, "main")
    assert isinstance(ground.repo.build_candidate(spec), git.ConflictFound)


def test_tags_of_the_remote_are_followed_and_one_in_anothers_way_stops_no_fetch(tmp_path: Path) -> None:
    """`v1` was deleted on the remote, where there is a `v1/final` now: no place for both in one repository."""
    remote, mirror = tmp_path / "remote.git", tmp_path / "mirror.git"
    mirrors.ensure_bare(remote)
    mirrors.ensure_bare(mirror)
    tree = gitcmd.run_git(["hash-object", "-t", "tree", "-w", "/dev/null"], cwd=remote).text
    first = gitcmd.run_git(["commit-tree", tree, "-m", "first"], cwd=remote).text
    mirrors.pin(remote, "refs/heads/main", first)
    mirrors.pin(remote, "refs/tags/v1", first)
    assert mirrors.fetch(mirror, str(remote), "main") == first
    assert gitcmd.run_git(["describe", "--tags", first], cwd=mirror).text == "v1"
    gitcmd.run_git(["update-ref", "-d", "refs/tags/v1"], cwd=remote)
    second = gitcmd.run_git(["commit-tree", tree, "-p", first, "-m", "second"], cwd=remote).text
    mirrors.pin(remote, "refs/heads/main", second)
    mirrors.pin(remote, "refs/tags/v1/final", second)
    assert mirrors.fetch(mirror, str(remote), "main") == second
