"""O2, O5, O13: what dies, hangs or comes second under a running `up`, with real processes and real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_installation import PARTS, ROOT, Up, fresh, home, manage, postmasters, until, up
from tests.ports import free_port
from tests.seed import environment

__all__ = ["fresh", "home", "up"]


def ready(up: Up) -> tuple[int, dict[str, Any]]:
    """What `/readyz` answers to a scraper."""
    token = (up.home / "keys" / "metrics_token").read_text().strip()
    asked = urllib.request.Request(f"http://127.0.0.1:{up.port}/readyz", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)
    except OSError:
        return 0, {}


def is_ready(up: Up) -> bool:
    return ready(up)[0] == 200


# -- O2 -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_o2_a_killed_postgresql_is_started_again_and_all_parts_go_on(up: Up) -> None:
    until(lambda: is_ready(up))
    parts = up.parts()
    (server,) = postmasters(up.home)
    os.kill(server, signal.SIGKILL)
    typed = manage(up.home, "town", "create", "main")  # meanwhile
    assert typed.returncode == 0, typed.stderr
    (again,) = until(lambda: [pid for pid in postmasters(up.home) if pid != server])
    until(lambda: is_ready(up))
    assert up.parts() == parts, up.text()
    assert postmasters(up.home) == [again]
    os.kill(again, signal.SIGKILL)  # and nobody types
    until(lambda: up.text().count("database has ended: starting it again") >= 1 and is_ready(up))
    assert up.parts() == parts, up.text()
    assert len(postmasters(up.home)) == 1


@pytest.mark.long
def test_o2_a_postgresql_that_does_not_start_is_said_once_and_tried_until_it_does(up: Up) -> None:
    until(lambda: is_ready(up))
    parts = up.parts()
    config = up.home / "pg" / "data" / "postgresql.conf"
    good = config.read_text()
    config.write_text(f"{good}\nno_such_setting = 1\n")
    log = up.home / "pg" / "server.log"
    (server,) = postmasters(up.home)
    os.kill(server, signal.SIGKILL)
    until(lambda: log.read_text().count("contains errors") >= 3)
    assert up.text().count("database is down: ") == 1, up.text()
    typed = manage(up.home, "town", "list")
    assert typed.returncode == 1 and typed.stderr.count("\n") == 1 and "does not start" in typed.stderr
    status, told = ready(up)
    assert status == 503 and "database" in told["data"] and [r["part"] for r in told["reasons"]] == ["database"]
    config.write_text(good)
    until(lambda: "started database" in up.text() and is_ready(up), 120)
    assert up.parts() == parts, up.text()


@pytest.mark.long
def test_o2_a_postgresql_that_was_stopped_by_a_signal_goes_on(up: Up) -> None:
    (server,) = postmasters(up.home)
    os.kill(server, signal.SIGSTOP)
    until(lambda: "telling it to go on" in up.text())
    until(lambda: is_ready(up))
    assert postmasters(up.home) == [server]


# -- O5 -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_o5_every_part_that_is_stopped_is_killed_and_started_again(up: Up) -> None:
    until(lambda: is_ready(up))
    before = until(lambda: found if set(found := up.parts()) == set(PARTS) else None)
    for pid in before.values():
        os.kill(pid, signal.SIGSTOP)
    until(lambda: set(now := up.parts()) == set(PARTS) and not set(now.values()) & set(before.values()), 120)
    assert all(f"{part} was stopped by a signal" in up.text() for part in PARTS), up.text()
    until(lambda: is_ready(up))


HANGING = """
import socket, sys, time
import django
django.setup()
from beads import ops
from gastown_site import database
from gastown_site.parts import supervisor, watch
database.ensure_running()
database.ensure_migrated()
port = int(sys.argv[1])

def deaf():
    with socket.create_server(("127.0.0.1", port)):
        time.sleep(600)

def mute():
    ops.beat("mute")
    time.sleep(600)

def lively():
    while True:
        ops.beat("lively")
        time.sleep(0.2)

