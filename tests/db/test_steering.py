"""People steer work: a question waits without a run, *stop and save* waits for a person, a hint starts the next run."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command

from agents import mail, prompts
from agents.api import tools
from agents.models import Run
from beads import config as configs
from beads import ledger
from beads.actors import Actor
from beads.errors import Conflict
from beads.models import Bead, Escalation
from refinery.decisions import mayor, operators, steering, work
from refinery.models import ReviewEntry
from refinery.pages import boards
from refinery.tick import invariants, reconciler
from tests.db.conftest import SHA, Place
from tests.db.test_mayor import ask as ask_mayor
from tests.db.test_mayor import at_work as mayors_run
from tests.db.test_mayor import mayor_of

ANN = Actor("cli", "ann")


def at_work(place: Place, bead: Bead) -> Run:
    """The bead's run, claimed."""
    place.tick()
    return place.running(bead=bead)[0]


def ask(place: Place, run: Run, text: str = "Which colour?\nBlue or red.") -> Any:
    return tools.call("gt_ask", run, {"text": text}, place.now)[1]


def prompt(run: Run) -> str:
    told = [mail.data(one) for one in mail.for_run(run)]
    return prompts.render(run.brief, prompts.Reader(run.kind, "ada", run.bead_id, run.branch, "main"), mail=told)


def why(place: Place, bead: Bead) -> str:
    return next(d.why for d in reconciler.explain(place.town, place.now) if d.subject == f"bead {bead.pk}")


def phase(bead: Bead) -> str:
    return boards.Board(bead.town).bead_phase(Bead.objects.get(pk=bead.pk))


def end(place: Place, run: Run, code: int = 1, **more: Any) -> Run:
    place.exit(run, code, **more)
    place.tick()
    return Run.objects.get(pk=run.pk)


# -- a question -----------------------------------------------------------------------------------------------------


