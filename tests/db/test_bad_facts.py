"""Facts that make no sense: each is quarantined with its reason, people see it, and the facts behind it go on."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DataError, connection, transaction
from django.db.models import JSONField, Value
from django.test import Client

from agents.models import Run
from agents.runtime.shim import MAX_REPORT, fit
from beads import inbox, outbox
from beads.errors import GastownError
from beads.models import Bead, Effect, Escalation, Fact
from gastown_site.management.commands import doctor
from refinery.core import effects as work
from refinery.executor import perform, registry
from refinery.facts.payloads import Payload
from refinery.facts.registry import fact
from refinery.models import Candidate, Landing, ReviewEntry, Verdict
from tests.db.conftest import SHA, Place

MEGABYTE = "x" * (1 << 20)
BUILT = {"build_no": 1, "result": "built", "head": SHA["a"], "base": SHA["b"], "sha": SHA["c"], "tree": SHA["d"]}
NAMED = "SUBJECT"  # stands for a row of the town's that the kind is about

BAD: tuple[tuple[str, str, Any, str], ...] = (
    # kind, subject, payload, what the reason names
    ("no.such.kind", "x", {}, "no.such.kind"),
    ("", "", {}, "kind"),
    ("candidate.built", "gt-missing", BUILT, "gt-missing"),
    ("candidate.built", NAMED, {}, "build_no"),
    ("candidate.built", NAMED, BUILT | {"build_no": "1"}, "build_no"),
    ("candidate.built", NAMED, BUILT | {"build_no": True}, "build_no"),
    ("candidate.built", NAMED, BUILT | {"build_no": 10**30}, "build_no"),
    ("candidate.built", NAMED, BUILT | {"build_no": -1}, "build_no"),
    ("candidate.built", NAMED, BUILT | {"result": "perfect"}, "result"),
    ("candidate.built", NAMED, BUILT | {"sha": ""}, "base, sha and tree"),
    ("candidate.built", NAMED, BUILT | {"sha": "--upload-pack=evil"}, "sha"),
    ("candidate.built", NAMED, BUILT | {"tree": None}, "tree"),
    ("candidate.built", NAMED, BUILT | {"files": "a.txt"}, "files"),
    ("candidate.built", NAMED, BUILT | {"error": MEGABYTE}, "error"),
    ("candidate.built", NAMED, [BUILT], "payload"),
    ("candidate.built", NAMED, None, "payload"),
    ("candidate.built", NAMED, "built", "payload"),
    ("landing.concluded", "one", {"state": "landed"}, "subject"),
    ("landing.concluded", "9" * 40, {"state": "landed"}, "subject"),
    ("landing.concluded", "٣", {"state": "landed"}, "subject"),
    ("landing.concluded", "12345", {"state": "landed"}, "12345"),
    ("landing.concluded", "12345", {"state": "on the moon"}, "state"),
    ("landing.concluded", "12345", {"state": "head_moved"}, "head"),
    ("branch.seen", "1", {"sha": "", "asked_at": "yesterday"}, "asked_at"),
    ("branch.seen", "1", {"sha": "", "asked_at": "2026-01-01T00:00:00"}, "asked_at"),
    ("branch.seen", "1", {"sha": ""}, "asked_at"),
    ("branch.seen", "77777", {"sha": "", "asked_at": "2026-01-01T00:00:00Z"}, "77777"),
    ("entry.verdict", NAMED, {"head": SHA["a"]}, "decision"),
    ("entry.verdict", NAMED, {"head": SHA["a"], "decision": "maybe"}, "decision"),
    ("entry.verdict", NAMED, {"head": "main", "decision": "approve"}, "head"),
    ("entry.verdict", NAMED, {"head": SHA["a"], "decision": "approve", "merge_now": "yes"}, "merge_now"),
    ("entry.verdict", NAMED, {"head": SHA["a"], "decision": "request_changes", "items": ["no"]}, "items"),
    ("entry.verdict", NAMED, {"head": SHA["a"], "decision": "request_changes", "feedback": MEGABYTE}, "feedback"),
    ("entry.reject", NAMED, {"reason": MEGABYTE}, "reason"),
    ("entry.reject", "gt-missing", {"reason": "no"}, "gt-missing"),
    ("entry.promote", NAMED, {"priority": 9}, "priority"),
    ("entry.promote", NAMED, {"priority": None}, "priority"),
    ("run.done", "run-missing", {}, "run-missing"),
    ("run.done", NAMED, {"summary": 5}, "summary"),
    ("run.done", NAMED, {"summary": MEGABYTE}, "summary"),
    ("run.request_changes", NAMED, {"feedback": ["no"]}, "feedback"),
    ("run.stop", "run-missing", {"reason": "no"}, "run-missing"),
    ("run.stop", NAMED, {"reason": ["no"]}, "reason"),
    ("run.published", "run-missing", {}, "run-missing"),
    ("escalation.raised", NAMED, {}, "title"),
    ("escalation.raised", NAMED, {"title": MEGABYTE}, "title"),
    ("escalation.raised", NAMED, {"title": "t", "severity": "apocalyptic"}, "severity"),
    ("escalation.close", "gt-missing", {}, "gt-missing"),
    ("bead.retry", "gt-missing", {}, "gt-missing"),
    ("bead.cancel", NAMED, {"reason": {"why": "so"}}, "reason"),
    ("convoy.start", "gt-missing", {}, "gt-missing"),
    ("effect.failed", "x", {"kind": "build", "key": "k", "error": "e", "payload": {}}, "build: entry"),
    ("effect.failed", "x", {"kind": "build", "key": "k", "error": "e", "payload": []}, "payload"),
    ("effect.struggling", "x", {"error": "e", "kind": "build"}, "key"),
)  # fmt: skip


class Scene:
    """A town where an entry is being built and a polecat works."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.entry = place.entry("feature")
        self.bead = place.bead("Paint the fence")
        place.tick()
        self.run, _ = place.running(kind="polecat")
        self.names = {"candidate": self.entry.pk, "entry": self.entry.pk, "run": self.run.pk, "bead": self.bead.pk}

    def tell(self, kind: str, subject: str, payload: Any) -> Fact:
        """Put the fact into the inbox as it is, past every door."""
        named = self.names.get(kind.partition(".")[0], self.run.pk)
        subject = named if subject == NAMED else subject
        stored = Value(None, JSONField()) if payload is None else payload
        return Fact.objects.create(town=self.place.town, kind=kind, subject=subject, payload=stored)

    def state(self) -> list[Any]:
        """What no bad fact may touch."""
        models = (Bead, Run, ReviewEntry, Candidate, Landing, Verdict, Escalation, Effect)
        return [list(model._default_manager.order_by("pk").values()) for model in models]


