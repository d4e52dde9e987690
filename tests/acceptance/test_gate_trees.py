"""What real gates see through the queue: exactly the candidate, tags, submodules; whatever agents and gates leave."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from agents.models import Run
from agents.runtime import lfs
from beads import config as configs
from beads import ledger
from refinery.models import GateResult
from refinery.pages import boards
from tests.acceptance.conftest import Stage
from tests.acceptance.test_gates import walls  # noqa: F401 - a fixture

FILE = ("-c", "protocol.file.allow=always")


def settings_of_git(stage: Stage, **values: Any) -> None:
    """[git] of the rig."""
    ledger.set_config(stage.rig, configs.validate({"git": values}), who="ann", why="test", text="")


def test_g8_line_ends_that_an_agent_sets_do_not_reach_the_gates(stage: Stage) -> None:
    stage.open(gates=["! grep -rlI \"$(printf '\\r')\" . --exclude-dir=.git"])
    stage.commit("main", {"untouched.txt": "one\ntwo\n"})
    bead = stage.sling("Line ends", "git config core.autocrlf true; git config core.eol crlf; echo x > x.txt")
    stage.await_bead(bead, "closed")
    second = stage.sling("Another", "echo y > y.txt")
    stage.await_bead(second, "closed")
    assert set(GateResult.objects.values_list("outcome", flat=True)) == {"pass"}


def test_g9_a_sparse_checkout_of_an_agent_does_not_reach_the_gates(stage: Stage) -> None:
    stage.open(gates=["test -f README.md -a -f docs/d.txt -a -f signs.txt"])
    stage.commit("main", {"docs/d.txt": "d\n"})
    bead = stage.sling("Sparse", "git sparse-checkout set docs; echo x > docs/x.txt")
    stage.await_bead(bead, "closed")
    assert set(GateResult.objects.values_list("outcome", flat=True)) == {"pass"}


@pytest.mark.long
def test_g10_what_a_gate_hides_in_an_index_does_not_land_the_next_change(stage: Stage, walls: str) -> None:  # noqa: F811
    """The second change needs what config.json has not; the gate before it has left a stub, and hidden it."""
    hide = "git update-index --skip-worktree config.json; echo good test settings > config.json"
    stage.open(agents=False, gates=['grep -q "$(cat need)" config.json', hide], train={"window": 1})
    stage.commit("main", {"config.json": "good\n", "need": "good\n"})
    stage.commit("one", {"one": "x\n"})
    stage.await_phase(stage.submit("one"), "merged")
    stage.commit("two", {"need": "settings\n"})
    stage.await_phase(stage.submit("two"), "failed")
    assert stage.file("need") == "good"


def test_g18_gates_see_the_remotes_tags_and_what_they_change(stage: Stage, walls: str) -> None:  # noqa: F811
    gates = [
        "git describe --tags",
        'git diff --name-only "$GASTOWN_BASE"',
        "git status --porcelain --ignored",
        "git diff --name-only origin/main...HEAD",
        "echo x >> README.md; git add -A; git diff --cached --name-only",
    ]
    stage.open(agents=False, gates=gates)
    stage.git("tag", "-a", "v1.0", "-m", "v1.0", "main")
    stage.git("push", "-q", str(stage.remote), "v1.0")
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged")
    said = [result.output for result in GateResult.objects.order_by("id")]
    assert said[0].startswith("v1.0-1-g")
    assert said[1:] == ["f.txt\n", "", "f.txt\n", "README.md\n"]


def a_library(stage: Stage) -> Path:
    """A repository that `main` has as its submodule."""
    library = stage.root / "library.git"
    stage.git("init", "-q", "--bare", "-b", "main", str(library), cwd=stage.root)
    stage.git(*FILE, "clone", "-q", str(library), "library", cwd=stage.root)
    (stage.root / "library" / "lib.txt").write_text("lib\n")
    stage.git("add", "-A", cwd=stage.root / "library")
    stage.git("commit", "-q", "-m", "lib", cwd=stage.root / "library")
    stage.git("push", "-q", "origin", "HEAD:main", cwd=stage.root / "library")
    stage.git(*FILE, "submodule", "--quiet", "add", str(library), "lib")
    stage.commit("main", {"a.txt": "a\n"}, start=None)
    return library


def test_g19_gates_read_submodules_when_the_rig_says_so(stage: Stage, walls: str) -> None:  # noqa: F811
    a_library(stage)
    stage.open(agents=False, gates=["cat lib/lib.txt", "git status --porcelain"])
    settings_of_git(stage, submodules=True)
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged")
    assert list(GateResult.objects.order_by("id").values_list("output", flat=True)) == ["lib\n", ""]


def test_g19_rig_add_says_what_the_repository_has_and_which_setting_checks_it_out(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_library(stage)
    stage.commit("main", {".gitattributes": "*.bin filter=lfs -text\n"}, start=None)
    stage.open(agents=False)
    call_command("rig", "add", "second", str(stage.remote), "--json")
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["submodules"] == [{"path": "lib", "url": str(stage.root / "library.git")}]
    assert told["lfs"] == ["*.bin"]
    settings = [
        (" git.submodules = true" in f" {n}", " git.lfs = true" in f" {n}") for n in told["notes"] if "git." in n
    ]
    assert settings == [(True, False), (False, True)]
    (tmp_path / "rig.toml").write_text("[git]\nsubmodules = true\n")
    call_command("rig", "add", "third", str(stage.remote), "--config", str(tmp_path / "rig.toml"))
    assert "1 submodule (lib): checked out" in capsys.readouterr().out


def test_git_lfs_that_is_missing_is_named_before_anything_needs_it(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.open(agents=False)
    monkeypatch.setattr(lfs, "installed", lambda: False)
    (tmp_path / "rig.toml").write_text("[git]\nlfs = true\n")
    for words in (["add", "second", str(stage.remote)], ["config", "proj"]):
        with pytest.raises(SystemExit):
            call_command("rig", *words, "--config", str(tmp_path / "rig.toml"), "--json")
        assert "git-lfs is not installed" in capsys.readouterr().out


def test_a_submodule_that_an_agent_points_elsewhere_is_told_to_a_person(stage: Stage) -> None:
    library = a_library(stage)
    stage.open(agents=False, gates=["true"])
    settings_of_git(stage, submodules=True)
    stage.git("clone", "-q", "--bare", str(library), str(stage.root / "private.git"))
    stage.git("config", "-f", ".gitmodules", "submodule.lib.url", "../private.git")
    stage.git("add", "-A")
    stage.commit("feature", {"f.txt": "f\n"}, start=None)
    entry = stage.submit("feature")
    stage.until(lambda: "neither on the host" in boards.Board(stage.town).entry(entry).reason)
    assert not stage.git("ls-tree", "main", "f.txt", cwd=stage.remote)


@pytest.mark.skipif(not lfs.installed(), reason="git-lfs is not installed")
def test_g19_gates_read_the_content_of_lfs_files_when_the_rig_says_so(stage: Stage, walls: str) -> None:  # noqa: F811
    stage.git("lfs", "install", "--local")
    stage.git("config", "remote.origin.url", str(stage.remote))
    stage.commit("main", {".gitattributes": "*.big filter=lfs -text\n", "x.big": "content\n" * 1000}, start=None)
    stage.open(agents=False, gates=["head -1 x.big", "git status --porcelain"])
    settings_of_git(stage, lfs=True)
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged")
    assert list(GateResult.objects.order_by("id").values_list("output", flat=True)) == ["content\n", ""]


def test_s1_a_planted_git_directory_runs_nothing_and_lands_nothing_red(stage: Stage) -> None:
    """A gate without walls replaces `.git` by one whose filters would rewrite the next change's check."""
    mark = stage.root / "pwned"
    planted = (
        f"rm -rf .git; git init -q; git config filter.evil.smudge \"touch '{mark}'; echo exit 0\";"
        f" git config filter.evil.clean cat; git config core.fsmonitor \"touch '{mark}'\";"
        f" mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch \"{mark}\"\\n' > .git/hooks/post-checkout;"
        " chmod +x .git/hooks/post-checkout; mkdir -p .git/info; echo '*.sh filter=evil' > .git/info/attributes;"
        " echo '*.sh filter=evil' > .gitattributes; echo 'exit 0' > check.sh"
    )
    stage.open(agents=False, gates=["sh check.sh", planted], train={"window": 1})
    stage.commit("main", {"check.sh": "test ! -f red\n"})
    stage.commit("one", {"one": "x\n"})
    stage.await_phase(stage.submit("one"), "merged")
    stage.commit("two", {"red": "red\n"})
    stage.await_phase(stage.submit("two"), "failed")
    assert not mark.exists()
    assert subprocess.run(["git", "cat-file", "-e", "main:red"], cwd=stage.remote, check=False).returncode
    assert Run.objects.filter(kind="gates").count() == 2
