"""Two healthy rigs beside ten sick ones: they land as if they were alone, and each sick one shows one need."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.desk import Desk
from tests.acceptance.sick import CURABLE, REMEDY, SERVED, SICK, WELL, Ward, landed_in
from tests.acceptance.test_installation import Up, reachable, until
from tests.seed import environment, seed

EACH = 3


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """A running installation, and somebody who types."""
    home = reachable(tmp_path) / "a home"
    home.mkdir()
    seed(home)
    up = Up(home)
    until(lambda: "ready: " in up.text())
    desk = Desk(environment(home))
    made = Ward(tmp_path, desk)
    try:
        yield made
    finally:
        made.close()
        desk.leave()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(60) == 0
        print(up.text()[-4000:])


@pytest.mark.long
def test_o1_o4_g13_g21_two_healthy_rigs_land_beside_ten_sick_ones(ward: Ward) -> None:
    for name in WELL:
        ward.rig(name)
    alone = landed_in(ward, [ward.change(name) for name in WELL for _ in range(EACH)])

    waiting: dict[str, str] = {}
    for name in SICK:
        ward.rig(name, served=name in SERVED, gate="no-such-tool-anywhere" if name == "toolless" else "true")
        ward.type("rig", "park", name)
        waiting[name] = ward.change(name, author=". <> -1 +0000" if name == "odd" else "")
        ward.fall_ill(name)
    entries = [ward.change(name) for name in WELL for _ in range(EACH)]
    for name in SICK:
        ward.type("rig", "unpark", name)
    beside = landed_in(ward, entries)
    print(f"alone {alone:.1f} s, beside ten sick rigs {beside:.1f} s")
    assert beside < 1.5 * alone + 5  # the bench has the ratio; a time-out of a remote is three times as long

    def needs() -> dict[str, list[str]]:
        open_ones = ward.type("escalations", "list")
        return {name: [e["title"] for e in open_ones if re.search(rf"\b{name}\b", e["title"])] for name in SICK}

    try:
        until(lambda: all(len(found) == 1 for name, found in needs().items() if name != "odd"), 180)
    except AssertionError as error:
        raise AssertionError(json.dumps([needs(), ward.type("mq", "list")], indent=1)) from error
    assert needs()["odd"] == []  # it has landed: its author line was made clean
    rows = {row["id"]: row for row in ward.type("mq", "list", "--all")}
    assert rows[waiting["odd"]]["phase"] == "merged"
    for name in set(SICK) - {"odd"}:
        row = rows[waiting[name]]
        assert row["phase"] not in ("merged", "failed") and row["detail"], (name, row)
    bodies = [f"{e['title']}\n{e['body']}" for e in ward.type("escalations", "list")]
    for name, remedy in REMEDY.items():
        assert any(re.search(rf"\b{name}\b", body) and remedy in body for body in bodies), name
    for name in ("hole", "slow", "refusing", "keyless"):
        assert "since " in rows[waiting[name]]["detail"] and "looked at again" in rows[waiting[name]]["detail"]
    for name in CURABLE:
        ward.get_well(name)
    landed_in(ward, [waiting[name] for name in CURABLE], 150)
    until(lambda: not any(needs()[name] for name in CURABLE))  # they close with their cause
    assert all(needs()[name] for name in ("refusing", "policy", "toolless"))
