"""How each stage of an entry comes about, by real facts, in a town whose clock is everybody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.api import tools
from agents.models import Run
from beads import config as configs
from beads import inbox, ledger
from beads.actors import Actor
from refinery import facts
from refinery.core.stages import Stage
from refinery.decisions import merge_queue, reviews
from refinery.models import Candidate, Landing, ReviewEntry
from refinery.tick import reconciler
from tests.db.conftest import SHA, Place

WHO = Actor("test", "alice")
FIRST, SECOND, THIRD = SHA["a"], SHA["d"], SHA["e"]
FAILED = {"exit_code": 1, "signal": None, "timed_out": False}
Make = Callable[..., Place]


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


def reviewer_asks(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = reviewing(make)
    run, _ = place.running(kind="refinery")
    tools.call("gt_ask", run, {"text": "Is it meant to be red?"}, place.now)
    place.exit(run, 1)
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


def host_unknown(make: Make) -> tuple[Place, ReviewEntry]:
    place, entry = merge_delay(make)
    hosted = {"provider": "github", "credential": "TOKEN", "repository": "acme/proj", "auto_merge_delay": "1s"}
    ledger.set_config(place.town, {**place.town.config, "pr": hosted})
    place.town.refresh_from_db()
    place.later(seconds=2)
    inbox.record(place.town, "host.unknown", str(place.rig.pk), {"kind": "down", "error": "GitHub answers 503"})
    place.tick()
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
    Stage.REVIEWER_ASKS: reviewer_asks,
    Stage.NO_REVIEWER: no_reviewer,
    Stage.NEEDS_APPROVAL: needs_approval,
    Stage.MERGE_DELAY: merge_delay,
    Stage.HOST_UNKNOWN: host_unknown,
    Stage.GREEN: frozen,
    Stage.LANDING: landing,
    Stage.LANDED: pushed("landed"),
    Stage.TARGET_MOVED: pushed("moved"),
    Stage.HEAD_MOVED: pushed("head_moved", head=THIRD),
    Stage.PUSH_REFUSED: pushed("refused"),
}
