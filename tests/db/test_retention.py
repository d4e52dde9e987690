"""Years: what has landed goes after its time, archived first; what is open, unlanded or referred to stays."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.utils import timezone

from agents import mail
from agents.models import Agent, Mail, Run, ToolCall
from agents.runtime import crashpoints
from agents.runtime.gitcmd import run_git
from beads import config as configs
from beads import inbox, ledger, upkeep
from beads.errors import Invalid
from beads.models import Bead, BeadEvent, ConfigVersion, Effect, Fact
from refinery.executor import archive, housekeeping
from refinery.git.mirror import repo_of
from refinery.models import Candidate, GateResult, Landing, ReviewEntry, TickRecord
from refinery.tick import invariants
from tests.db.conftest import SHA, Place

YEARS = dt.timedelta(days=800)
# Tables that do not grow with what is done, and why each row of the others goes is in refinery.executor.retention.
LASTS = {
    "beads.Town", "beads.Rig", "beads.Membership", "beads.Secret", "refinery.TickTotal", "refinery.Forecast",
    "refinery.Stack", "refinery.LostDecision", "beads.Outage", "beads.Installation", "auth.User", "refinery.RigHost",
    "auth.Group", "auth.Permission", "contenttypes.ContentType", "django_q.Schedule",
    "django_q.OrmQ", "axes.AccessAttemptExpiration", "axes.AccessLog", "axes.AccessFailureLog",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)


def landed(place: Place, title: str = "Work") -> tuple[Bead, ReviewEntry]:
    """A bead that an agent has worked on, gated and landed."""
    bead = place.bead(title)
    place.tick()
    run, _ = place.running(bead=bead, kind="polecat")
    place.say(run, "run.done", summary="done")
    place.exit(run, head=f"{Bead.objects.count():040x}", work="new")
    place.tick()
    entry = ReviewEntry.objects.get(source=bead)
    place.built(entry, tree=f"{Bead.objects.count():039x}c")
    place.gated()
    landing = Landing.objects.get(entry=entry)
    Landing.objects.filter(pk=landing.pk).update(state="pushing")
    inbox.record(place.town, "landing.concluded", str(landing.pk), {"state": "landed", "message": ""})
    place.tick()
    bead.refresh_from_db()
    entry.refresh_from_db()
    assert (bead.resolution, entry.state) == ("merged", "merged"), bead.reason
    Effect.objects.update(state="done", finished_at=place.now)  # nobody runs them here
    ToolCall.objects.create(run=run, tool="gt_done", request_hash="", status=200, response={"ok": True})
    return bead, entry


def kept(town: str = "main") -> dict[tuple[str, Any], dict[str, Any]]:
    """All that is in the archive."""
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    for file in sorted((archive.folder() / town).glob("*.gz")):
        assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
        found |= archive.read(file)
    return found


@pytest.mark.django_db
def test_o14_landed_work_goes_after_its_time_and_is_in_the_archive(place: Place) -> None:
    bead, entry = landed(place)
    mail.send(place.town, "overseer", "mayor", mail.Letter("About it", about=bead))
    repo = repo_of(place.rig)
    tree = run_git(["hash-object", "-t", "tree", "-w", "/dev/null"], cwd=repo.path).text
    sha = run_git(["commit-tree", tree, "-m", "x"], cwd=repo.path).text
    run = Run.objects.get(bead=bead, kind="polecat")
    ours = [
        f"refs/gastown/runs/{run.pk}",
        f"refs/gastown/branches/{run.pk}/side",
        f"refs/gastown/fetched/{entry.head_sha}",
    ]
    for ref in (*ours, "refs/tags/v1", "refs/gastown/remote/main", "refs/gastown/runs/run-other"):
        run_git(["update-ref", ref, sha], cwd=repo.path)
    before = {
        model: {str(pk) for pk in model._default_manager.values_list("pk", flat=True)}
        for model in (Bead, BeadEvent, Run, ReviewEntry, Candidate, GateResult, Landing, ToolCall)
    }
    assert all(before.values())

    assert not housekeeping.collect(place.now + dt.timedelta(days=200))["beads"]
    assert Bead.objects.filter(pk=bead.pk).exists() and not ToolCall.objects.exists()  # calls are kept for 90 days
    gone = housekeeping.collect(place.now + YEARS)
    assert gone["beads"] == 2
    for model, keys in before.items():
        assert not model._default_manager.exists(), model
        assert {str(pk) for table, pk in kept() if table == model._meta.db_table} >= keys, model
    row = kept()["beads_bead", bead.pk]
    assert (row["title"], row["merge_sha"], row["resolution"]) == ("Work", entry.merge_sha, "merged")
    assert not Mail.objects.exists() and not Fact.objects.exists() and not Effect.objects.filter(state="done").exists()
    left = run_git(["for-each-ref", "--format=%(refname)"], cwd=repo.path).text.split()
    assert left == ["refs/gastown/remote/main", "refs/gastown/runs/run-other", "refs/tags/v1"]
    assert housekeeping.collect(place.now + YEARS)["beads"] == 0
    landed(place, "The next one")  # numbers, names and rules do not miss what is gone
    assert not invariants.look(place.town, place.now)


@pytest.mark.django_db
def test_o14_what_is_open_unlanded_or_referred_to_stays(place: Place) -> None:
    first, _ = landed(place, "First")
    second, _ = landed(place, "Second")
    third, _ = landed(place, "Third")
    waits = place.bead("Waits for the second", second)
    ledger.request_cancel(waits, place.now)
    opened = place.bead("Open, and waits for the first", first)
    ledger.escalate(place.town, ledger.Problem("about", "Look", about=third), actor="test")
    failed = ledger.create_bead(place.town, place.rig, ledger.Draft("Failed"), actor="test")
    ledger.move(
        failed, "open", ledger.Transition("failed", reason="its agent gave up", resolution="gave_up"), actor="test"
    )
    cancelled = ledger.create_bead(place.town, place.rig, ledger.Draft("Cancelled, with a commit"), actor="test")
    ledger.move(cancelled, "open", ledger.Transition("closed", resolution="cancelled"), actor="test", now=place.now)
    Run.objects.create(
        town=place.town, rig=place.rig, bead=cancelled, kind="polecat", purpose="work", attempt=1, target="main",
        state="ended", outcome="done", head_sha=SHA["d"], ended_at=place.now,
    )  # fmt: skip
    place.tick()
    waits.refresh_from_db()
    assert waits.status == "closed"
    housekeeping.collect(place.now + YEARS)
    left = set(Bead.objects.filter(type="issue").values_list("title", flat=True))
    assert left == {"First", "Third", "Open, and waits for the first", "Failed", "Cancelled, with a commit"}
    assert Landing.objects.count() == GateResult.objects.count() == 2  # with all that hangs on them
    assert not invariants.look(place.town, place.now)
    opened.refresh_from_db()
    ledger.move(opened, opened.status, ledger.Transition("closed", resolution="done"), actor="test", now=place.now)
    assert not housekeeping.collect(place.now + YEARS)["beads"], "its run is still to be ended"
    Run.objects.filter(bead=opened).update(state="ended", outcome="stopped", ended_at=place.now)
    housekeeping.collect(place.now + YEARS)
    assert not Bead.objects.filter(pk=first.pk).exists() and Bead.objects.filter(pk=third.pk).exists()


@pytest.mark.django_db
def test_o14_a_convoy_goes_as_a_whole_and_not_while_one_of_its_beads_is_needed(place: Place) -> None:
    plan: list[dict[str, Any]] = [
        {"key": key, "title": key, "body": "", "priority": 2, "after": [], "rig": place.rig} for key in ("one", "two")
    ]
    convoy = ledger.create_convoy(place.rig, "Fair", "review-and-merge", plan, actor="test")
    refinery = Agent.objects.create(
        town=place.town, rig=place.rig, name="its-refinery", role="refinery", convoy=convoy, retired_at=place.now
    )
    for bead in (*convoy.beads.all(), convoy.bead):
        ledger.move(bead, "open", ledger.Transition("closed", resolution="done"), actor="test", now=place.now)
    needed = place.bead("After one", convoy.beads.get(plan_key="one"))
    housekeeping.collect(place.now + YEARS)
    assert convoy.beads.count() == 2 and Agent.objects.filter(pk=refinery.pk).exists()
    ledger.move(needed, "open", ledger.Transition("closed", resolution="done"), actor="test", now=place.now)
    assert housekeeping.collect(place.now + YEARS)["beads"] == 4
    assert not Bead.objects.exists() and not Agent.objects.filter(pk=refinery.pk).exists()
    assert {("beads_convoy", convoy.pk), ("agents_agent", refinery.pk)} <= set(kept())


@pytest.mark.django_db
def test_o14_how_long_is_configured_and_a_config_that_cannot_be_read_removes_nothing(place: Place) -> None:
    landed(place)
    ledger.set_config(place.town, configs.validate({**place.town.config, "retention": {"work": "forever"}}))
    ledger.set_config(place.rig, configs.validate({"retention": {"work": "1d", "archives": "3000d"}}))
    assert not housekeeping.collect(place.now + YEARS)["beads"], "the most patient one decides"
    type(place.town).objects.update(config={"retention": {"work": "soon"}})
    assert not housekeeping.collect(place.now + YEARS)["facts"]
    type(place.town).objects.update(config={"retention": {"work": "30d"}})
    assert not housekeeping.collect(place.now + dt.timedelta(days=60))["beads"], "its saved work is kept for longer"
    assert housekeeping.collect(place.now + dt.timedelta(days=100))["beads"] == 2
    assert ConfigVersion.objects.count() == 2, "the latest of each stays"
    for wrong in ("0d", "40000d", "1y", "never", 5):
        with pytest.raises(Invalid, match=r"retention\.work"):
            configs.validate({"retention": {"work": wrong}})
    whole = configs.effective({"retention": {"work": "forever", "archives": "4000d"}}, {}).model_dump(mode="json")
    assert (whole["retention"]["work"], whole["retention"]["archives"]) == ("forever", "4000d")


@pytest.mark.django_db
def test_o14_a_full_disk_keeps_the_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    landed(place)
    facts = Fact.objects.count()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    housekeeping.collect(place.now + YEARS)
    assert Fact.objects.count() == facts and Bead.objects.count() == 2
    monkeypatch.undo()
    assert housekeeping.collect(place.now + YEARS)["beads"] == 2
    assert len({pk for table, pk in kept() if table == "beads_fact"}) == facts


@pytest.mark.django_db
def test_o14_sessions_go_without_a_trace_and_old_archives_by_config(place: Place) -> None:
    Session.objects.create(session_key="old", session_data="who", expire_date=timezone.now() - dt.timedelta(days=1))
    Session.objects.create(session_key="live", session_data="who", expire_date=timezone.now() + dt.timedelta(days=1))
    housekeeping.collect(timezone.now())
    assert list(Session.objects.values_list("session_key", flat=True)) == ["live"]
    old = archive.folder() / "main" / "2001-12.jsonl.gz"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_bytes(b"")
    housekeeping.collect(timezone.now())
    assert old.exists()
    ledger.set_config(place.town, configs.validate({**place.town.config, "retention": {"archives": "3000d"}}))
    assert housekeeping.collect(timezone.now())["archives"] == 1 and not old.exists()
    assert not [table for table, _ in kept(archive.INSTALLATION) if "session" in table]


@pytest.mark.django_db(transaction=True)
def test_o14_ticks_and_new_references_are_not_held_up_and_what_comes_to_be_referred_to_stays(place: Place) -> None:
    """The town's lock is held by a tick, all the while; then a bead comes to wait for one that is about to go."""
    bead, _ = landed(place)
    gone: dict[str, int] = {}

    def collect() -> None:
        try:
            gone.update(housekeeping.collect(place.now + YEARS))
        finally:
            connection.close()

    with transaction.atomic():
        ledger.lock_town(place.town)
        beside = threading.Thread(target=collect)
        beside.start()
        beside.join(60)
        assert not beside.is_alive() and gone["beads"] == 2
    bead, _ = landed(place, "Another")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")
        place.bead("Comes in between", bead)  # not committed yet: nobody sees it, but what it refers to is locked
        beside = threading.Thread(target=collect)
        beside.start()
        beside.join(60)
        assert not beside.is_alive()
    assert gone["beads"] == 0 and Bead.objects.filter(pk=bead.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_o14_nothing_is_removed_while_a_backup_is_taken(place: Place) -> None:
    landed(place)
    gone: dict[str, int] = {}

    def collect() -> None:
        try:
            gone.update(housekeeping.collect(place.now + YEARS))
        finally:
            connection.close()

    with upkeep.undisturbed():
        beside = threading.Thread(target=collect)
        beside.start()
        beside.join(60)
        assert not beside.is_alive() and "beads" not in gone
    collect()
    assert gone["beads"] == 2


def _die(now: dt.datetime) -> int:
    """In a fork that is killed on its way; returns how it ended."""
    connection.close()
    child = os.fork()
    if child == 0:
        try:
            housekeeping.collect(now)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["archive.noted", "archive.begun", "archive.kept"])
