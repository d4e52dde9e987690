"""A person asks, the mayor plans: one request at a time, with a question and its answer, an end and a reason."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from agents import mail, prompts, runs
from agents.api import tools
from agents.api.toolset.shared import MAYOR
from agents.lifecycle import RunKind
from agents.models import Agent, Mail, Run
from beads import config as configs
from beads import ledger, plans
from beads.actors import Actor
from beads.errors import Conflict, GastownError, Invalid
from beads.models import Bead, Convoy, Escalation, Fact
from refinery.decisions import mayor, work
from refinery.pages import boards, conversation
from refinery.tick import invariants, reconciler
from tests.db.conftest import Place

ANN = Actor("cli", "ann")
PLAN = [
    {"key": "table", "title": "Add the table", "files": ["log/*.py"], "estimate": "1 h"},
    {"key": "export", "title": "Export it", "after": ["table"], "files": ["log/export.py"]},
]


@pytest.fixture
def town(place: Place) -> Place:
    """A town with a mayor."""
    mayor_of(place, command=["mayor"])
    return place


def mayor_of(place: Place, limits: dict[str, Any] | None = None, **keys: Any) -> None:
    """Set the rig's mayor and limits."""
    ledger.set_config(place.rig, configs.validate({"agents": {"mayor": keys} if keys else {}, "limits": limits or {}}))
    place.rig.refresh_from_db()


def ask(place: Place, text: str = "Make the audit log exportable", **more: Any) -> Bead:
    return mayor.ask(place.rig, by=ANN, text=text, **more)


def at_work(place: Place, request: Bead) -> Run:
    """The mayor's run for a request, claimed."""
    place.tick()
    return place.running(bead=request)[0]


def call(place: Place, run: Run, tool: str, **arguments: Any) -> dict[str, Any]:
    return tools.call(tool, run, arguments, place.now)[1]


def row(request: Bead) -> dict[str, Any]:
    """What pages and the command show."""
    (shown,) = conversation.shown(
        boards.Board(request.town), [Bead.objects.select_related("rig", "town").get(pk=request.pk)]
    )
    return shown


def why(place: Place, request: Bead) -> str:
    return next(d.why for d in reconciler.explain(place.town, place.now) if d.subject == f"bead {request.pk}")


def ended(place: Place, run: Run, code: int = 0) -> Bead:
    """The run has exited; its request as it stands then."""
    place.exit(run, code)
    place.tick()
    return Bead.objects.get(pk=run.bead_id)


