"""Pull requests on a host: what is asked of it, whose words count, and what follows when it does not say."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from beads.config import Config, effective, validate
from refinery.core import effects, hosting, pullviews
from refinery.core.actions import AskHost, CloseEntry, Decision, Escalate, NewHead, Settle
from refinery.core.entryviews import VerdictView, person
from refinery.core.outageviews import EffectView
from refinery.core.pullviews import Comment, HostView, Opinion, Pull, PullState, PullView, Review, Right
from refinery.core.rules import commands, pullreports, pulls
from refinery.core.stages import Stage
from refinery.core.standing import standing
from refinery.core.states import GateOutcome
from refinery.core.world import RigView, World
from tests.unit.test_rules import BUILT, ENTRY, NOW, PASS

PR: dict[str, Any] = {"credential": "T", "repository": "acme/proj", "provider": "github"}


def config(**pr: Any) -> Config:
    refinery = {"code_review": False, "gates": ["test"], "merge_strategy": "pr"}
    return effective({}, validate({"refinery": refinery, "pr": {**PR, **pr}}))


RIG = RigView(1, "proj", "main", config(), host=HostView(1, polled_at=NOW), repository="acme/proj")
GREEN = replace(ENTRY, candidate=BUILT, build_no=BUILT.build_no, gates=(PASS,), admitted_at=NOW, slot=1.0)
GHE = "https://ghe.example.org/acme/proj.git"
PULL = Pull(7, GREEN.head, "acme/proj", GREEN.branch, GREEN.target, "Title", "bot", PullState.OPEN)
ROW = PullView(5, 1, 7, NOW, offered=True, head=GREEN.head, read_at=NOW, pull=PULL, entry=GREEN.id)


def world(*rows: PullView, rig: RigView = RIG, **more: Any) -> World:
    return World(NOW, "main", rigs={1: rig}, entries=(GREEN,), pulls=rows, **more)


def of(found: World, subject: str) -> Decision:
    return next(d for d in pulls.decide(found) if d.subject.startswith(subject))


def asked(decision: Decision) -> effects.OfHost | None:
    return next((a.work for a in decision.actions if isinstance(a, AskHost)), None)


def test_a_rig_without_a_host_is_asked_nothing() -> None:
    assert list(pulls.decide(world(rig=replace(RIG, host=None)))) == []


def test_an_entry_is_offered_once_and_not_again_while_that_is_under_way_or_was_refused() -> None:
    work = effects.OfferPull(GREEN.id)
    assert asked(of(world(), "offer")) == work
    for state, rule in (("pending", "offer"), ("failed", "offer-refused")):
        found = of(world(effects={work.key: EffectView(state, "no")}), "offer")
        assert (found.rule, found.actions) == (rule, ())
    assert of(world(behind=True), "offer").actions == ()
    assert not [d for d in pulls.decide(world(ROW)) if d.subject.startswith("offer")]
    fork = World(NOW, "main", rigs={1: RIG}, entries=(replace(GREEN, branch="refs/pull/7/head"),))
    assert not [d for d in pulls.decide(fork) if d.subject.startswith("offer")]


def test_what_was_heard_of_since_it_was_read_is_read_first() -> None:
    old = replace(ROW, read_at=NOW - dt.timedelta(seconds=1))
    assert asked(of(world(old), "pull")) == effects.ReadPull(1, 7)
    assert asked(of(world(replace(ROW, pull=None)), "pull")) == effects.ReadPull(1, 7)


def heard(*reviews: Review, **more: Any) -> effects.OfHost | None:
    pull = replace(PULL, reviews=reviews, **more)
    work = asked(of(world(replace(ROW, pull=pull)), "pull"))
    return work if isinstance(work, effects.HearPull) else None


def review(by: str = "rita", right: Right = Right.WRITE, opinion: Opinion = Opinion.APPROVE) -> Review:
    return Review(3, by, opinion, GREEN.head, right)


def test_reviews_count_by_who_may_write_and_has_not_made_it() -> None:
    assert heard(review()) == effects.HearPull(5, "r3", "approve")
    for right in (Right.READ, Right.NONE, Right.UNKNOWN):
        assert heard(review(right=right)) is None
    assert heard(review(by="bot")) is None
    assert heard(review(), authors=("rita",)) is None
    assert heard(review(by="Rita"), authors=("rita",)) is None
    assert heard(review(by="Bot")) is None


def test_where_it_is_not_known_who_has_made_it_nobody_approves() -> None:
    assert heard(review(), authors_known=False) is None


def test_a_review_is_heard_once_and_again_when_it_is_dismissed() -> None:
    known = replace(ROW, heard={"r3": "approve"}, pull=replace(PULL, reviews=(review(),)))
    assert not isinstance(asked(of(world(known), "pull")), effects.HearPull)
    gone = replace(known, pull=replace(PULL, reviews=(review(opinion=Opinion.DISMISSED),)))
    assert asked(of(world(gone), "pull")) == effects.HearPull(5, "r3", "dismissed")
    assert heard(review(opinion=Opinion.DISMISSED)) is None  # nobody ever heard it


def test_commands_are_heard_in_order_and_once() -> None:
    said = (Comment(9, "sam", "/gastown land", Right.WRITE), Comment(8, "sam", "/gastown queue", Right.WRITE))
    row = replace(ROW, pull=replace(PULL, commands=said))
    assert asked(of(world(row), "pull")) == effects.HearPull(5, "c", "8")
    assert asked(of(world(replace(row, heard={"c": "8"})), "pull")) == effects.HearPull(5, "c", "9")
    assert not isinstance(asked(of(world(replace(row, heard={"c": "9"})), "pull")), effects.HearPull)


def test_of_two_heads_the_one_that_they_had_not_in_common_is_newer() -> None:
    theirs = replace(ROW, pull=replace(PULL, head="e" * 40))
    (moved,) = of(world(theirs), "pull").actions
    assert isinstance(moved, NewHead) and (moved.head, moved.branch) == ("e" * 40, GREEN.branch)
    ours = replace(theirs, head="e" * 40)
    assert asked(of(world(ours), "pull")) == effects.PushPull(5, "e" * 40, GREEN.head)
    fork = replace(ours, pull=replace(PULL, head="e" * 40, head_repo="ann/proj"))
    onto = replace(ours, pull=replace(PULL, head="e" * 40, branch="main"))
    for row in (fork, onto):  # it is pushed to no fork, and to no branch that others land on; but it is heard and told
        assert isinstance(asked(of(world(row), "pull")), effects.TellPull)
        called = replace(row.pull or PULL, commands=(Comment(9, "sam", "/gastown cancel", Right.WRITE),))
        assert asked(of(world(replace(row, pull=called)), "pull")) == effects.HearPull(5, "c", "9")
    (moved,) = of(world(replace(fork, head="")), "pull").actions
    assert isinstance(moved, NewHead) and moved.branch == "refs/pull/7/head"


def test_what_was_merged_there_is_believed_when_git_shows_it_and_the_head_is_known() -> None:
    merged = replace(PULL, state=PullState.MERGED, merge_sha="d" * 40, on_target=True)
    (closed,) = of(world(replace(ROW, pull=merged)), "pull").actions
    assert isinstance(closed, CloseEntry) and (closed.state, closed.merge_sha) == ("merged", "d" * 40)
    for doubt in (replace(merged, on_target=False), replace(merged, head="e" * 40)):
        actions = of(world(replace(ROW, pull=doubt)), "pull").actions
        assert not any(isinstance(a, CloseEntry) for a in actions)


def test_a_host_in_trouble_is_asked_nothing_until_its_time_has_come() -> None:
    later = NOW + dt.timedelta(seconds=7)
    rig = replace(RIG, host=HostView(1, NOW, "too many", "limited", NOW, later, 1))
    (told,) = pulls.decide(world(ROW, rig=rig))
    assert (told.rule, told.actions) == ("host-unknown", ())
    then = replace(world(ROW, rig=rig), now=later)
    (told,) = pulls.decide(then)
    assert asked(told) == effects.PollHost(1)


@pytest.mark.parametrize(("kind", "failures", "tells"), [("denied", 1, True), ("down", 1, False), ("down", 3, True)])
def test_people_are_told_of_what_they_must_mend_and_of_what_lasts(kind: str, failures: int, tells: bool) -> None:
    later = NOW + dt.timedelta(seconds=7)
    rig = replace(RIG, host=HostView(1, NOW, "no", kind, NOW, later, failures))
    (told,) = pulls.decide(world(rig=rig))
    assert bool(told.actions) is tells
    if tells:
        assert isinstance(told.actions[0], Escalate)
    over = of(world(needs=frozenset({"pr-host:proj"})), "host")
    assert over.actions == (Settle("pr-host:proj", "it answers again"),)


def test_what_is_not_known_lets_nothing_land() -> None:
    approved = config(required_approvals=1)
    entry = replace(GREEN, verdicts=(_verdict(),))
    for host, stage in (
        (HostView(1, NOW), Stage.GREEN),
        (HostView(1), Stage.HOST_UNKNOWN),
        (HostView(1, NOW - dt.timedelta(minutes=6)), Stage.HOST_UNKNOWN),
        (HostView(1, NOW, "down", "down", NOW, NOW, 1), Stage.HOST_UNKNOWN),
        (None, Stage.GREEN),
    ):
        assert standing(entry, replace(RIG, config=approved, host=host), NOW).stage == stage


def _verdict() -> VerdictView:
    return VerdictView(1, "approve", GREEN.head, "web:rita", True, NOW - dt.timedelta(hours=1), merge_now=True)


def test_accounts_that_are_nobodys_here_are_nobody_here() -> None:
    assert person("github:ann") != person("web:ann")
    assert person("pr:ann") == person("web:ann") == "ann"


@pytest.mark.parametrize(
    ("body", "verb", "number"),
    [
        ("/gastown land", "land", 0),
        ("  /gastown   queue  \r\nplease", "queue", 0),
        ("/gastown priority 1", "priority", 1),
        ("/gastown PRIORITY 9", "", 0),
        ("/gastown", "", 0),
        ("/gastown land now", "", 0),
        ("/gastown land abc1234", "", 0),
        ("/gastown " + "x" * 5000, "", 0),
    ],
)
def test_commands_are_read_or_answered(body: str, verb: str, number: int) -> None:
    assert commands.is_command(body)
    found = commands.parse(body)
    assert (found.verb, found.number, bool(found.wrong)) == (verb, number, not verb)


@pytest.mark.parametrize("body", ["", "> /gastown land", "see /gastown land", "/gastownland", "/gas"])
def test_what_is_no_command(body: str) -> None:
    assert not commands.is_command(body)


@pytest.mark.parametrize(
    ("remote", "pr", "is_there", "repository"),
    [
        ("https://github.com/acme/proj.git", {"credential": "T"}, True, "acme/proj"),
        ("git@github.com:acme/proj.git", {"credential": "T"}, True, "acme/proj"),
        ("ssh://git@github.com/acme/proj", {"credential": "T"}, True, "acme/proj"),
        ("https://github.com/acme/proj.git", {}, False, "acme/proj"),
        ("https://github.com/acme/proj.git", {"credential": "T", "provider": "builtin"}, False, "acme/proj"),
        (GHE, {"credential": "T"}, False, "acme/proj"),
        (GHE, {"credential": "T", "url": "https://ghe.example.org/"}, True, "acme/proj"),
        ("https://github.com.evil.org/acme/proj.git", {"credential": "T"}, False, "acme/proj"),
        ("/srv/git/proj.git", {"credential": "T"}, False, ""),
    ],
)
def test_where_a_rigs_changes_are_reviewed(remote: str, pr: dict[str, Any], is_there: bool, repository: str) -> None:
    found = effective({}, validate({"refinery": {"gates": ["t"]}, "pr": pr}))
    assert (hosting.provider(found, remote) == "github") is is_there
    assert hosting.repository(found, remote) == repository


def test_a_pull_request_is_kept_as_json_and_read_again() -> None:
    pull = replace(PULL, reviews=(review(),), commands=(Comment(1, "a", "/gastown why"),), mergeable=None)
    assert pullviews.load(pullviews.dump(pull)) == pull
    assert pullviews.load({"number": "x"}) is None
    assert pullviews.load({}) is None


def told(row: PullView, gate: str = "pass") -> tuple[tuple[str, str, str], ...]:
    """The statuses that are reported when the gate's result is this."""
    entry = replace(GREEN, gates=(replace(PASS, outcome=GateOutcome(gate)),))
    found = World(NOW, "main", rigs={1: RIG}, entries=(entry,), pulls=(row,))
    work = asked(of(found, "pull"))
    return work.statuses if isinstance(work, effects.ReportPull) else ()