watch.LOOK_SECONDS, supervisor.ANSWER_SECONDS = 0.5, 4.0
made = [supervisor.Part("web", deaf), supervisor.Part("mute", mute), supervisor.Part("lively", lively)]
town = supervisor.Supervisor(made, f"http://127.0.0.1:{port}", lambda line: print(line, flush=True))
town.ready = True
town.watch = watch.Watch([watch.Watched(name, name, 10) for name in ("web", "mute", "lively")])
town.run()
database.stop()
"""


@pytest.fixture
def hanging(home: Path, tmp_path: Path) -> Iterator[Path]:
    """What a supervisor of parts that run, and do nothing, says."""
    env = environment(home, DJANGO_SETTINGS_MODULE="gastown_site.settings")
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen([sys.executable, "-c", HANGING, str(free_port())], env=env, cwd=ROOT, stdout=out)
    try:
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow  # patience is a minute
def test_o5_a_part_that_runs_and_shows_no_sign_of_life_is_killed_and_one_that_does_is_not(hanging: Path) -> None:
    until(lambda: "mute hangs" in hanging.read_text() and "web hangs" in hanging.read_text(), 120)
    until(lambda: all(hanging.read_text().count(f"started {part}") >= 2 for part in ("mute", "web")))
    assert hanging.read_text().count("started lively") == 1


# -- O13 ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_o13_a_second_up_on_one_home_is_refused(up: Up) -> None:
    done = manage(up.home, "up", "--port", str(free_port()))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"process {up.process.pid}" in done.stderr and "stop that one first" in done.stderr
    assert is_ready(up)


@pytest.fixture
def outside(home: Path) -> Iterator[dict[str, Any]]:
    """A database of nobody's: `DATABASE_URL` for installations on other homes."""
    code = (
        "import sys; from gastown_site import database; database.ensure_running(); print(database.url(), flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    holder = subprocess.Popen(
        command, env=environment(home), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        yield {"DATABASE_URL": holder.stdout.readline().strip()}
    finally:
        holder.communicate()


@pytest.mark.long
def test_o13_one_installation_works_on_a_database_and_a_dead_one_is_not_in_the_way(
    outside: dict[str, Any], tmp_path: Path
) -> None:
    first = Up(tmp_path / "first", **outside)
    second: Up | None = None
    try:
        first.ready()
        for words in (("up", "--port", str(free_port())), ("runner",)):
            refused = manage(tmp_path / "second", *words, **outside)
            assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stdout + refused.stderr
            for told in (str(first.home), socket.gethostname(), "since", "DATABASE_URL"):
                assert told in refused.stderr
        assert manage(tmp_path / "second", "town", "list", **outside).returncode == 0  # to type is allowed
        first.process.send_signal(signal.SIGSTOP)  # as good as dead
        second = Up(tmp_path / "second", **outside).ready()
        assert "looking whether it still is" in second.text()
        first.process.send_signal(signal.SIGCONT)  # and is not dead
        assert first.process.wait(60) == 1
        assert f"home {second.home} works on this database since" in first.text()
        assert is_ready(second)
    finally:
        for one in (first, second):
            if one is not None and one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
                one.process.send_signal(signal.SIGTERM)
                one.process.wait(60)


@pytest.mark.long
def test_o11_a_half_migrated_external_database_is_told_in_words_that_can_be_typed(
    outside: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "another"
    before_last = sorted((ROOT / "beads" / "migrations").glob("0*.py"))[-2].stem
    assert manage(home, "migrate", "beads", before_last, "-v", "0", **outside).returncode == 0
    refused = manage(home, "up", "--port", str(free_port()), **outside)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    checked = manage(home, "doctor", **outside)
    assert checked.returncode == 1, checked.stderr
    for said in (refused.stderr, checked.stdout):
        assert "then run: gastown migrate" in said and "manage.py" not in said
    assert manage(home, "migrate", "-v", "0", **outside).returncode == 0
    assert manage(home, "town", "list", **outside).returncode == 0