@pytest.fixture
def scene(place: Place) -> Scene:
    """The usual scene."""
    return Scene(place)


@pytest.mark.parametrize(("kind", "subject", "payload", "reason"), BAD, ids=lambda v: str(v)[:40])
def test_a_bad_fact_changes_nothing_and_is_quarantined_with_its_reason(
    scene: Scene, kind: str, subject: str, payload: Any, reason: str
) -> None:
    before = scene.state()
    bad = scene.tell(kind, subject, payload)
    for tries in range(inbox.MAX_TRIES):
        bad.refresh_from_db()
        assert (bad.attempts, bad.quarantined_at) == (tries, None)
        scene.place.tick()
    bad.refresh_from_db()
    assert bad.attempts == inbox.MAX_TRIES and bad.quarantined_at is not None and bad.processed_at is None
    assert reason in bad.error and len(bad.error) < 1000, bad.error[:300]
    assert scene.state() == before
    scene.place.tick()
    bad.refresh_from_db()
    assert bad.attempts == inbox.MAX_TRIES  # it is not looked at again


def test_all_of_them_at_once_delay_nobody_and_people_see_them(scene: Scene) -> None:
    operator = Client()
    operator.force_login(User.objects.create_superuser("olga"))
    for kind, subject, payload, _ in BAD:
        scene.tell(kind, subject, payload)
    other = scene.place.bead("Go on")
    inbox.record(scene.place.town, "bead.cancel", other.pk, {"reason": "not needed"}, actor="alice")
    scene.place.tick()
    assert Bead.objects.get(pk=other.pk).resolution == "cancelled"  # in the very first tick
    for _ in range(inbox.MAX_TRIES):
        scene.place.tick()
    assert Fact.objects.filter(quarantined_at__isnull=False).count() == len(BAD)
    assert f"{len(BAD)} in quarantine" in " ".join(say for _, _, say in doctor._queues())
    assert f"gastown_facts_quarantined {len(BAD)}.0" in operator.get("/metrics").content.decode()
    assert f"{len(BAD)} facts could not be taken in" in operator.get("/towns/main/").content.decode()
    listed = operator.get("/admin/beads/fact/?now=quarantined&q=no.such.kind").content.decode()
    assert "unknown kind of fact" in listed
    released = Fact.objects.filter(kind="no.such.kind").get()
    inbox.release(released)
    scene.place.tick()
    released.refresh_from_db()
    assert (released.attempts, released.quarantined_at) == (1, None)


def test_a_fact_of_another_town_reaches_nothing_here(scene: Scene) -> None:
    from beads import ledger

    before = scene.state()
    other = ledger.create_town("other")
    for kind, payload in (("run.stop", {}), ("run.published", {}), ("run.done", {}), ("candidate.built", BUILT)):
        fact = scene.tell(kind, NAMED, payload)
        Fact.objects.filter(pk=fact.pk).update(town=other)
    scene.place.town, here = other, scene.place.town
    for _ in range(inbox.MAX_TRIES):
        scene.place.tick()
    scene.place.town = here
    assert Fact.objects.filter(town=other, quarantined_at__isnull=False).count() == 4
    assert scene.state() == before


