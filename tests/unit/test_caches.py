"""What gates keep: whole or not at all, a copy for each, one writer, bounds, and no way out by links."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import caches
from agents.runtime.caches import Cache


def copy(source: Path, target: Path) -> bool:
    command = ["cp", "-a", "--reflink=auto", "-T", "--", str(source), str(target)]
    return subprocess.run(command, check=False).returncode == 0


class Yard:
    """A place for caches, and worktrees at one and the same place, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root, self.tree = root / "kept", root / "tree"
        self.said: list[str] = []

    def checkout(self, **files: str) -> None:
        subprocess.run(["rm", "-rf", str(self.tree)], check=True)
        self.tree.mkdir(parents=True)
        for name, text in files.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def cache(self, change: str = "c", **step: Any) -> Cache:
        told = {"name": "unit", "run": "x", "cache": ["deps"], "cache_key": ["lock"], **step}
        return Cache(self.root, self.tree, told, change, self.said.append)

    def tried(self, text: str = "old", change: str = "c", **step: Any) -> bool:
        """A gate has passed on a change."""
        self.checkout(lock="1")
        cache = self.cache(change, **step)
        self.write("deps/x", text)
        return cache.save(copy)

    def filled(self, text: str = "old", **step: Any) -> None:
        """And the change has landed."""
        self.tried(text, **step)
        caches.promote(self.root, {"c"})


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """An empty one."""
    return Yard(tmp_path)


def restored(yard: Yard, lock: str = "1", **step: Any) -> str:
    yard.checkout(lock=lock)
    if not yard.cache(**step).restore(copy):
        return "nothing"
    return (yard.tree / "deps" / "x").read_text()


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({}, "old"),
        ({"lock": "2"}, "nothing"),
        ({"name": "other"}, "nothing"),
        ({"command": "A=1 x"}, "nothing"),
        ({"cache": ["deps", "more"]}, "nothing"),
        ({"cache_key": ["lock", "gone"]}, "nothing"),
    ],
)
def test_it_comes_back_for_the_same_gate_and_key_only(yard: Yard, other: dict[str, Any], found: str) -> None:
    yard.filled()
    assert restored(yard, **other) == found


def test_it_never_comes_back_in_another_place(yard: Yard, tmp_path: Path) -> None:
    """It may hold absolute paths, as a virtual environment's scripts do."""
    yard.filled()
    yard.tree = tmp_path / "another"
    assert restored(yard) == "nothing"


def test_what_a_change_leaves_serves_nobody_until_it_has_landed(yard: Yard) -> None:
    assert yard.tried("not accepted", "refused")
    assert restored(yard) == restored(yard, change="refused") == "nothing"
    assert not yard.tried("another", "other")  # one at a time is on trial
    assert yard.tried("not accepted, again", "refused")
    assert caches.promote(yard.root, {"other", "c"}) == 0
    assert restored(yard) == "nothing"
    assert caches.promote(yard.root, {"refused"}) == 1
    assert restored(yard) == "not accepted, again"
    assert not yard.tried("late", "other")