def noted(row: PullView, *statuses: tuple[str, str, str]) -> PullView:
    said = {context: pullreports.mark(PULL.head, state, text) for context, state, text in statuses}
    return replace(row, said={**row.said, **said})


def test_only_the_statuses_that_say_something_else_are_reported() -> None:
    first = told(ROW)
    assert {context: state for context, state, _ in first} == {"gastown": "success", "gastown/test": "success"}
    known = noted(ROW, *first)
    assert told(known) == ()
    red = told(known, "fail")
    assert {context: state for context, state, _ in red} == {"gastown": "failure", "gastown/test": "failure"}
    other = replace(known, said={c: f"{'e' * 12} {m[13:]}" for c, m in known.said.items()})
    assert len(told(other)) == 2  # what was said at another head is not said here


def test_a_gate_that_runs_again_keeps_what_it_came_to_and_the_change_itself_is_pending() -> None:
    known = noted(ROW, *told(ROW))
    found = World(NOW, "main", rigs={1: RIG}, entries=(replace(GREEN, gates=()),), pulls=(known,))
    work = asked(of(found, "pull"))
    assert isinstance(work, effects.ReportPull)
    assert [(context, state) for context, state, _ in work.statuses] == [("gastown", "pending")]


def test_gates_with_long_names_have_a_status_each() -> None:
    names = ["x" * 150 + end for end in "ab"]
    rig = replace(RIG, config=effective({}, validate({"refinery": {"gates": names}, "pr": PR})))
    work = asked(of(world(ROW, rig=rig), "pull"))
    assert isinstance(work, effects.ReportPull)
    assert len({context[:100] for context, _, _ in work.statuses}) == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"state": PullState.CLOSED}, "pull request #7 is closed"),
        ({"head_repo": "ann/proj"}, "the branch of pull request #7 is in ann/proj, not in acme/proj"),
        ({"head_repo": ""}, "the branch of pull request #7 is in a repository that is gone, not in acme/proj"),
        ({"base": "release"}, "pull request #7 is for release, not for main"),
        ({"head": "e" * 40}, f"the head of pull request #7 is {'e' * 12}, not {GREEN.head[:12]}"),
    ],
)
def test_the_pull_request_that_an_agent_names_must_show_just_its_work(change: dict[str, Any], why: str) -> None:
    assert pullviews.unlike(replace(PULL, **change), "acme/proj", GREEN.head, "main") == why


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("https://github.com/acme/proj/pull/7", 7),
        ("https://github.com/Acme/Proj/pull/7/", 7),
        ("https://github.com/acme/other/pull/7", 0),
        ("https://github.com.evil.org/acme/proj/pull/7", 0),
        ("https://github.com/acme/proj/pull/7?x", 0),
        ("https://github.com/acme/proj/pull/0", 0),
        ("https://github.com/acme/proj/pull/" + "9" * 30, 0),
        ("javascript:alert(1)", 0),
        ("", 0),
    ],
)
def test_the_address_of_a_pull_request_is_one_of_the_rigs_repository(url: str, number: int) -> None:
    assert hosting.numbered(config(), "https://github.com/acme/proj.git", url) == number


