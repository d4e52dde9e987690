"""Submodules and LFS files in the trees of gates, and what an agent may make of their URLs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import gitcmd, lfs, mirrors, modules, trees
from agents.runtime.gitdirs import View
from beads.errors import Invalid
from tests.acceptance.test_trees import ENV

FILE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}


class Ground:
    """A remote, a mirror of it, a library that it has as a submodule, and the library's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mirror = root / "repos" / "1.git"
        self.slot = trees.Slot(root / "gates" / "1" / "0")
        mirrors.ensure_bare(self.mirror)
        for name in ("deep", "lib", "main", "secret"):
            self.git("init", "-q", "--bare", "-b", "main", str(root / f"{name}.git"), cwd=root)
            self.git("clone", "-q", str(root / f"{name}.git"), str(root / name), cwd=root)
        self.deep = self.commit("deep", {"deep.txt": "deep\n"})
        self.git("submodule", "-q", "add", "../deep.git", "inner", cwd=root / "lib")
        self.lib = self.commit("lib", {"lib.txt": "lib 1\n"})
        self.git("submodule", "-q", "add", str(root / "lib.git"), "third party/lib", cwd=root / "main")
        self.base = self.commit("main", {"a.txt": "one\n"})
        self.secret = self.commit("secret", {"secret.txt": "secret\n"})

    def git(self, *arguments: str, cwd: Path) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=ENV | FILE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, name: str, files: dict[str, str], branch: str = "main") -> str:
        at = self.root / name
        for path, text in files.items():
            (at / path).parent.mkdir(parents=True, exist_ok=True)
            (at / path).write_text(text)
        self.git("add", "-A", cwd=at)
        self.git("commit", "-q", "-m", "A change", cwd=at)
        self.git("push", "-q", "origin", f"HEAD:{branch}", cwd=at)
        return self.git("rev-parse", "HEAD", cwd=at)

    def land(self, sha: str) -> None:
        """It is the target's head on the remote, as the mirror has last seen it."""
        mirrors.fetch(self.mirror, str(self.root / "main.git"), "main")
        mirrors.fetch(self.mirror, str(self.root / "main.git"), sha)
        self.git("update-ref", "refs/gastown/remote/main", sha, cwd=self.mirror)

    def prepare(self, sha: str, *, submodules: bool = True, large: bool = False, landed: str = "") -> Path:
        self.land(landed or self.base)
        mirrors.fetch(self.mirror, str(self.root / "main.git"), sha)
        view = View(self.mirror, sha, self.base, "main", str(self.root / "main.git"))
        fill = modules.filler(view, self.root / "repos" / "modules", submodules=submodules, lfs=large)
        return trees.prepare(self.slot, view, fill)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def said(tree: Path, typed: str) -> str:
    done = subprocess.run(["sh", "-c", typed], cwd=tree, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_submodules_are_checked_out_with_theirs_and_with_a_history(ground: Ground) -> None:
    tree = ground.prepare(ground.base)
    lib = tree / "third party" / "lib"
    assert (lib / "lib.txt").read_text() == "lib 1\n"
    assert (lib / "inner" / "deep.txt").read_text() == "deep\n"
    assert said(lib, "git log -1 --format=%H") == ground.lib
    assert said(tree, "git status --porcelain --ignored") == ""
    assert said(tree, "git submodule status").startswith(f"{ground.lib} third party/lib")


def test_without_the_setting_a_submodule_is_an_empty_directory(ground: Ground) -> None:
    ground.prepare(ground.base)
    tree = ground.prepare(ground.base, submodules=False)
    assert list((tree / "third party" / "lib").iterdir()) == []


LEFT = {
    "changed": "echo bad > lib.txt; echo x > left; git add -A",
    "a filter": "git config filter.x.smudge 'touch /tmp/pwned'; echo '* filter=x' > .git/info/attributes; rm lib.txt",
    "a link in its place": "cd ..; rm -rf lib; ln -s /etc lib",
    "a link above it": "cd ../..; rm -rf 'third party'; ln -s /etc 'third party'",
    "closed": "chmod 000 inner .",
    "moved": "cd ..; mv lib other",
}


@pytest.mark.parametrize("gate", LEFT)
def test_what_a_gate_leaves_in_a_submodule_is_gone(ground: Ground, gate: str) -> None:
    tree = ground.prepare(ground.base)
    said(tree / "third party" / "lib", LEFT[gate])
    tree = ground.prepare(ground.base)
    lib = tree / "third party" / "lib"
    assert sorted(p.name for p in lib.iterdir()) == [".git", ".gitmodules", "inner", "lib.txt"]
    assert (lib / "lib.txt").read_text() == "lib 1\n"
    assert said(tree, "git status --porcelain --ignored") == ""


def test_another_commit_of_a_submodule_and_none_any_more(ground: Ground) -> None:
    ground.prepare(ground.base)
    newer = ground.commit("lib", {"lib.txt": "lib 2\n"})
    ground.git("pull", "-q", "origin", "main", cwd=ground.root / "main" / "third party" / "lib")
    moved = ground.commit("main", {"b.txt": "b\n"})
    tree = ground.prepare(moved)
    assert said(tree / "third party" / "lib", "git rev-parse HEAD") == newer
    ground.git("rm", "-rq", "third party/lib", ".gitmodules", cwd=ground.root / "main")
    without = ground.commit("main", {"c.txt": "c\n"})
    assert not (ground.prepare(without) / "third party").exists()


def evil(ground: Ground, url: str, sha: str) -> str:
    """A commit, as an agent may write it, with a submodule of its own choice."""
    at = ground.root / "main"
    with (at / ".gitmodules").open("a") as file:
        file.write(f'[submodule "x"]\n\tpath = x\n\turl = {url}\n')
    (at / "x").mkdir(exist_ok=True)
    ground.git("update-index", "--add", "--cacheinfo", f"160000,{sha},x", cwd=at)
    return ground.commit("main", {"x.txt": f"{url}\n"}, branch="evil")


def test_a_path_that_only_the_candidate_names_is_not_followed(ground: Ground) -> None:
    """Relative or not, it would show the gate whatever repository the server can read."""
    for url in (str(ground.root / "secret.git"), "../secret.git", f"file://{ground.root}/secret.git"):
        sha = evil(ground, url, ground.secret)
        with pytest.raises(Invalid, match=r"submodule x: .* neither on the host .* nor named by \.gitmodules"):
            ground.prepare(sha)
        assert not (ground.slot.tree / "x" / "secret.txt").exists()
    ground.git("push", "-q", "origin", "HEAD:main", cwd=ground.root / "main")
    assert (ground.prepare(sha) / "x" / "secret.txt").exists(), "a person has landed it meanwhile"


HTTPS = "https://bot:key@git.example.org/team/main.git"
URLS: list[tuple[str, str, str | None]] = [
    (HTTPS, "../lib.git", "https://bot:key@git.example.org/team/lib.git"),
    (HTTPS, "./sub/lib.git", "https://bot:key@git.example.org/team/main.git/sub/lib.git"),
    (HTTPS, "https://git.example.org/other/lib", "https://bot:key@git.example.org/other/lib"),
    (HTTPS, "https://GIT.example.org:443/other/lib", "https://bot:key@GIT.example.org:443/other/lib"),
    (HTTPS, "https://me:mine@git.example.org/lib", "https://bot:key@git.example.org/lib"),
    (HTTPS, "https://elsewhere.example.org/lib.git", None),
    (HTTPS, "http://git.example.org/lib.git", None),
    (HTTPS, "https://git.example.org:8443/lib.git", None),
    (HTTPS, "https://git.example.org@evil.example.org/lib.git", None),
    (HTTPS, "https://git.example.org\\@evil.example.org/lib.git", None),
    (HTTPS, "https://evil.example.org#@git.example.org/lib.git", None),
    (HTTPS, "https://169.254.169.254/latest", None),
    (HTTPS, "git@git.example.org:lib.git", None),
    (HTTPS, "../../../../x.git", None),
    (HTTPS, "/srv/git/lib.git", None),
    (HTTPS, "ext::sh -c touch% pwned", None),
    (HTTPS, "-upload-pack=x", None),
    ("git@host.example.org:team/main.git", "../lib.git", "git@host.example.org:team/lib.git"),
    ("git@host.example.org:main.git", "../lib.git", "git@host.example.org:lib.git"),
    ("git@host.example.org:main.git", "ssh://git@host.example.org/lib.git", "ssh://git@host.example.org/lib.git"),
    ("ssh://git@host.example.org:2222/main.git", "git@host.example.org:lib.git", None),
    ("/srv/git/main.git", "../lib.git", None),
    ("/srv/git/main.git", "https://git.example.org/lib.git", None),
]


@pytest.mark.parametrize(("remote", "url", "wanted"), URLS)
def test_which_urls_are_followed_and_with_whose_credentials(remote: str, url: str, wanted: str | None) -> None:
    def asked() -> str:
        return modules.allowed(modules.resolve(remote, url), remote, set(), "lib")

    if wanted is None:
        with pytest.raises(Invalid) as refused:
            asked()
        assert "key" not in refused.value.message
    else:
        assert asked() == wanted


def test_endless_submodules_end(ground: Ground) -> None:
    """A repository that has itself as a submodule."""
    at = ground.root / "deep"
    for _ in range(modules.DEPTH + 1):
        ground.git("update-index", "--add", "--cacheinfo", f"160000,{ground.deep},again", cwd=at)
        (at / "again").mkdir(exist_ok=True)
        ground.deep = ground.commit(
            "deep", {".gitmodules": '[submodule "again"]\n\tpath = again\n\turl = ../deep.git\n'}
        )
    ground.git("update-index", "--cacheinfo", f"160000,{ground.deep},inner", cwd=ground.root / "lib")
    shutil_lib = ground.root / "lib"
    ground.git("commit", "-q", "-m", "deeper", cwd=shutil_lib)
    ground.git("push", "-q", "origin", "HEAD:main", cwd=shutil_lib)
    ground.git("pull", "-q", "origin", "main", cwd=ground.root / "main" / "third party" / "lib")
    sha = ground.commit("main", {"d.txt": "d\n"})
    with pytest.raises(gitcmd.GitFailed, match="nested deeper than 5"):
        ground.prepare(sha, landed=sha)


def test_what_a_repository_has_is_found(ground: Ground) -> None:
    sha = ground.commit("main", {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt text\n"})
    ground.land(sha)
    assert modules.found(ground.mirror, sha) == {
        "submodules": [{"path": "third party/lib", "url": str(ground.root / "lib.git")}],
        "lfs": ["*.bin"],
    }


# -- LFS --

needs_lfs = pytest.mark.skipif(not lfs.installed(), reason="git-lfs is not installed")


def with_lfs(ground: Ground, content: bytes, **more: str) -> str:
    at = ground.root / "main"
    ground.git("lfs", "install", "--local", cwd=at)
    (at / "big file.bin").write_bytes(content)
    return ground.commit("main", {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", **more})


@needs_lfs
def test_files_of_lfs_have_their_content_and_git_knows_them_as_unchanged(ground: Ground) -> None:
    big = bytes(range(256)) * 5000
    sha = with_lfs(ground, big)
    tree = ground.prepare(sha, submodules=False, large=True)
    assert (tree / "big file.bin").read_bytes() == big
    assert said(tree, "git status --porcelain --ignored; git diff --stat") == ""
    # kept, as it is the same in the next commit
    was = (tree / "big file.bin").stat().st_ino
    other = ground.commit("main", {"b.txt": "b\n"})
    tree = ground.prepare(other, submodules=False, large=True)
    assert (tree / "big file.bin").stat().st_ino == was
    # and whatever a gate does to it is undone
    said(tree, "printf 'xx' | dd of='big file.bin' conv=notrunc status=none; touch -d @1000000000 'big file.bin'")
    tree = ground.prepare(other, submodules=False, large=True)
    assert (tree / "big file.bin").read_bytes() == big
    tree = ground.prepare(with_lfs(ground, b"new" * 1000), submodules=False, large=True)
    assert (tree / "big file.bin").read_bytes() == b"new" * 1000
    tree = ground.prepare(sha, submodules=False, large=False)
    assert (tree / "big file.bin").read_bytes().startswith(b"version https://git-lfs")


@needs_lfs
def test_lfsconfig_of_an_agent_sends_the_server_nowhere(ground: Ground) -> None:
    evil = '[lfs]\n\turl = http://127.0.0.1:9/evil\n\tfetchexclude = *\n[remote "origin"]\n\tlfsurl = http://127.0.0.1:9/x\n'
    sha = with_lfs(ground, b"content" * 100)
    (ground.root / "main" / ".lfsconfig").write_text(evil)
    sha = ground.commit("main", {"c.txt": "c\n"})
    tree = ground.prepare(sha, submodules=False, large=True)
    assert (tree / "big file.bin").read_bytes() == b"content" * 100


@needs_lfs
def test_content_that_is_not_what_the_pointer_says_or_is_not_there_is_an_error(ground: Ground) -> None:
    sha = with_lfs(ground, b"content" * 100)
    stored = next(path for path in (ground.root / "main.git" / "lfs" / "objects").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(b"konntent" * 100)
    with pytest.raises(gitcmd.GitFailed):
        ground.prepare(sha, submodules=False, large=True)
    stored.unlink()
    with pytest.raises(gitcmd.GitFailed):
        ground.prepare(sha, submodules=False, large=True)


def test_without_git_lfs_the_error_names_it(ground: Ground, monkeypatch: Any) -> None:
    monkeypatch.setattr(lfs, "installed", lambda: False)
    with pytest.raises(gitcmd.GitFailed, match="git-lfs is not installed"):
        ground.prepare(ground.base, submodules=False, large=True)
    with pytest.raises(Invalid, match="git-lfs is not installed"):
        lfs.check_installed()
