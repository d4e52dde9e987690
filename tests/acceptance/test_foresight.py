"""Stacks, dependencies across rigs and foreseen conflicts over real remotes; see test_trains for the incident rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beads import ledger
from beads.models import Bead, Effect, Rig
from refinery.decisions import merge_queue, towns
from refinery.models import Forecast, GateResult, ReviewEntry, Stack
from refinery.pages import boards
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.railway import Train


@pytest.fixture
def train(stage: Stage) -> Iterator[Train]:
    """The usual train."""
    made = Train(stage)
    yield made
    made.incident()


def test_a_stack_submitted_upside_down_lands_bottom_up_also_where_both_touch_the_same_line(train: Train) -> None:
    stage = train.stage
    low = stage.commit("low", {"signs.txt": "one\nTWO\nthree\n"})
    high = stage.commit("high", {"signs.txt": "one\nTWO!\nthree\n"}, start="low")
    upper = merge_queue.submit(stage.rig, merge_queue.Submission("high", priority=0), by=WHO)[0]
    lower = merge_queue.submit(stage.rig, merge_queue.Submission("low", priority=4), by=WHO)[0]
    stage.until(lambda: Stack.objects.filter(upper=high, lower=low).exists())
    train.gating(lower, upper)
    assert train.base(upper) == train.sha(lower)
    row = boards.entry_data(boards.Board(stage.town), train.now(upper))
    assert row["stands_on"] == [lower.pk]
    train.say(upper, 0)
    assert stage.sha() == train.begin
    train.say(lower, 0)
    train.merged(lower, upper)
    assert stage.log()[:2] == ["Change signs.txt"] * 2
    assert stage.file("signs.txt").splitlines()[1] == "TWO!"
    trees = stage.git("log", "--first-parent", "--format=%T", "-2", "main", cwd=stage.remote).split()
    assert set(trees) <= set(GateResult.objects.filter(outcome="pass").values_list("tree_sha", flat=True))


def test_the_lower_of_a_stack_fails_and_takes_the_upper_with_it_until_a_person_says_otherwise(stage: Stage) -> None:
    train = Train(stage)  # two commits land as one here, which the incident rule does not know
    stage.commit("low", {"low.txt": "l\n"})
    stage.commit("high", {"high.txt": "h\n"}, start="low")
    lower, upper = stage.submit("low"), stage.submit("high")
    train.gating(lower, upper)
    train.say(lower, 1)
    stage.await_phase(lower, "failed")
    left = stage.await_phase(upper, "failed")
    assert (left.reason, lower.pk in left.reason_text) == ("stacked_on_failed", True)
    merge_queue.retry_entry(left, by=WHO)
    train.say(upper, 0)
    train.merged(upper)
    assert stage.file("low.txt") == "l"


def test_a_foreseen_conflict_is_shown_and_the_second_is_not_built_while_the_first_is_in_the_train(train: Train) -> None:
    stage = train.stage
    first = train.submit("first")[0]
    train.gating(first)
    merge_queue.freeze(stage.rig, by=WHO, reason="so that git is asked before anybody is admitted")
    stage.commit("rival", {"first.txt": "mine\n"})
    rival = stage.submit("rival")
    other = train.submit("other")[0]
    heads = {first.head_sha, rival.head_sha, other.head_sha}
    stage.until(lambda: set(Forecast.objects.get().heads) == heads)
    merge_queue.thaw(stage.rig, by=WHO)
    train.gating(other)
    assert train.base(other) == train.sha(first)
    row = boards.entry_data(boards.Board(stage.town), train.now(rival))
    assert row["conflicts_with"] == [{"id": first.pk, "files": ["first.txt"]}]
    assert f"would conflict with {first.pk}" in row["detail"]
    assert train.now(rival).build_no == 0
    train.say(other, 0)
    train.say(first, 0)
    train.merged(first, other)
    assert stage.await_phase(rival, "failed").reason == "conflict"  # nobody is there to resolve it
    asked = Effect.objects.filter(kind="foresee").count()
    for _ in range(3):
        stage.step()
    assert Effect.objects.filter(kind="foresee").count() == asked


@pytest.mark.long
@pytest.mark.parametrize("when", ["landing", "both"])
def test_rivals_are_resolved_one_after_the_other_and_each_only_once(stage: Stage, when: str) -> None:
    stage.open(gates=[{"name": "signs", "run": "test -s signs.txt", "when": when}])
    names = ["north", "south", "west", "east", "up"]
    for name in names:
        stage.commit(name, {"signs.txt": f"one\nsign {name}\nthree\n"})
    entries = [stage.submit(name) for name in names]
    for entry in entries:
        stage.await_phase(entry, "merged")
    assert {f"sign {name}" for name in names} <= set(stage.file("signs.txt").splitlines())
    assert Bead.objects.filter(purpose="conflict").count() == len(names) - 1


def test_a_change_waits_for_the_one_in_another_repository_that_it_comes_after(stage: Stage) -> None:
    train = Train(stage)  # the incident rule knows one repository
    stage.git("clone", "-q", "--bare", str(stage.remote), str(stage.root / "api.git"))
    towns.add_rig("main", "api", str(stage.root / "api.git"), None, {})
    api = Rig.objects.select_related("town").get(slug="api")
    schema = ledger.create_bead(stage.town, api, ledger.Draft("Schema"), actor=str(WHO))
    client = stage.sling("Client", "", schema)
    stage.commit("schema", {"schema.txt": "s\n"})
    stage.git("push", "-q", str(stage.root / "api.git"), "HEAD:refs/heads/schema")
    stage.commit("client", {"client.txt": "c\n"})
    waits = stage.submit("client", bead=client)
    stage.step()
    assert stage.phase(waits) == "blocked"
    comes_first = merge_queue.submit(api, merge_queue.Submission("schema", bead=schema), by=WHO)[0]
    train.gating(comes_first)
    assert ReviewEntry.objects.get(pk=waits.pk).build_no == 0
    train.say(comes_first, 0)
    train.merged(comes_first)
    train.say(waits, 0)
    train.merged(waits)