def test_a_request_becomes_a_staged_convoy_that_a_person_starts(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    assert (run.kind, run.purpose, run.agent and run.agent.name, run.branch) == ("mayor", "plan", "mayor", "")
    assert run.brief["body"] == "Make the audit log exportable"
    made = call(town, run, "gt_convoy_create", title="Export the audit log", beads=PLAN)
    assert (made["staged"], made["conflicts"]) == (True, [])
    call(town, run, "gt_done", summary="Two steps")
    request = ended(town, run)
    assert (request.status, request.resolution) == ("closed", "done")
    assert request.reason == f"planned: convoy {made['id']}: Two steps"
    shown = row(request)
    assert (shown["phase"], [c["id"] for c in shown["convoys"]]) == ("planned", [made["id"]])
    assert shown["convoys"][0]["staged"] is True
    convoy = Convoy.objects.select_related("rig", "bead__town").get(pk=made["id"])
    assert list(convoy.beads.order_by("plan_key").values_list("context", flat=True)) == [
        {"files": ["log/export.py"]},
        {"files": ["log/*.py"], "estimate": "1 h"},
    ]
    town.tick()
    assert not Run.objects.filter(bead__convoy=convoy).exists()
    work.start_convoy(convoy, by=ANN)
    town.tick()
    convoy.refresh_from_db()
    assert convoy.started_at is not None
    assert invariants.look(town.town, town.now) == []


def test_it_is_no_work_in_any_count_or_queue(town: Place) -> None:
    request = ask(town)
    town.tick()
    board = boards.Board(town.town)
    assert (board.world.beads, board.world.entries, board.unreleased) == ((), (), [])
    assert [r.id for r in board.world.requests] == [request.pk]
    out = StringIO()
    call_command("bead", "list", "--json", stdout=out)
    assert json.loads(out.getvalue())["data"] == []


def test_a_question_waits_without_a_run_and_goes_on_with_its_answer(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    call(town, run, "gt_ask", text="CSV or JSON?")
    assert call(town, run, "gt_ask", text="CSV or JSON?")["state"] == "open"
    with pytest.raises(Conflict, match="has asked before"):
        call(town, run, "gt_ask", text="And when?")
    request = ended(town, run)
    assert (request.status, why(town, request)) == ("open", "the mayor asks: CSV or JSON?")
    assert (row(request)["phase"], row(request)["question"]) == ("asks", "CSV or JSON?")
    need = Escalation.objects.get(key=f"mayor:{request.pk}", closed_at=None)
    assert (need.about_id, need.bead.body) == (request.pk, "CSV or JSON?")
    town.later(days=30)
    town.tick()
    assert Run.objects.count() == 1
    assert mayor.answer(request, by=ANN, text="CSV") is True
    assert mayor.answer(request, by=ANN, text="CSV") is False
    again = at_work(town, request)
    need.refresh_from_db()
    assert need.closed_at is not None
    assert [(s["kind"], s["text"]) for s in again.brief["request"]["said"]] == [
        ("question", "CSV or JSON?"),
        ("answer", "CSV"),
    ]
    with pytest.raises(Conflict, match="asks nothing"):
        mayor.answer(request, by=ANN, text="late")
    call(town, again, "gt_convoy_create", title="CSV", beads=PLAN)
    assert ended(town, again, 1).status == "closed", "what it has staged counts, however it ends"


def test_it_answers_in_words_why_a_convoy_failed_having_heard_of_it(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    made = call(town, run, "gt_convoy_create", title="Export", beads=PLAN[:1], merge_mode="review-and-merge")
    call(town, run, "gt_done", summary="planned")
    ended(town, run)
    convoy = Convoy.objects.select_related("rig", "bead__town").get(pk=made["id"])
    work.start_convoy(convoy, by=ANN)
    town.tick()
    bead = convoy.beads.get()
    ended_so = ledger.Transition("failed", reason="no such table", resolution="gave_up")
    ledger.move(bead, bead.status, ended_so, actor="test", now=town.now)
    town.tick()
    letter = Mail.objects.get(recipient="mayor")
    assert (letter.kind, letter.about_id) == ("CONVOY_NEEDS_ATTENTION", convoy.pk)
    assert Run.objects.filter(kind="mayor").count() == 1, "no run starts for it by itself"
    second = ask(town, "Why did it fail?")
    asked = at_work(town, second)
    assert [m["id"] for m in call(town, asked, "gt_prime")["mail"]] == [letter.pk]
    (told,) = asked.brief["request"]["convoys"]
    assert "no such table" in told["stands"]
    assert asked.brief["request"]["earlier"][0]["asked"] == "Make the audit log exportable"
    text = prompts.render(asked.brief, prompts.Reader("mayor", "mayor", second.pk, "", "main"))
    assert text.startswith("You are mayor, the mayor")
    assert "> - " + made["id"] in text
    call(town, asked, "gt_mayor_answer", text="The table is missing.")
    second = ended(town, asked)
    letter.refresh_from_db()
    assert letter.read_at is not None
    assert (second.status, row(second)["phase"], row(second)["answer"]) == (
        "closed",
        "answered",
        "The table is missing.",
    )


def test_requests_wait_in_order_for_the_one_mayor(town: Place) -> None:
    first, second, third = ask(town, "One"), ask(town, "Two"), ask(town, "Three")
    run = at_work(town, first)
    assert why(town, second) == f"the mayor is at work on {first.pk}: requests are taken in order"
    assert why(town, third) == f"the mayor is at work on {first.pk}, and 1 asked before it: requests are taken in order"
    call(town, run, "gt_ask", text="Which?")
    ended(town, run)
    assert Run.objects.filter(kind="mayor", state="queued").get().bead_id == second.pk, (
        "who waits for a person holds up nobody"
    )
    assert Agent.objects.filter(role="mayor").count() == 1


def test_who_stages_asks_and_answers_nothing_has_failed_with_its_last_words(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    call(town, run, "gt_done", summary="I would rather not")
    request = ended(town, run)
    said = 'the mayor staged nothing and asked nothing; its last words: "I would rather not"'
    assert (request.status, request.reason) == ("failed", said)
    assert Run.objects.count() == 1
    assert Escalation.objects.get(key=f"failed:{request.pk}").about_id == request.pk
    work.retry_bead(request, by=ANN, reason="please")
    again = at_work(town, request)
    assert [m.body for m in mail.for_run(again)] == ["please"]
    assert not Escalation.objects.filter(key=f"failed:{request.pk}", closed_at=None).exists()


def test_a_crash_is_tried_again_and_there_is_an_end_to_that(town: Place) -> None:
    ledger.set_config(town.town, {**town.town.config, "dispatch": {"max_attempts": 2, "backoff": ["1s"]}})
    request = ask(town)
    for _ in range(2):
        run = at_work(town, request)
        assert ended(town, run, 1).reason.startswith(("attempt", "gave up"))
        town.later(seconds=2)
    request.refresh_from_db()
    assert (request.status, request.reason) == (
        "failed",
        "gave up after 2 attempts; the last: ended without gt_done (exit code 1)",
    )


def test_a_lost_run_costs_no_attempt_and_what_it_staged_is_not_made_twice(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    town.later(minutes=5)
    town.tick()
    run.refresh_from_db()
    assert (run.outcome, Run.objects.filter(state="queued").count()) == ("lost", 1)
    run = town.running(bead=request)[0]
    call(town, run, "gt_sling", title="One bead")
    town.later(minutes=5)
    town.tick()
    request.refresh_from_db()
    assert (request.status, request.reason[:13]) == ("closed", "planned: bead")
    assert Bead.objects.filter(filed_by=run.pk).count() == 1


def test_two_convoys_are_both_told(town: Place) -> None:
    run = at_work(town, ask(town))
    keys = [call(town, run, "gt_convoy_create", title=t, beads=PLAN[:1])["id"] for t in ("A", "B")]
    call(town, run, "gt_done")
    assert ended(town, run).reason == f"planned: convoy {keys[0]}, convoy {keys[1]}"


def test_a_cycle_is_refused_with_its_path_and_a_hundred_beads_by_the_limit(town: Place) -> None:
    run = at_work(town, ask(town))
    circle = [{"key": "a", "title": "A", "after": ["b"]}, {"key": "b", "title": "B", "after": ["a"]}]
    with pytest.raises(Invalid, match="dependency cycle: a → b → a"):
        call(town, run, "gt_convoy_create", title="Circle", beads=circle)
    with pytest.raises(tools.LimitReached, match=r"limits\.beads_per_plan is 50"):
        call(town, run, "gt_convoy_create", title="Much", beads=[{"key": str(n), "title": "x"} for n in range(100)])
    assert not Convoy.objects.exists()


def test_beads_that_change_the_same_files_at_once_are_named(town: Place) -> None:
    run = at_work(town, ask(town))
    beads = [
        {"key": "a", "title": "A", "files": ["src/log/", "README.md"]},
        {"key": "b", "title": "B", "files": ["src/log/api.py"]},
        {"key": "c", "title": "C", "files": ["README.md"], "after": ["a"]},
        {"key": "d", "title": "D", "files": ["*.md"], "after": ["c"]},
    ]
    made = call(town, run, "gt_convoy_create", title="Clash", beads=beads)
    assert made["conflicts"] == [{"beads": ["a", "b"], "files": ["src/log/"]}]
    told = conversation.plan_of(Convoy.objects.get(pk=made["id"]))
    assert told["conflicts"] == [{"beads": ["A", "B"], "files": ["src/log/"]}]
    with pytest.raises(Invalid, match="at most 500"):
        plans.parse(
            [{"key": "x", "title": "X", "files": [f"f{n}" for n in range(501)]}], "p", town.rig, lambda s: town.rig
        )


@pytest.mark.parametrize(("text", "said"), [("", "text is empty"), (" \n", "text is empty"), ("x" * 70_000, "longer")])
def test_what_cannot_be_asked_is_refused(town: Place, text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ask(town, text)
    assert not Bead.objects.exists()


def test_without_a_mayor_one_sentence_says_what_to_add(place: Place) -> None:
    with pytest.raises(Conflict) as refused:
        ask(place)
    assert refused.value.message == (
        'nobody plans for rig proj: put [agents.mayor] with command = ["PROGRAM"] into its config, then gastown rig '
        "config proj --config FILE.toml"
    )
    mayor_of(place, command=["mayor"])
    request = ask(place)
    mayor_of(place)
    place.tick()
    assert why(place, request).startswith("nobody plans for rig proj")


def test_the_rig_is_the_only_one_or_named(town: Place) -> None:
    assert mayor.home_of(town.town, None) == town.rig
    ledger.create_rig(town.town, "second", "/nowhere.git", "main")
    with pytest.raises(Invalid, match="town main has 2 rigs: say which one it is about: proj, second"):
        mayor.home_of(town.town, None)
    with pytest.raises(GastownError, match="no rig none"):
        mayor.home_of(town.town, "none")


def test_a_request_is_cancelled_and_its_run_stopped(town: Place) -> None:
    request = ask(town)
    run = at_work(town, request)
    work.cancel_bead(request, by=ANN)
    town.tick()
    run.refresh_from_db()
    request.refresh_from_db()
    assert (request.resolution, run.stop_reason) == ("cancelled", "its bead has ended")
    assert row(request)["phase"] == "cancelled"


def test_sent_twice_it_is_one_request_and_twenty_are_enough(town: Place) -> None:
    assert ask(town, once="form-1") == ask(town, once="form-1")
    assert Fact.objects.filter(kind="mayor.request").count() == 1
    for number in range(mayor.MOST - 1):
        ask(town, f"Number {number}")
    with pytest.raises(Conflict, match="20 requests wait"):
        ask(town, "One more")


def test_paused_it_waits_and_says_so(town: Place) -> None:
    request = ask(town)
    ledger.pause_town(town.town, "lunch")
    town.town.refresh_from_db()
    town.tick()
    assert why(town, request) == "town main is paused: lunch"
    assert not Run.objects.exists()


def test_the_mayors_words_are_of_a_request_alone(town: Place) -> None:
    assert tools.REGISTRY["gt_mayor_answer"].roles == MAYOR
    agent = Agent.objects.create(town=town.town, name="mayor", role="mayor")
    work_ = runs.Assignment(RunKind.MAYOR, "work", target="main", steps=[], brief={})
    run = runs.queue_run(town.bead("Plan"), work_, agent=agent)
    town.start(run)
    with pytest.raises(Conflict, match="nobody has asked"):
        call(town, run, "gt_mayor_answer", text="What?")


def test_the_command_asks_answers_and_says_what_came_of_it(town: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_so:
        call_command("mayor", "Export it", "--timeout", "0")
    assert ended_so.value.code == 3
    out = capsys.readouterr().out
    request = Bead.objects.get(type="message")
    assert f"{request.pk} goes on: the mayor takes it up" in out
    assert "/towns/main/mayor/" in out
    call_command("mayor", "Another", "--no-wait")
    assert capsys.readouterr().out.strip() == Bead.objects.latest("created_at").pk
    run = at_work(town, request)
    call(town, run, "gt_ask", text="CSV?")
    ended(town, run)
    call_command("mayor", "Yes", "--answer", request.pk, "--no-wait", "--json")
    assert json.loads(capsys.readouterr().out)["data"]["question"] == "CSV?"
    for words, said in (
        (["x", "--rig", "none"], "no rig none"),
        (["x", "--town", "none"], "no town none"),
        ([" "], "text is empty"),
        (["x", "--answer", "gt-none"], "no message gt-none"),
        (["x", "--timeout", "-1"], "timeout is no length of time"),
    ):
        with pytest.raises(SystemExit) as refused:
            call_command("mayor", *words)
        assert (refused.value.code, said in capsys.readouterr().err) == (1, True), words