def test_words_that_the_database_cannot_store_are_told_with_a_mark_and_stop_nothing(scene: Scene) -> None:
    nasty = {"reason": "a\x00b\ud800c", "also": ["\x00", {"\x00": 1}]}
    assert inbox.record(scene.place.town, "bead.cancel", scene.bead.pk, nasty, actor="al\x00ice")
    stored = Fact.objects.get(kind="bead.cancel")
    assert stored.payload == {"reason": "a\ufffdb\ufffdc", "also": ["\ufffd", {"\ufffd": 1}]}
    scene.place.tick()
    assert Bead.objects.get(pk=scene.bead.pk).cancel_requested_at is not None


def test_an_effect_whose_failure_speaks_in_nul_bytes_is_still_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nasty(payload: object) -> None:
        raise GastownError(f"remote: \x00\ud800{MEGABYTE}")

    monkeypatch.setitem(registry.HANDLERS, "build", nasty)
    effect = scene.place.effects("build")[0]
    assert perform.run_effect(effect.pk) == "failed"
    effect.refresh_from_db()
    assert (effect.state, effect.error[:10]) == ("failed", "remote: \ufffd\ufffd")
    scene.place.tick()
    assert Candidate.objects.get(entry=scene.entry).result == "error"
    assert not Fact.objects.exclude(error="").exists()


def test_an_effect_of_an_unknown_kind_or_with_a_bad_payload_is_told_once_and_a_person_learns_of_it(
    scene: Scene,
) -> None:
    for kind, payload in (("teleport", {}), ("land", {}), ("delete_branch", {"rig": "x"})):
        outbox.enqueue(scene.place.town, kind, f"{kind}:bad", payload, scene.place.now)
        effect = Effect.objects.get(key=f"{kind}:bad")
        assert perform.run_effect(effect.pk) == "failed"
        assert perform.run_effect(effect.pk) == "skipped"
    for _ in range(inbox.MAX_TRIES):
        scene.place.tick()
    assert Escalation.objects.filter(key__in=["effect:teleport:main", "effect:delete_branch:main"]).count() == 2
    assert Fact.objects.filter(quarantined_at__isnull=False).count() == 1  # there is no landing to conclude


def test_a_wish_that_is_doubled_or_too_late_is_refused_with_a_note_and_is_no_alarm(scene: Scene) -> None:
    inbox.record(scene.place.town, "bead.retry", scene.bead.pk, {}, actor="alice")
    scene.place.tick()
    fact = Fact.objects.get(kind="bead.retry")
    assert fact.processed_at is not None and fact.quarantined_at is None
    assert "only a failed bead can be retried" in fact.error


def test_each_kind_of_work_has_one_handler() -> None:
    assert set(registry.HANDLERS) == set(work.KINDS)


def test_what_a_row_of_work_holds_is_read_as_what_was_written() -> None:
    now = dt.datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
    asked = (
        work.Build("gt-1", 2, SHA["a"], 1700000000, on=3, seal=None),
        work.Land(7),
        work.Publish("run-1"),
        work.CreateBranch(4, now),
        work.ObserveBranch(4, now),
        work.DeleteBranch(1, "gt/toast/1", SHA["a"], "gt-1"),
        work.Foresee(5, 6),
        work.Notify("landed", "main", "t", "b", "u", "gt-1"),
        work.PollHost(1),
        work.ReadPull(1, 7),
        work.OfferPull("gt-1"),
        work.HearPull(3, "r12", "approve"),
        work.PushPull(3, SHA["a"], SHA["b"]),
        work.ReportPull(3, SHA["a"], (("gastown", "success", "landing"),), "d", ready=True),
        work.TellPull(3, ("landing: green",), "d"),
        work.EndPull(3),
    )
    assert {type(one) for one in asked} == set(work.KINDS.values())
    for one in asked:
        stored = json.loads(json.dumps(one.payload()))
        again = work.read(one.name, stored | {"said_by": "a newer server"})
        assert (again, again.key) == (one, one.key)


def test_a_kind_of_fact_has_one_handler() -> None:
    with pytest.raises(AssertionError, match=r"entry\.note"):
        fact("entry.note", says=Payload)(lambda it: None)


def test_the_database_refuses_what_we_say_it_refuses(db: None) -> None:
    """The reason why `storable` exists."""
    for value in ('"\\u0000"', '"\\ud800"'):
        with pytest.raises(DataError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("select %s::jsonb", [value])


def test_a_shims_report_always_fits_through_the_door() -> None:
    raw = {"exit_code": 1, "signal": None, "timed_out": False}
    steps = [{"name": f"g{n}", "outcome_raw": raw, "output": "\x1b\x00" * (8 << 10)} for n in range(50)]
    told = fit({"exit_code": 1, "steps": steps, "error": "\x00" + MEGABYTE})
    assert len(json.dumps(told)) <= MAX_REPORT
    assert len(told["error"]) == 2000 and "\x00" not in json.dumps(told, ensure_ascii=False)
    assert all(len(step["output"]) > 64 for step in told["steps"])
    assert fit({"steps": []}) == {"steps": []}