def test_a_draft_is_made_ready_once_for_each_head() -> None:
    draft = replace(ROW, pull=replace(PULL, draft=True))
    work = asked(of(world(draft), "pull"))
    assert isinstance(work, effects.ReportPull) and work.ready
    known = noted(draft, *work.statuses)
    again = asked(of(world(known), "pull"))
    assert isinstance(again, effects.ReportPull) and (again.ready, again.statuses) == (True, ())
    ready = replace(known, said={**known.said, pullreports.READY: pullreports.mark(PULL.head)})
    assert not isinstance(asked(of(world(ready), "pull")), effects.ReportPull)  # a person has made it a draft again


def test_what_the_host_refuses_for_good_keeps_nothing_else_from_being_done() -> None:
    first = asked(of(world(ROW), "pull"))
    assert isinstance(first, effects.ReportPull)
    then = of(world(ROW, effects={first.key: EffectView("failed", "no right to")}), "pull")
    second = asked(then)
    assert isinstance(second, effects.TellPull)
    both = {work.key: EffectView("failed", "no right to") for work in (first, second)}
    assert of(world(ROW, effects=both), "pull").rule == "report-refused"


def test_who_lands_names_the_whole_commit_or_most_of_it() -> None:
    """A comment has no commit of its own, and a few characters can be met on purpose."""
    for sha in ("a" * 40, "a" * 16):
        assert commands.parse(f"/gastown land {sha}") == commands.Command("land", sha=sha)
    assert commands.parse("/gastown land").sha == ""
    assert commands.parse(f"/gastown land {'a' * 15}").wrong


def test_a_rig_that_has_left_its_host_has_no_trouble_with_it() -> None:
    key = f"{pulls.HOST}proj"
    (decision,) = pulls.decide(world(rig=replace(RIG, host=None), needs=frozenset({key})))
    assert isinstance(decision.actions[0], Settle) and decision.actions[0].key == key


def test_where_not_all_authors_are_known_nobody_approves_there_and_people_are_told() -> None:
    unknown = replace(PULL, authors_known=False, reviews=(review(),))
    row = replace(ROW, pull=unknown)
    assert not isinstance(asked(of(world(row), "pull")), effects.HearPull)
    (told,) = pullreports.to_tell(world(row), row, GREEN)
    assert isinstance(told[2], effects.TellPull) and any("who wrote all of its" in line for line in told[2].lines)
    assert pulls.has_made("nobody", unknown) and not pulls.has_made("rita", PULL) and pulls.has_made("BOT", PULL)