def test_a_change_that_does_not_land_keeps_others_from_trying_for_an_hour_only(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.tried("refused", "refused")
    monkeypatch.setattr(caches, "TRIAL_SECONDS", 0.0)
    assert yard.tried("good", "good")
    assert caches.promote(yard.root, {"refused"}) == 0
    assert caches.promote(yard.root, {"good"}) == 1
    assert restored(yard) == "good"
    assert len(list(yard.cache().place.glob("*.lock"))) == 1


def test_nobody_sees_another_ones_writes(yard: Yard) -> None:
    yard.filled()
    assert restored(yard) == "old"
    yard.write("deps/x", "scribbled")
    yard.write("deps/new", "scribbled")
    assert restored(yard) == "old"
    assert not (yard.tree / "deps" / "new").exists()


def test_with_a_key_the_first_counts_and_without_one_the_last(yard: Yard) -> None:
    yard.filled("first")
    yard.filled("second")
    assert restored(yard) == "first"
    yard.filled("first", cache_key=[])
    yard.filled("second", cache_key=[])
    assert restored(yard, cache_key=[]) == "second"
    assert len(caches._versions(yard.cache(cache_key=[]).place)) == 1


def test_what_is_in_the_worktree_already_is_left_as_it_is(yard: Yard) -> None:
    yard.filled()
    yard.checkout(lock="1")
    yard.write("deps/mine", "mine")
    yard.cache().restore(copy)
    assert os.listdir(yard.tree / "deps") == ["mine"]
    assert "left as it is" in yard.said[0]


def test_links_are_kept_as_links_and_never_followed(yard: Yard, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("secret")
    yard.checkout(lock="1")
    (yard.tree / "deps").symlink_to(outside)
    assert not yard.cache().save(copy)
    (yard.tree / "a").symlink_to(outside)
    assert not yard.cache(cache=["a/x"]).save(copy)
    (yard.tree / "deps").unlink()
    (yard.tree / "deps").mkdir()
    (yard.tree / "deps" / "link").symlink_to(outside)
    assert yard.cache().save(copy)
    assert not [p for p in yard.root.rglob("*") if p.is_file() and p.read_text() == "secret"]
    yard.checkout(lock="1")
    (yard.tree / "deps").symlink_to(outside)  # as the candidate has it
    yard.cache().restore(copy)
    assert sorted(os.listdir(outside)) == ["x"]
    yard.filled(cache=["b/deps", "deps"])
    yard.checkout(lock="1")
    (yard.tree / "b").symlink_to(outside)
    yard.cache(cache=["b/deps", "deps"]).restore(copy)
    assert sorted(os.listdir(outside)) == ["x"]


def test_a_key_file_that_is_a_link_is_not_read(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    yard.filled()
    yard.checkout()
    (yard.tree / "lock").symlink_to(tmp_path / "lock")
    assert not yard.cache().restore(copy)


def test_a_copy_that_fails_leaves_nothing_half(yard: Yard) -> None:
    def broken(source: Path, target: Path) -> bool:
        target.mkdir()
        (target / "half").write_text("half")
        return False

    yard.checkout(lock="1")
    yard.write("deps/x", "old")
    assert not yard.cache().save(broken)
    assert restored(yard) == "nothing"
    yard.filled()
    yard.checkout(lock="1")
    assert not yard.cache().restore(broken)
    assert not (yard.tree / "deps").exists()


def test_a_saver_that_was_killed_is_forgotten(yard: Yard) -> None:
    yard.checkout(lock="1")
    place = yard.cache().place
    (place / "new-1" / "0").mkdir(parents=True)
    assert restored(yard) == "nothing"
    yard.filled()
    assert restored(yard) == "old" and not list(place.glob("new-*"))


def test_one_saves_at_a_time_and_what_is_being_copied_stays(yard: Yard) -> None:
    yard.filled("old", cache_key=[])
    place = yard.cache(cache_key=[]).place
    with (place / "saving").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        yard.filled("new", cache_key=[])
        assert restored(yard, cache_key=[]) == "old"
    (number,) = caches._versions(place)
    with (place / f"{number}.lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        yard.filled("new", cache_key=[])
        assert (place / str(number) / "0" / "x").read_text() == "old"
        assert caches.prune(yard.root, time.time() + 10) == 0
    assert restored(yard, cache_key=[]) == "new"


def test_they_are_bounded_in_number_size_and_age(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "KEPT_PER_GATE", 3)
    for key in range(5):
        yard.checkout(lock=str(key))
        cache = yard.cache()
        yard.write("deps/x", str(key))
        assert cache.save(copy)
        caches.promote(yard.root, {"c"})
        os.utime(cache.place, (1000 + key, 1000 + key))
    assert [restored(yard, lock=str(n)) for n in range(5)] == ["nothing", "nothing", "2", "3", "4"]
    gate = yard.cache().place.parent
    for key, place in enumerate(sorted(gate.iterdir())):
        os.utime(place, (1000 + key, 1000 + key))
    assert caches.prune(yard.root, 1001) == 1
    assert caches.prune(yard.root, 0, most=1) == 2
    assert not gate.exists()
    monkeypatch.setattr(caches, "MOST_BYTES", 100)
    yard.filled("x" * 5000)
    assert restored(yard) == "nothing" and "too much to be kept" in yard.said[-1]
