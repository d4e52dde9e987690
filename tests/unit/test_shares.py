"""Who of the outside work is begun next: everybody has a share, and an outage is met once."""

from __future__ import annotations

import datetime as dt

from refinery.executor.shares import KEPT, PER_HOST, PER_RIG, PLACES, Job, Shares, Trouble

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=30)


def jobs(rig: int, count: int, host: str = "", first: int = 0) -> list[Job]:
    """Effects of one rig."""
    return [Job(rig * 100 + first + n, f"rig:{rig}", host) for n in range(1, count + 1)]


def test_o1_ten_silent_remotes_leave_room_for_the_healthy_one() -> None:
    silent = [job for rig in range(1, 11) for job in jobs(rig, 5)]
    shares = Shares(good={"rig:77"})
    shares.running = shares.choose(silent, {}, NOW)
    assert len(shares.running) == 10  # one each, for none has answered yet
    assert [j.share for j in shares.choose([*silent, *jobs(77, 3)], {}, NOW)] == ["rig:77"] * PER_RIG


def test_o1_however_many_are_silent_places_are_kept_for_who_answers() -> None:
    silent = [job for rig in range(1, 60) for job in jobs(rig, 1)]
    shares = Shares(good={"rig:77"})
    shares.running = shares.choose(silent, {}, NOW)
    assert len(shares.running) == PLACES - KEPT
    assert shares.choose(jobs(77, 9), {}, NOW) == jobs(77, PER_RIG)


def test_a_rig_that_has_answered_has_two_places_and_a_new_one_has_one() -> None:
    shares = Shares(good={"rig:1"})
    assert [j.share for j in shares.choose([*jobs(1, 4), *jobs(2, 4)], {}, NOW)] == ["rig:1", "rig:1", "rig:2"]


def test_rigs_of_one_host_have_its_share_together() -> None:
    host = "host:git.example.org:443"
    many = [job for rig in range(1, 20) for job in jobs(rig, 2, host)]
    chosen = Shares().choose([*many, *jobs(50, 1, "host:other.example.org:22")], {}, NOW)
    assert sum(j.host == host for j in chosen) == PER_HOST
    assert chosen[-1].share == "rig:50"


def test_while_an_outage_lasts_nothing_is_begun_and_when_due_one_look() -> None:
    host = "host:git.example.org:443"
    look = Job(0, "rig:1", host)
    work = [*jobs(1, 3, host), *jobs(2, 3, host), *jobs(3, 1)]
    assert Shares().choose(work, {host: Trouble(LATER, look)}, NOW) == jobs(3, 1)
    assert Shares().choose(work, {host: Trouble(NOW, look)}, NOW) == [look, *jobs(3, 1)]
    assert Shares(running=[look]).choose(work, {host: Trouble(NOW, look)}, NOW) == jobs(3, 1)


def test_what_a_look_does_not_show_is_shown_by_one_piece_of_work() -> None:
    trouble = {"rig:1": Trouble(NOW, Job(0, "rig:1"), at_work=True)}
    assert Shares(good={"rig:1"}).choose(jobs(1, 3), trouble, NOW) == jobs(1, 1)
    assert Shares(good={"rig:1"}, running=jobs(1, 1)).choose(jobs(1, 3, first=1), trouble, NOW) == []
    waits = {"rig:1": Trouble(LATER, Job(0, "rig:1"), at_work=True)}
    assert Shares().choose(jobs(1, 3), waits, NOW) == []


def test_with_no_work_to_show_it_the_remote_is_looked_at_all_the_same() -> None:
    look = Job(0, "rig:1")
    assert Shares().choose(jobs(2, 1), {"rig:1": Trouble(NOW, look, at_work=True)}, NOW) == [look, *jobs(2, 1)]


def test_notices_of_a_town_have_a_share_of_their_own() -> None:
    hanging = [Job(n, "town:1") for n in range(1, 9)]
    assert [j.effect for j in Shares().choose([*hanging, *jobs(4, 1)], {}, NOW)] == [1, 401]