def test_who_asks_and_exits_waits_without_a_run_and_the_answer_starts_the_next(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    question = ask(place, run)
    run = end(place, run)
    assert (run.outcome, run.reason) == (
        "stopped",
        "it has asked a person, and waits for the answer: Which colour?",
    )
    assert (phase(bead), why(place, bead)) == ("awaiting_human", "its agent asks: Which colour?")
    place.later(days=30)
    place.tick()
    assert Run.objects.count() == 1
    operators.answer(Escalation.objects.get(pk=question["id"]), by=ANN, text="Blue")
    again = at_work(place, bead)
    assert (again.attempt, why(place, bead)) == (2, f"run {again.pk} is running")
    text = prompt(again)
    assert "> Which colour?\n> Blue or red." in text and "cli:ann answered:\n> Blue" in text
    assert text.count("Blue\n") == 1, "the answer is not told again as mail"
    assert boards.Board(place.town).beads[bead.pk].attempts_used == 0
    assert invariants.look(place.town, place.now) == []


def test_an_answer_that_comes_before_the_end_costs_no_attempt_either(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    question = ask(place, run)
    operators.answer(Escalation.objects.get(pk=question["id"]), by=ANN, text="Blue")
    place.tick()
    assert end(place, run).outcome == "stopped"
    assert Run.objects.filter(bead=bead, state="queued").count() == 1


def test_the_same_question_once_more_is_no_way_to_fail_for_ever(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    question = ask(place, run)
    operators.answer(Escalation.objects.get(pk=question["id"]), by=ANN, text="Blue")
    end(place, run)
    run = at_work(place, bead)
    assert ask(place, run)["state"] == "answered"
    assert end(place, run).outcome == "failed"


def test_who_asks_and_goes_on_is_done_all_the_same(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    ask(place, run)
    place.say(run, "run.done", summary="made it red")
    end(place, run, 0, head=SHA["a"])
    assert ReviewEntry.objects.filter(source=bead).exists()


def test_a_run_that_is_lost_with_its_question_open_goes_on_at_once(place: Place) -> None:
    bead = place.bead()
    ask(place, at_work(place, bead))
    place.later(minutes=5)
    place.tick()
    assert list(Run.objects.order_by("created_at").values_list("outcome", flat=True)) == ["lost", ""]


def test_a_limit_that_it_has_reached_is_its_own_doing_whatever_it_has_asked(place: Place) -> None:
    run = at_work(place, place.bead())
    ask(place, run)
    assert end(place, run, error="memory limit of 4G reached").outcome == "failed"


def test_a_person_may_let_it_go_on_without_an_answer(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    ask(place, run)
    end(place, run)
    place.later(minutes=5)
    steering.hint_bead(bead, by=ANN, text="Take red, the answer will follow")
    again = at_work(place, bead)
    assert "Take red" in prompt(again) and "Nobody has answered yet." in prompt(again)


def test_a_refinery_that_asks_lets_the_others_pass_and_reviews_with_the_answer(reviewed: Place) -> None:
    entry = reviewed.entry()
    reviewed.tick()
    reviewed.built(entry)
    run = reviewed.running(kind="refinery")[0]
    question = ask(reviewed, run, "Is this file meant to be here?")
    assert end(reviewed, run).outcome == "stopped"
    shown = boards.Board(reviewed.town).entry(ReviewEntry.objects.get(pk=entry.pk))
    assert (shown.phase, shown.reason) == ("awaiting_human", "the refinery asks: Is this file meant to be here?")
    assert not Run.objects.live().exists()
    operators.answer(Escalation.objects.get(pk=question["id"]), by=ANN, text="Yes")
    reviewed.tick()
    reviewed.built(entry)
    again = reviewed.running(kind="refinery")[0]
    assert [one["answer"] for one in again.brief["questions"]] == ["Yes"]


# -- stop and save --------------------------------------------------------------------------------------------------


def test_stop_and_save_ends_the_run_and_waits_for_a_person(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    steering.save_run(Run.objects.get(pk=run.pk), by=ANN, reason="wrong way")
    place.tick()
    run.refresh_from_db()
    assert run.stop_reason == "stopped by cli:ann, with its work kept"
    run = end(place, run, 143, head=SHA["a"], work="new", salvage_ref=f"refs/gastown/salvage/{run.pk}")
    assert run.outcome == "stopped"
    told = "stopped by cli:ann: wrong way; it waits until a person lets it go on"
    assert (phase(bead), why(place, bead)) == ("awaiting_human", told)
    place.later(days=30)
    place.tick()
    assert Run.objects.count() == 1
    bead.refresh_from_db()
    with pytest.raises(Conflict, match="held already"):
        steering.hold_bead(bead, by=ANN)
    work.retry_bead(bead, by=ANN, reason="try the other way")
    again = at_work(place, bead)
    bead.refresh_from_db()
    assert (bead.hold, again.start_sha, again.brief["saved"]) == ("", SHA["a"], run.salvage_ref)
    assert "try the other way" in prompt(again) and "git show refs/gastown/saved" in prompt(again)
    assert invariants.look(place.town, place.now) == []


def test_what_is_queued_or_waits_is_held_as_well(place: Place) -> None:
    bead, second = place.bead(), place.bead("Second", place.bead("First"))
    place.tick()
    for one in (bead, second):
        steering.hold_bead(one, by=ANN)
    place.tick()
    assert Run.objects.get(bead=bead).reason == "stopped before it started"
    assert why(place, second).startswith("stopped by cli:ann; it waits")
    assert {b.id for b in boards.Board(place.town).world.held} == {bead.pk, second.pk}


def test_a_held_bead_is_cancelled_like_any_other(place: Place) -> None:
    bead = place.bead()
    steering.hold_bead(bead, by=ANN)
    place.tick()
    work.cancel_bead(bead, by=ANN)
    place.tick()
    bead.refresh_from_db()
    assert (bead.resolution, bead.hold) == ("cancelled", "")


def test_who_was_done_when_a_person_said_stop_waits_all_the_same(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    place.say(run, "run.done", summary="done")
    steering.hold_bead(bead, by=ANN)
    end(place, run, 0, head=SHA["a"])
    assert not ReviewEntry.objects.exists()
    assert phase(bead) == "awaiting_human"


# -- a hint ---------------------------------------------------------------------------------------------------------


def test_a_hint_stops_the_run_and_stands_first_in_the_next(place: Place) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    steering.hint_run(Run.objects.get(pk=run.pk), by=ANN, text="Look at colours.py first")
    place.tick()
    run.refresh_from_db()
    assert run.stop_reason == "stopped by cli:ann, to go on with a hint"
    end(place, run, 143, head=SHA["a"])
    again = at_work(place, bead)
    assert (again.start_sha, boards.Board(place.town).beads[bead.pk].attempts_used) == (SHA["a"], 0)
    text = prompt(again)
    assert text.index("## A person's hint: heed it first") < text.index("## The task")
    assert text.count("Look at colours.py first") == 1


@pytest.mark.parametrize("state", ["failed", "held"])
def test_a_hint_lets_what_failed_or_was_stopped_go_on(place: Place, state: str) -> None:
    bead = place.bead()
    if state == "held":
        steering.hold_bead(bead, by=ANN)
        place.tick()
    else:
        ledger.set_config(place.rig, configs.validate({"dispatch": {"max_attempts": 1}}))
        end(place, at_work(place, bead))
        place.later(minutes=5)
    bead.refresh_from_db()
    assert (bead.status == "failed") is (state == "failed") and bool(bead.hold) is (state == "held")
    steering.hint_bead(bead, by=ANN, text="Mind the gap")
    assert "Mind the gap" in prompt(at_work(place, bead))
    assert not Escalation.objects.filter(about=bead, closed_at=None).exists()


def test_of_a_bead_in_review_the_rework_takes_the_hint(reviewed: Place) -> None:
    bead = reviewed.bead()
    run = at_work(reviewed, bead)
    reviewed.say(run, "run.done", summary="done")
    end(reviewed, run, 0, head=SHA["a"])
    bead.refresh_from_db()
    with pytest.raises(Conflict, match="in review, and nobody changes it now: mq request-changes gt-"):
        steering.hint_bead(bead, by=ANN, text="Mind the gap")
    with pytest.raises(Conflict, match="in review"):
        steering.hold_bead(bead, by=ANN)
    entry = ReviewEntry.objects.get(source=bead)
    reviewed.built(entry)
    review = reviewed.running(kind="refinery")[0]
    with pytest.raises(Conflict, match="say it in a review"):
        steering.hint_run(Run.objects.get(pk=review.pk), by=ANN, text="Mind the gap")
    reviewed.say(review, "run.request_changes", feedback="sort them")
    end(reviewed, review, 0)
    steering.hint_bead(bead, by=ANN, text="Mind the gap")
    reviewed.tick()
    rework = reviewed.running(purpose="rework")[0]
    assert "Mind the gap" in prompt(rework)


def test_the_mayor_is_stopped_and_hinted_too_but_answered_where_it_asks(place: Place) -> None:
    mayor_of(place, command=["mayor"])
    request = ask_mayor(place)
    run = mayors_run(place, request)
    steering.hold_bead(request, by=ANN)
    place.tick()
    end(place, run, 143)
    assert why(place, request).startswith("stopped by cli:ann; it waits")
    request.refresh_from_db()
    steering.hint_bead(request, by=ANN, text="Only the tables")
    run = mayors_run(place, request)
    assert "Only the tables" in prompt(run)
    tools.call("gt_ask", run, {"text": "Which?"}, place.now)
    end(place, run, 0)
    request.refresh_from_db()
    with pytest.raises(Conflict, match="answer it"):
        steering.hint_bead(request, by=ANN, text="All")
    assert mayor.answer(request, by=ANN, text="All") is True


def test_the_commands_of_the_family(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    bead = place.bead()
    run = at_work(place, bead)
    call_command("runs", "save", run.pk, "--reason", "lunch")
    assert capsys.readouterr().out.strip() == f"run {run.pk} is being stopped; its bead waits for you"
    place.tick()
    end(place, run, 143)
    call_command("bead", "show", bead.pk)
    out = capsys.readouterr().out
    assert f"with a hint: gastown bead hint {bead.pk} TEXT" in out and "stopped by" in out
    call_command("bead", "hint", bead.pk, "go left")
    assert capsys.readouterr().out.strip() == f"{bead.pk} goes on with your hint"
    again = at_work(place, bead)
    call_command("runs", "hint", again.pk, "go right")
    place.tick()
    end(place, again, 143)
    text = prompt(at_work(place, bead))
    assert "go left" in text and "go right" in text, "what a run was told that did not end well is told again"
