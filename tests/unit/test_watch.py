"""O5: who hangs, told by changes of signs on one clock; and who is only busy."""

from __future__ import annotations

from gastown_site.parts.watch import GAP_SECONDS, LOOK_SECONDS, STOPPED_SECONDS, Process, Watch, Watched

PARTS = (Watched("web", "web", 45), Watched("cluster", "cluster", 60), Watched("reconciler", "reconciler", 45))
ALIVE = ("web", "cluster", "reconciler")


class Town:
    """Parts that show signs, or do not, on a clock of ours."""

    def __init__(self) -> None:
        self.watch = Watch(PARTS)
        self.now = 1000.0
        self.started = dict.fromkeys(ALIVE, 990.0)
        self.groups: dict[str, list[Process]] = {}
        self.signs: dict[str, str] = dict.fromkeys(ALIVE, "")

    def go(self, seconds: float, *, silent: tuple[str, ...] = (), away: bool = False) -> dict[str, float]:
        """So many seconds of looks. Who was to be killed → after how many seconds first."""
        found: dict[str, float] = {}
        began = self.now
        while self.now < began + seconds:
            self.now += LOOK_SECONDS
            if away:
                self.watch.lost()
                continue
            self.signs |= {name: str(self.now) for name in ALIVE if name not in silent}
            self.watch.see(self.signs, self.groups, self.started, self.now)
            for name in self.watch.hung(self.now):
                found.setdefault(name, self.now - began)
        return found


def group(*titles: str, state: str = "S", ticks: int = 0) -> list[Process]:
    return [Process(number, state, 1, 10, ticks, title) for number, title in enumerate(titles, 10)]


def test_o5_who_shows_no_sign_hangs_within_about_a_minute_and_nobody_else() -> None:
    town = Town()
    assert town.go(300) == {}
    assert town.go(70, silent=("reconciler",)) == {"reconciler": 50.0}
    assert town.watch.hung(town.now) == {"reconciler": "hangs (70 s without a sign of life)"}
    assert town.go(300) == {}


def test_o5_a_tick_of_half_a_minute_is_no_hang() -> None:
    town = Town()
    assert town.go(20) == town.go(30, silent=("reconciler",)) == town.go(20) == {}


def test_o5_a_part_that_was_started_anew_has_its_whole_limit() -> None:
    town = Town()
    town.go(20)
    town.go(40, silent=("reconciler",))
    town.started["reconciler"] = town.now
    assert town.go(40, silent=("reconciler",)) == {}
    assert town.go(20, silent=("reconciler",)) == {"reconciler": 15.0}


def test_o5_nobody_is_judged_while_the_database_is_away_nor_right_after() -> None:
    town = Town()
    town.go(20)
    assert town.go(600, away=True) == {}
    assert town.go(40, silent=ALIVE) == {}
    assert set(town.go(30, silent=ALIVE)) == set(ALIVE)


def test_o5_a_machine_that_slept_condemns_nobody() -> None:
    town = Town()
    town.go(20)
    town.now += 8 * 3600 + GAP_SECONDS
    assert town.go(40, silent=ALIVE) == {}


def test_o5_who_uses_the_processor_has_five_times_as_long() -> None:
    town = Town()
    town.go(20)
    ticks = 0
    for _ in range(40):  # 200 s
        ticks += 100
        town.groups["reconciler"] = group("gastown reconciler", ticks=ticks)
        assert town.go(5, silent=("reconciler",)) == {}
    for _ in range(10):
        ticks += 100
        town.groups["reconciler"] = group("gastown reconciler", ticks=ticks)
        if town.go(5, silent=("reconciler",)):
            return
    raise AssertionError("a loop that goes round for ever is never killed")


def test_o5_a_cluster_all_of_whose_workers_have_a_task_is_busy_however_long_that_takes() -> None:
    town = Town()
    at_work = "qcluster Process-1 processing gt 'refinery.tasks.collect'"
    town.groups["cluster"] = group("qcluster cluster x", at_work, at_work, "qcluster Process-3 pusher")
    assert town.go(1400, silent=("cluster",)) == {}
    town.groups["cluster"] = group("qcluster cluster x", at_work, "qcluster Process-2 idle")
    assert set(town.go(70, silent=("cluster",))) == {"cluster"}


def test_o5_a_process_that_was_stopped_is_seen_though_the_others_go_on() -> None:
    town = Town()
    town.go(20)
    town.groups["cluster"] = group("qcluster cluster x", "qcluster Process-1 idle", state="T")
    found = town.go(60)
    assert set(found) == {"cluster"} and found["cluster"] <= STOPPED_SECONDS + 2 * LOOK_SECONDS
