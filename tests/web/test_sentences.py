"""One sentence for each subject: `tick --explain`, its page, its command and its console page say the same.

Each stage is reached by real facts. What is looked at is also the moment after facts are taken in and before the plan
is carried out, for many stages last no longer.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from agents import runs
from agents.models import Run
from beads import config as configs
from beads import inbox, ledger, outages, room
from beads.actors import Actor
from beads.models import Bead
from refinery import facts
from refinery.core.readiness import convoy_phase
from refinery.core.rules import Decision
from refinery.core.stages import Stage
from refinery.core.standing import stands
from refinery.core.world import World
from refinery.decisions import gatechecks, merge_queue, reviews, work
from refinery.models import Candidate, Landing, ReviewEntry
from refinery.tick import reconciler, snapshot
from tests.db.conftest import SHA, Place

WHO = Actor("test", "alice")
FIRST, SECOND, THIRD = SHA["a"], SHA["d"], SHA["e"]
FAILED = {"exit_code": 1, "signal": None, "timed_out": False}
Make = Callable[..., Place]


@pytest.fixture
def make(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the usual town. From then on its clock is everybody's: sentences tell of moments."""

    def made(**refinery: Any) -> Place:
        place = Place(**refinery)

        class Clock(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
                return place.now

        monkeypatch.setattr(timezone, "datetime", Clock)  # defaults of columns hold `timezone.now` itself
        return place

    yield made


# -- what is said, and where ----------------------------------------------------------------------------------------


def text(fragment: str) -> str:
    """HTML as it is read."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", fragment)).split())


def flat(sentence: str) -> str:
    """A sentence as a page can show it."""
    return " ".join(sentence.split())


class Reader:
    """Somebody who reads pages, commands and the console."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def page(self, path: str) -> str:
        """A page's HTML."""
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.content.decode()

    def lead(self, path: str, mark: str = 'id="lead"') -> str:
        """The paragraph of a page that says how its subject stands."""
        found = re.search(rf"<p[^>]*{mark}[^>]*>(.*?)</p>", self.page(path), re.DOTALL)
        assert found is not None, path
        return text(found[1])

    def console(self, model: str, key: str) -> list[str]:
        """What a change page of the console says, a line for each sentence."""
        found = re.search(r'<ol class="gt-why">(.*?)</ol>', self.page(f"/admin/{model}/{key}/change/"), re.DOTALL)
        assert found is not None, key
        return [text(line) for line in re.findall(r"<li>(.*?)</li>", found[1], re.DOTALL)]

    def command(self, *words: str) -> dict[str, Any]:
        """A command's data."""
        out = StringIO()
        call_command(*words, "--json", stdout=out)
        data: dict[str, Any] = json.loads(out.getvalue())["data"]
        return data


_SUBJECTS = {  # kind → page, where on it, command, its key there, console
    "bead": ("/beads/{}/", 'id="lead"', ("bead", "show"), "reason", "beads/bead"),
    "entry": ("/reviews/{}/", 'class="rv-why"', ("mq", "show"), "detail", "refinery/reviewentry"),
    "convoy": ("/convoys/{}/", 'id="lead"', ("convoy", "status"), "reason", "beads/convoy"),
    "run": ("/runs/{}/", 'id="lead"', ("runs", "show"), "reason", "agents/run"),
}


def said(place: Place) -> dict[str, Decision]:
    """What the plan says, by subject."""
    return {d.subject: d for d in reconciler.explain(place.town, place.now)}


def agree(place: Place, reader: Reader, *only: str) -> dict[str, Decision]:
    """Everybody says of each subject (or of these ones) what the plan says."""
    told = said(place)
    for subject in only or told:
        decision = told[subject]
        kind, _, key = subject.partition(" ")
        why = flat(decision.why)
        if kind in _SUBJECTS:
            path, mark, words, name, model = _SUBJECTS[kind]
            shown = reader.lead(path.format(key), mark)
            assert shown == why or (kind == "convoy" and shown.startswith(f"{why}. Lands")), subject
            assert flat(reader.command(*words, key)[name]) == why, subject
            assert reader.console(model, key)[0] == f"{subject}: {why} {decision.rule}", subject
        elif kind == "lane":
            name = key.replace(" ", "-")
            for path in ("/queue/?town=main", "/towns/main/"):
                lane = re.search(rf'<section id="lane-{name}">(.*?)</section>', reader.page(path), re.DOTALL)
                assert lane is not None and why in text(lane[1]), (path, subject)
            assert why in text(reader.page("/admin/")), subject
        elif kind not in ("forecast", "agent"):  # these two only the plan itself speaks of
            assert f"{why}." in text(reader.page("/towns/main/")), subject
            some = Bead.objects.filter(type="issue").first()
            if some is not None:
                assert f"{subject}: {why} {decision.rule}" in reader.console("beads/bead", some.pk), subject
    return told


@pytest.fixture
def reader(operator: Client) -> Reader:
    """Sees everything."""
    return Reader(operator)


# -- how each stage comes about -------------------------------------------------------------------------------------


def hear(place: Place) -> None:
    """Take in the facts there are, and decide nothing yet."""
    inbox.drain(place.town, place.now, lambda fact: facts.take(fact, place.now))


def tick(place: Place) -> None:
    """One tick, and no more."""
    place.later(seconds=0.001)
    reconciler.tick(place.town, place.now)


def answer(place: Place, entry: ReviewEntry, result: str, on: Candidate | None = None, **more: Any) -> None:
    """The answer to its present build, which no tick has taken in yet."""
    entry.refresh_from_db()
    told = {"build_no": entry.build_no, "result": result, "head": entry.head_sha or SHA["b"]}
    told["base"] = on.sha if on else SHA["b"]
    inbox.record(place.town, "candidate.built", entry.pk, told | {"on": on.pk if on else None} | more)


def built(place: Place, entry: ReviewEntry, on: Candidate | None = None) -> Candidate:
    """Its build succeeds, and gives a tree of its own."""
    entry.refresh_from_db()
    mark = f"{entry.branch}{entry.build_no}".encode().hex().ljust(40, "0")
    answer(place, entry, "built", on, sha=mark, tree=mark)
    place.tick()
    return Candidate.objects.get(sha=mark)


def gates_end(place: Place, entry: ReviewEntry, code: int) -> None:
    """Its gates end; what follows from it is not decided yet."""
    run, _ = place.running(kind="gates", bead=entry.pk)
    steps = [{"name": "true", "outcome_raw": FAILED | {"exit_code": code}, "output": ""}]
    place.exit(run, code, steps=steps)
    hear(place)


def in_lane(place: Place, branch: str = "feature", head: str = FIRST) -> ReviewEntry:
    """A change that is admitted."""
    entry = place.entry(branch, head)
    place.tick()
    return entry


def green(place: Place) -> ReviewEntry:
    """A change whose gates have passed."""
    entry = in_lane(place)
    place.built(entry)
    place.gated()
    return entry


def blocked(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    entry = in_lane(place)
    place.built(entry)
    place.gated(1)
    return place, entry


def behind(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(train={"window": 1})
    place.foresees = False
    in_lane(place, "first", THIRD)
    place.entry("low", FIRST)
    place.later(seconds=1)
    high = place.entry("high", SECOND)
    place.tick()
    place.foreseen(stacks=[(SECOND, FIRST)])
    place.tick()
    return place, high


def held(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    entry = in_lane(place)
    answer(place, entry, "error", error="no space left")
    place.tick()
    return place, entry


def unproven(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(gates=[{"name": "true", "run": "true", "when": "both"}])
    return place, in_lane(place)


def unbuilt(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(train={"window": 1})
    in_lane(place, "first")
    return place, in_lane(place, "second", SECOND)


def building(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    return place, in_lane(place)


def coupling(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    in_lane(place, "first")
    return place, in_lane(place, "second", SECOND)


def two_cars(make: Make, **refinery: Any) -> tuple[Place, ReviewEntry, ReviewEntry]:
    """Two changes, the second built on the first, the gates of both under way."""
    place = make(**refinery)
    place.vouch()
    first = in_lane(place, "first")
    second = in_lane(place, "second", SECOND)
    built(place, second, built(place, first))
    return place, first, second


def stale(make: Make) -> tuple[Place, ReviewEntry]:
    place, first, second = two_cars(make)
    gates_end(place, first, 1)
    return place, second


def unsettled(make: Make) -> tuple[Place, ReviewEntry]:
    place, _, second = two_cars(make)
    gates_end(place, second, 1)
    return place, second


def green_behind(make: Make) -> tuple[Place, ReviewEntry]:
    place, _, second = two_cars(make)
    gates_end(place, second, 0)
    place.tick()
    return place, second


def batched(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(batch={"max": 2, "size": 2})
    first = place.entry("first", FIRST)
    place.later(seconds=1)
    second = place.entry("second", SECOND)
    place.tick()
    built(place, second, built(place, first))
    return place, first


def answered(result: str, **more: Any) -> Callable[[Make], tuple[Place, ReviewEntry]]:
    """A change whose build has just been answered so."""

    def it(make: Make) -> tuple[Place, ReviewEntry]:
        place = make()
        entry = in_lane(place)
        answer(place, entry, result, **more)
        hear(place)
        return place, entry

    return it


def gating(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    entry = in_lane(place)
    place.built(entry)
    return place, entry


def gates(code: int, **refinery: Any) -> Callable[[Make], tuple[Place, ReviewEntry]]:
    """A change whose gates have just ended so, and pass on the target."""

    def it(make: Make) -> tuple[Place, ReviewEntry]:
        place = make(**refinery)
        place.vouch()
        entry = in_lane(place)
        place.built(entry)
        gates_end(place, entry, code)
        return place, entry

    return it


def triage(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = gates(1, triage="auto")(make)
    place.tick()
    return place, entry


def checking(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    entry = in_lane(place)
    place.built(entry)
    gates_end(place, entry, 1)
    place.tick()
    return place, entry


def excused(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = checking(make)
    check = ReviewEntry.objects.get(kind="check")
    answer(place, check, "built", sha=SHA["b"], tree=SHA["9"])
    place.tick()
    gates_end(place, check, 1)
    place.tick()
    return place, entry


def changes_requested(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = gating(make)
    reviews.request_changes(ReviewEntry.objects.get(pk=entry.pk), by=WHO, body="no")
    hear(place)
    return place, entry


def needs_review(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(code_review=True, gates=[])
    entry = in_lane(place)
    answer(place, entry, "built", sha=SHA["7"], tree=SHA["8"])
    hear(place)
    return place, entry


def reviewing(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = needs_review(make)
    place.tick()
    return place, entry


def no_reviewer(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(code_review=True, gates=[])
    config = configs.validate({"refinery": {"code_review": True}, "agents": {"polecat": {"command": ["polecat"]}}})
    ledger.set_config(place.town, config)
    place.town.refresh_from_db()
    place.rig.refresh_from_db()
    entry = in_lane(place)
    answer(place, entry, "built", sha=SHA["7"], tree=SHA["8"])
    place.tick()
    return place, entry


def needs_approval(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(auto_merge=False)
    return place, green(place)


def merge_delay(make: Make) -> tuple[Place, ReviewEntry]:
    place = make(merge_strategy="pr")
    entry = place.entry()
    place.tick()
    reviews.approve(entry, by=Actor("cli", "rita"), merge_now=False)
    place.tick()
    place.built(entry)
    if Run.objects.filter(kind="gates", state="queued").exists():
        place.gated()
    return place, entry


def frozen(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    entry = in_lane(place)
    place.built(entry)
    merge_queue.freeze(place.rig, by=WHO, reason="release day")
    place.gated()
    return place, entry


def landing(make: Make) -> tuple[Place, ReviewEntry]:
    place = make()
    return place, green(place)


def pushed(state: str, **more: Any) -> Callable[[Make], tuple[Place, ReviewEntry]]:
    """A change whose push has just ended so."""

    def it(make: Make) -> tuple[Place, ReviewEntry]:
        place, entry = landing(make)
        Landing.objects.update(state="pushing")
        told = {"state": state, "message": f"it {state}"} | more
        inbox.record(place.town, "landing.concluded", str(Landing.objects.get().pk), told)
        hear(place)
        return place, entry

    return it


STAGES: dict[Stage, Callable[[Make], tuple[Place, ReviewEntry]]] = {
    Stage.BLOCKED: blocked,
    Stage.BEHIND: behind,
    Stage.HELD: held,
    Stage.UNPROVEN: unproven,
    Stage.UNBUILT: unbuilt,
    Stage.BUILDING: building,
    Stage.COUPLING: coupling,
    Stage.STALE: stale,
    Stage.UNSETTLED: unsettled,
    Stage.NOTHING: answered("empty"),
    Stage.CONFLICT: answered("conflict", files=["signs.txt"]),
    Stage.UNFIT: answered("refused", error="it has no base"),
    Stage.BUILD_ERROR: answered("error", error="no space left"),
    Stage.NEEDS_GATES: answered("built", sha=SHA["7"], tree=SHA["8"]),
    Stage.GATING: gating,
    Stage.BATCHED: batched,
    Stage.GATE_ERROR: gates(127),
    Stage.GATE_FAILED: gates(1),
    Stage.TRIAGE: triage,
    Stage.CHECKING: checking,
    Stage.EXCUSED: excused,
    Stage.CHANGES_REQUESTED: changes_requested,
    Stage.NEEDS_REVIEW: needs_review,
    Stage.REVIEWING: reviewing,
    Stage.NO_REVIEWER: no_reviewer,
    Stage.NEEDS_APPROVAL: needs_approval,
    Stage.MERGE_DELAY: merge_delay,
    Stage.GREEN: frozen,
    Stage.LANDING: landing,
    Stage.LANDED: pushed("landed"),
    Stage.TARGET_MOVED: pushed("moved"),
    Stage.HEAD_MOVED: pushed("head_moved", head=THIRD),
    Stage.PUSH_REFUSED: pushed("refused"),
}


def test_each_stage_is_looked_at() -> None:
    assert set(STAGES) == set(Stage)


def world(place: Place) -> World:
    return snapshot.load(place.town, place.now)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_in_each_stage_everybody_says_what_the_plan_says(stage: Stage, make: Make, reader: Reader) -> None:
    place, entry = STAGES[stage](make)
    look = world(place)
    assert stands(look, look.entry[entry.pk]).stage == stage
    agree(place, reader, f"entry {entry.pk}")


def test_a_green_car_behind_another_lands_after_the_cars_ahead(make: Make, reader: Reader) -> None:
    place, second = green_behind(make)
    assert agree(place, reader)[f"entry {second.pk}"].why == "green; lands after the cars ahead"
    assert "It lands next." not in reader.page(f"/reviews/{second.pk}/")


@pytest.mark.parametrize("moment", ["asked", "fetched", "gated", "broken"])
def test_of_a_check_of_the_target_everybody_says_the_same(moment: str, make: Make, reader: Reader) -> None:
    place = make()
    asked = gatechecks.ask(place.rig, by=WHO)
    assert asked is not None
    place.tick()
    if moment != "asked":
        answer(place, asked.entry, "built", sha=SHA["b"], tree=SHA["9"])
        hear(place)
    if moment in ("gated", "broken"):
        place.tick()
    if moment == "broken":
        gates_end(place, asked.entry, 1)
        place.tick()
    why = agree(place, reader)[f"entry {asked.entry.pk}"].why
    assert why


# -- beads and runs -------------------------------------------------------------------------------------------------


def test_whatever_a_bead_waits_for_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    first = place.bead("First")
    place.bead("Second", first)
    assert agree(place, reader)[f"bead {first.pk}"].why == "ready: attempt 1 starts"
    place.tick()
    agree(place, reader)
    run, _ = place.running(bead=first)
    told = agree(place, reader)
    assert told[f"run {run.pk}"].why == "is working"
    place.exit(run, 1)
    tick(place)
    agree(place, reader)  # it has failed, and nothing is decided about that yet
    place.tick()
    assert "attempt 2 starts at" in agree(place, reader)[f"bead {first.pk}"].why
    place.later(minutes=1)
    place.tick()
    run, _ = place.running(bead=first)
    place.say(run, "run.done", summary="painted it")
    place.exit(run, head=SHA["a"], work="new")
    tick(place)
    agree(place, reader)
    place.tick()
    entry = ReviewEntry.objects.get(source=first)
    told = agree(place, reader)
    assert told[f"bead {first.pk}"].why == f"gating: {told[f'entry {entry.pk}'].why}"
    ledger.pause_town(place.town, "lunch")
    place.town.refresh_from_db()
    agree(place, reader)


def test_the_fifth_bead_of_a_rig_whose_polecats_are_busy_says_so(make: Make, reader: Reader) -> None:
    place = make()
    for number in range(5):
        place.bead(f"Bead {number}")
        place.later(seconds=1)
    place.tick()
    fifth = Bead.objects.get(title="Bead 4")
    assert agree(place, reader, f"bead {fifth.pk}")[f"bead {fifth.pk}"].why == "all 4 polecats of the rig are busy"
    assert "all 4 polecats of the rig are busy" in text(reader.page("/towns/main/"))


def test_what_has_ended_keeps_its_own_reason(make: Make, reader: Reader) -> None:
    place = make()
    bead = place.bead()
    place.tick()
    run, _ = place.running(bead=bead)
    work.cancel_bead(bead, by=WHO, reason="not wanted")
    place.exit(run, 1)
    place.tick()
    bead.refresh_from_db()
    run.refresh_from_db()
    entry = place.entry()
    merge_queue.reject(entry, by=WHO, reason="we shall not")
    place.tick()
    for kind, key, reason in (
        ("bead", bead.pk, bead.reason),
        ("run", run.pk, run.reason),
        ("entry", entry.pk, "we shall not"),
    ):
        path, mark, words, name, model = _SUBJECTS[kind]
        assert reason and reason in reader.lead(path.format(key), mark)
        assert reason in reader.command(*words, key)[name]
        assert reason in reader.console(model, key)[0]


# -- convoys --------------------------------------------------------------------------------------------------------


def test_in_each_phase_of_a_convoy_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    plan = [
        {"key": "one", "rig": place.rig, "title": "One", "body": "", "priority": 2, "after": []},
        {"key": "two", "rig": place.rig, "title": "Two", "body": "", "priority": 2, "after": ["one"]},
    ]
    convoy = ledger.create_convoy(place.rig, "C", "review-then-land", plan, actor="test")
    phases: list[str] = []

    def look(phase: str) -> str:
        view = world(place).convoy[convoy.pk]
        assert convoy_phase(view) == phase
        phases.append(phase)
        return agree(place, reader)[f"convoy {convoy.pk}"].why

    assert look("staged") == "nothing is dispatched until it is started"
    work.start_convoy(convoy, by=WHO)
    place.tick()
    assert look("active") == "its feature branch is being cut"
    branch = convoy.branches.get()
    assert branch.asked_at is not None
    seen = {"sha": SHA["b"], "asked_at": branch.asked_at.isoformat()}
    inbox.record(place.town, "branch.seen", str(branch.pk), seen)
    place.tick()
    assert look("active") == "0 of 2 beads closed"
    run, _ = place.running(bead=convoy.beads.get(plan_key="one"))
    place.say(run, "run.done", summary="nothing to do")
    place.exit(run, work="nothing")
    place.tick()
    assert "Retry it, cancel it, or close the convoy" in look("needs_attention")
    assert set(phases) == {"staged", "active", "needs_attention"}


# -- what holds up more than one ------------------------------------------------------------------------------------


def test_of_a_remote_that_does_not_work_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    bead, entry = place.bead(), place.entry()
    outages.failed(place.rig, "unreachable", "fatal: Could not resolve host", place.now, whole_host=True)
    place.tick()
    told = agree(place, reader)
    words = next(d.why for d in told.values() if d.rule == "outage" and d.subject.startswith("outage:"))
    said_of = words.partition(": ")[2]
    assert said_of in told[f"bead {bead.pk}"].why and said_of in told[f"entry {entry.pk}"].why


def test_of_a_full_disk_everybody_says_the_same(make: Make, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make()
    place.bead()
    place.entry()
    full = room.lacking  # how much is free changes from one look to the next
    monkeypatch.setattr(room, "LEAST", 1 << 62)
    monkeypatch.setattr(room, "SMALL", 1)  # more than is free on any disk
    words = full()
    monkeypatch.setattr(room, "lacking", lambda: words)
    place.tick()
    told = agree(place, reader)
    assert told["no-room"].why == words and words in told["lane proj main"].why


def test_of_an_open_breaker_and_a_rig_without_polecats_everybody_says_the_same(make: Make, reader: Reader) -> None:
    place = make()
    for n in range(4):
        place.bead(f"Bead {n}")
    while not world(place).breaker_open:
        place.tick()
        while picked := runs.pick("runner", place.now):
            runs.start_failed(picked[0].pk, "broken host")
        place.later(minutes=1)
    place.tick()
    assert agree(place, reader)["town main"].rule == "breaker"
    place.later(minutes=40)
    ledger.set_config(place.town, configs.validate({"refinery": {"gates": ["true"], "code_review": False}}))
    place.town.refresh_from_db()
    place.rig.refresh_from_db()
    place.tick()
    assert agree(place, reader)["rig proj"].rule == "unmanned"