def test_o14_whoever_is_killed_on_the_way_loses_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    bead, _ = landed(place)
    rows = {("beads_fact", pk) for pk in Fact.objects.values_list("pk", flat=True)}
    rows |= {("beads_beadevent", pk) for pk in BeadEvent.objects.values_list("pk", flat=True)}
    rows |= {("refinery_tickrecord", pk) for pk in TickRecord.objects.values_list("pk", flat=True)}
    monkeypatch.setattr(crashpoints, "_armed", str(tmp_path))
    died = 0
    for _ in range(40):  # at each batch in its turn
        (tmp_path / point).touch()
        status = _die(place.now + YEARS)
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        died += 1
        there = set(kept())
        for table, pk in rows:
            model = {"beads_fact": Fact, "beads_beadevent": BeadEvent, "refinery_tickrecord": TickRecord}[table]
            assert (table, pk) in there or model._default_manager.filter(pk=pk).exists(), (table, pk)
        if point != "archive.kept":
            break  # the batch that was cut off is taken away, and written again, below
    (tmp_path / point).unlink(missing_ok=True)
    assert died
    housekeeping.collect(place.now + YEARS)
    assert not Bead.objects.filter(pk=bead.pk).exists() and rows <= set(kept())
    for file in (archive.folder() / "main").glob("*.gz"):  # anybody's gzip reads it
        with gzip.open(file, "rt") as lines:
            assert all(json.loads(line)["table"] for line in lines)


def test_o14_every_table_lasts_by_intent_or_goes_after_its_time() -> None:
    """A new table that grows must be archived and removed; whoever adds one decides it here."""
    text = Path(housekeeping.__file__).with_name("retention.py").read_text()
    writers = "".join(
        (Path(__file__).parents[2] / name).read_text()
        for name in (
            "beads/inbox.py", "beads/outbox.py", "beads/ops.py", "beads/ledger/beads.py", "beads/ledger/towns.py",
            "agents/mail.py",
            "refinery/tick/invariants.py", "refinery/tick/metrics.py", "refinery/store/lanes.py",
        )
    )  # fmt: skip
    for model in apps.get_models():
        if model._meta.label not in LASTS and not model._meta.proxy:
            name = model.__name__
            assert f"{name}.objects" in text or ("def past" in writers and f"{name}.objects" in writers), model
