"""The review's panel follows what people do: what was said, what follows, and no button for what is done already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from beads import config as configs
from beads import inbox, ledger
from beads.models import Fact, TownRole
from refinery.models import ReviewEntry
from refinery.store import entries, verdicts
from tests.web.ground import Ground, person

pytestmark = pytest.mark.django_db
LIVE = {"X-Gastown-Live": "1"}


@pytest.fixture
def ground(tmp_path: Path, settings: Any) -> Ground:
    """A rig where one person approves and the refinery then lands."""
    settings.GASTOWN_HOME = str(tmp_path)
    refinery = {"code_review": False, "gates": [], "allow_no_gates": True, "auto_merge": False}
    return Ground(tmp_path, refinery=refinery)


@pytest.fixture
def entry(ground: Ground) -> ReviewEntry:
    """A change that waits for one approval."""
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    return ground.submit()


def panel(client: Client, entry: ReviewEntry, *, live: bool = False) -> tuple[str, set[str]]:
    """What the panel says, and which buttons it has."""
    text = client.get(f"/reviews/{entry.pk}/", headers=LIVE if live else {}).content.decode()
    acts = text.partition('id="acts"')[2].partition("</section>")[0]
    said = re.sub(r"<[^>]+>", " ", acts.partition('id="said"')[2].partition("</div>")[0].partition(">")[2])
    return " ".join(said.split()), set(re.findall(rf"/reviews/{entry.pk}/([\w-]+)/", acts))


def post(client: Client, entry: ReviewEntry, verb: str, **form: Any) -> Any:
    return client.post(f"/reviews/{entry.pk}/{verb}/", {"head": entry.head_sha, **form})


def test_p8_an_approval_counts_at_once_and_what_follows_is_said(ground: Ground, entry: ReviewEntry) -> None:
    rita, olaf = person("rita"), person("olaf")
    said, buttons = panel(rita, entry)
    assert said == "0 of 1 approval of this head. 1 more approval is needed."
    assert buttons == {"approve", "merge", "request-changes", "reject"}
    answer = post(rita, entry, "approve")
    assert (answer.status_code, answer.url) == (302, f"/reviews/{entry.pk}/#acts")
    for live in (False, True):  # no tick has taken it in yet
        said, buttons = panel(rita, entry, live=live)
        assert re.match(r"You approved this head at \d\d:\d\d UTC . 1 of 1 approval of this head: web:rita.", said)
        assert said.endswith(" It lands next.")
        assert buttons == {"request-changes", "reject"}
        said, buttons = panel(olaf, entry, live=live)  # the other's page follows, too: nothing is left to approve
        assert said.startswith("web:rita approved this head") and "approve" not in buttons
    assert post(rita, entry, "approve").status_code == 302
    assert Fact.objects.filter(kind="entry.verdict").count() == 1
    ground.settle()
    entry.refresh_from_db()
    for client, by in ((rita, "you"), (olaf, "web:rita")):
        said, buttons = panel(client, entry)
        assert said == f"It has landed on main as {entry.merge_sha[:12]}; approved by {by}."
        assert buttons == set()
    late = post(olaf, entry, "approve")
    assert late.status_code == 409
    text = late.content.decode()
    assert f"{entry.pk} has landed on main as {entry.merge_sha[:12]}: there is nothing left to decide. Nothing" in text
    assert "of 1" not in text.partition('id="acts"')[2].partition("</section>")[0]


def test_p8_what_landed_without_approval_says_so(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    ground = Ground(tmp_path, refinery={"code_review": False, "gates": [], "allow_no_gates": True})
    ground.push("feature", {"a.py": "x\n"})
    entry = ground.submit()
    assert entry.state == "merged"
    said, _ = panel(person("rita"), entry)
    assert said.endswith("; approved by nobody, for none had to.")


def test_p8_it_waits_for_its_gates(ground: Ground, entry: ReviewEntry) -> None:
    refinery = {"code_review": False, "gates": ["true"], "auto_merge": False}
    ledger.set_config(ground.rig, configs.validate({"refinery": refinery}))
    rita = person("rita")
    post(rita, entry, "approve")
    said, _ = panel(rita, entry)
    assert said.endswith("It lands once its gates have passed.")


def test_p8_changes_are_requested(ground: Ground, entry: ReviewEntry) -> None:
    rita = person("rita")
    assert post(rita, entry, "request-changes", body="name it").status_code == 302
    said, buttons = panel(rita, entry)
    assert said.startswith("You asked for changes to this head at")
    assert said.endswith("It goes back to its author, and comes back here with a new head.")
    assert buttons == {"request-changes", "reject"}
    ground.settle()
    said, buttons = panel(rita, entry)
    assert "You asked for changes" in said and "is under way for it" in said
    assert "approve" not in buttons


def test_p8_a_rejection_leaves_nothing_to_press(ground: Ground, entry: ReviewEntry) -> None:
    rita = person("rita")
    assert post(rita, entry, "reject", reason="not wanted").status_code == 302
    said, buttons = panel(rita, entry)
    assert said.startswith("You rejected it at") and said.endswith("It leaves the queue.")
    assert buttons == set()
    ground.settle()
    said, buttons = panel(rita, ReviewEntry.objects.get(pk=entry.pk))
    assert (said, buttons) == ("It has left the queue: rejected.", {"retry"})
    assert post(rita, entry, "retry").status_code == 302
    said, buttons = panel(rita, entry)
    assert said.startswith("You asked to try again at") and said.endswith("It comes back into the queue.")
    assert buttons == set()
    assert post(rita, entry, "retry").status_code == 302  # a double click is one retry
    assert Fact.objects.filter(kind="entry.retry").count() == 1


@pytest.mark.long
def test_a_note_has_its_form_below_the_acts_and_stays_in_the_history(ground: Ground, entry: ReviewEntry) -> None:
    rita = person("rita")
    shown = rita.get(f"/reviews/{entry.pk}/").content.decode()
    assert f'action="/reviews/{entry.pk}/note/"' in shown and "Leave a note" in shown
    assert post(rita, entry, "note", text=" ").status_code == 302
    assert "text is empty" in rita.get(f"/reviews/{entry.pk}/").content.decode()
    assert post(rita, entry, "note", text="the API is <frozen>").status_code == 302
    ground.settle()
    shown = rita.get(f"/reviews/{entry.pk}/").content.decode()
    assert "Your note is kept for whoever works on it next." in shown and "the API is &lt;frozen&gt;" in shown
    assert ReviewEntry.objects.get(pk=entry.pk).state == "active"
    viewer = person("vera", role=TownRole.VIEWER)
    assert "Leave a note" not in viewer.get(f"/reviews/{entry.pk}/").content.decode()
    assert post(viewer, entry, "note", text="me, too").status_code == 403


def test_p8_a_held_one_is_let_go_on_once(ground: Ground, entry: ReviewEntry) -> None:
    rita = person("rita")
    entries.hold(entry.pk, "build_error", "the disk is full")
    said, buttons = panel(rita, entry)
    assert said.endswith("It is held until somebody lets it go on.") and "retry" in buttons
    for _ in range(2):
        assert post(rita, entry, "retry").status_code == 302
    said, buttons = panel(rita, entry)
    assert said.startswith("You asked to try again at") and "retry" not in buttons
    assert Fact.objects.filter(kind="entry.retry").count() == 1
    ground.settle()
    said, _ = panel(rita, entry)
    assert said.startswith("You asked to try again at") and said.endswith("1 more approval is needed.")


def test_p8_an_approval_of_an_older_head_is_none_of_this_one(ground: Ground, entry: ReviewEntry) -> None:
    rita = person("rita")
    verdicts.record(entry, verdicts.Review(head="f" * 40, decision="approve", by="web:rita"))
    inbox.record(
        ground.place.town, "entry.verdict", entry.pk, {"head": "e" * 40, "decision": "approve"}, actor="web:rita"
    )
    said, buttons = panel(rita, entry)
    assert said.startswith("0 of 1") and "approve" in buttons


def test_p8_one_objects_and_another_merges_over_it(ground: Ground, entry: ReviewEntry) -> None:
    rita, olaf = person("rita"), person("olaf")
    verdicts.record(
        entry, verdicts.Review(head=entry.head_sha, decision="request_changes", by="web:rita", feedback="no")
    )
    said, buttons = panel(olaf, entry)
    assert "web:rita asked for changes to this head" in said and {"approve", "merge"} <= buttons
    post(olaf, entry, "approve")
    said, buttons = panel(olaf, entry)
    assert said.startswith("You approved this head") and "web:rita asked for changes" in said
    assert "approve" in panel(rita, entry)[1]  # hers to take back


def test_p9_a_replaced_gates_result_is_shown_as_past(ground: Ground, entry: ReviewEntry) -> None:
    """In the page, and not in the place of a reason."""
    from agents.models import Run
    from refinery.models import GateResult

    candidate = entry.candidates.latest("pk")
    run = Run.objects.create(
        town=ground.place.town, rig=ground.rig, bead=entry.bead, kind="gates", purpose="gates", attempt=1,
        state="ended", outcome="done", target="main",
    )  # fmt: skip
    GateResult.objects.create(
        entry=entry, candidate=candidate, run=run, tree_sha=candidate.tree_sha, gate="unit", command="old",
        outcome="fail", exit_code=1, telling="unit: a.py:1 test_f: wrong",
    )  # fmt: skip
    text = person("rita").get(f"/reviews/{entry.pk}/").content.decode()
    assert "past: the config has replaced it" in text and 'class="rv-gate rv-past"' in text
    assert "test_f: wrong" not in text.partition('id="standing"')[2].partition("</div>")[0]
    refinery = {"code_review": False, "gates": [{"name": "unit", "run": "old"}], "auto_merge": False}
    ledger.set_config(ground.rig, configs.validate({"refinery": refinery}))
    assert "past: the config" not in person("olaf").get(f"/reviews/{entry.pk}/").content.decode()
