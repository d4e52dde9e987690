"""The ops console: nothing can be added, changed or deleted; every listed action opens its door; *why* is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agents.models import Run
from beads import inbox, ledger, outbox, plans
from beads.actors import Actor
from beads.consoles import ReadOnlyAdmin, ReadOnlyInline
from beads.lifecycle import BeadStatus, Resolution
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Rig, Town
from refinery.console.actions import ACTIONS
from refinery.decisions import merge_queue
from refinery.models import Lane, ReviewEntry
from tests.db.conftest import Place

WHY = "the build host is back"
OURS = ("beads", "agents", "refinery")
CONSOLES = sorted(
    ((m, c) for m, c in admin.site._registry.items() if m._meta.app_label in OURS), key=lambda mc: mc[0]._meta.label
)
LABELS = [m._meta.label for m, _ in CONSOLES]


def page(row: Model | type[Model]) -> str:
    """The list page of a row's table."""
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/"


def act(client: Client, action: str, row: Model) -> Any:
    """Choose an action for one row and say why, as the form does."""
    form = {"action": action, "_selected_action": [str(row.pk)], "reason": WHY}
    return client.post(page(row), form, follow=True)


def staged(place: Place) -> Convoy:
    """A staged convoy of one bead."""
    plan = plans.parse([{"key": "one", "title": "One"}], "plan", place.rig, lambda slug: place.rig)
    return ledger.create_convoy(place.rig, "Square", "review-and-merge", plan, actor="test")


def started(place: Place) -> Convoy:
    """The same, started."""
    convoy = staged(place)
    inbox.record(place.town, "convoy.start", convoy.pk, {}, actor="test")
    place.tick()
    return Convoy.objects.get(pk=convoy.pk)


def failed_bead(place: Place, bead: Bead | None = None) -> Bead:
    """A bead that gave up."""
    bead = bead or place.bead("Paint")
    bead.refresh_from_db()
    ledger.move(
        bead,
        bead.status,
        ledger.Transition(BeadStatus.FAILED, reason="gave up", resolution=Resolution.GAVE_UP),
        actor="test",
    )
    return Bead.objects.get(pk=bead.pk, status="failed")


def filed_bead(place: Place) -> Bead:
    """What an agent has filed, and nobody has released."""
    filed = ledger.Filed("run-test0000", 1, waits=True)
    return ledger.create_bead(place.town, place.rig, ledger.Draft("Idea"), actor="Rust", filed=filed)


def nothing_changed(place: Place) -> Bead:
    """A bead whose agent changed nothing."""
    bead = failed_bead(place)
    Bead.objects.filter(pk=bead.pk).update(resolution=Resolution.NOTHING_CHANGED)
    return Bead.objects.get(pk=bead.pk)


def failed_convoy(place: Place) -> Convoy:
    """A started convoy whose bead failed."""
    convoy = started(place)
    failed_bead(place, convoy.beads.get())
    return Convoy.objects.get(pk=convoy.pk)


def held_entry(place: Place) -> ReviewEntry:
    """An entry that was rejected: retry brings it back."""
    entry = place.entry()
    inbox.record(place.town, "entry.reject", entry.pk, {"reason": "no"}, actor="test")
    place.tick()
    return ReviewEntry.objects.get(pk=entry.pk, state="failed")


def admitted_entry(place: Place) -> ReviewEntry:
    """An entry in its lane's slot."""
    entry = place.entry()
    place.tick()
    return ReviewEntry.objects.get(pk=entry.pk, admitted_at__isnull=False)


def superseded_entry(place: Place) -> ReviewEntry:
    """An entry whose branch has a newer one."""
    old = place.entry(head="a" * 40)
    place.entry(head="b" * 40)
    return ReviewEntry.objects.get(pk=old.pk, state="failed")


def frozen_lane(place: Place) -> Lane:
    """A lane in which nothing moves."""
    merge_queue.freeze(place.rig, by=Actor("", "test"), reason="release")
    return Lane.objects.get(rig=place.rig)


def drained_fact(place: Place) -> Fact:
    """An observation that was taken in."""
    inbox.record(place.town, "run.published", live_run(place).pk)
    place.tick()
    return Fact.objects.get(kind="run.published", processed_at__isnull=False)


def live_run(place: Place) -> Run:
    """A polecat at work."""
    place.bead()
    place.tick()
    return place.running(kind="polecat")[0]


def quarantined(place: Place) -> Fact:
    """A fact that nobody understands, tried three times."""
    inbox.record(place.town, "no.such.kind")
    for _ in range(inbox.MAX_TRIES):
        place.tick()
    return Fact.objects.get(quarantined_at__isnull=False)


def failed_effect(place: Place) -> Effect:
    """An effect that was given up."""
    outbox.enqueue(place.town, "build", "build:test:1", {}, place.now)
    effect = Effect.objects.get(key="build:test:1")
    outbox.give_up(effect, place.now, "no")
    return effect


def escalation(place: Place) -> Escalation:
    """An open escalation."""
    bead = ledger.escalate(place.town, ledger.Problem("test", "Look"), actor="test")
    assert bead is not None
    return Escalation.objects.get(pk=bead.pk)


def paused(place: Place) -> Town:
    """A paused town."""
    ledger.pause_town(place.town, "lunch")
    return place.town


def parked(place: Place) -> Rig:
    """A parked rig."""
    ledger.park_rig(place.rig)
    return place.rig


def of_place(name: str) -> Callable[[Place], Any]:
    """The place's own town or rig."""
    return lambda place: getattr(place, name)


CASES: dict[str, tuple[Callable[[Place], Any], dict[str, Any] | str]] = {
    # action: (a row it is meant for, the kind of fact it records, or what the row must hold afterwards)
    "cancel_bead": (lambda p: p.bead(), "bead.cancel"),
    "release_bead": (filed_bead, "bead.release"),
    "retry_bead": (failed_bead, "bead.retry"),
    "confirm_bead": (nothing_changed, "bead.confirm"),
    "retry_entry": (held_entry, "entry.retry"),
    "reject_entry": (lambda p: p.entry(), "entry.reject"),
    "requeue_entry": (admitted_entry, "entry.requeue"),
    "promote_entry": (lambda p: p.entry(), "entry.promote"),
    "land_now_entry": (lambda p: p.entry(), "entry.land_now"),
    "skip_gates_entry": (lambda p: p.entry(), "entry.land_now"),
    "stop_run": (live_run, "run.stop"),
    "fence_run": (live_run, "run.fence"),
    "pause_town": (of_place("town"), {"paused_reason": WHY}),
    "resume_town": (paused, {"paused_at": None, "paused_reason": ""}),
    "park_rig": (of_place("rig"), {"parked_at__isnull": False}),
    "unpark_rig": (parked, {"parked_at": None}),
    "freeze_lane": (of_place("rig"), {"lanes__frozen_by": "admin:olga", "lanes__frozen_reason": WHY}),
    "thaw_lane": (frozen_lane, {"frozen_at": None, "frozen_reason": ""}),
    "start_convoy": (staged, "convoy.start"),
    "close_convoy": (started, "convoy.close"),
    "retry_convoy": (failed_convoy, "convoy.retry"),
    "release_fact": (quarantined, {"quarantined_at": None, "attempts": 0}),
    "replay_fact": (drained_fact, {"processed_at__isnull": False}),
    "run_effect_again": (failed_effect, {"state": "pending", "attempts": 0}),
    "acknowledge": (escalation, "escalation.ack"),
    "close_escalation": (escalation, "escalation.close"),
}


def test_every_listed_action_is_walked() -> None:
    assert set(CASES) == set(ACTIONS)


def test_every_action_is_offered_by_exactly_one_console_and_described() -> None:
    offered = [a for _, console in CONSOLES for a in console.actions or ()]
    assert sorted(a.__name__ for a in offered) == sorted(ACTIONS)  # type: ignore[union-attr]
    assert all(a.short_description for a in offered)  # type: ignore[union-attr]


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_action_opens_its_door_and_names_its_actor(place: Place, operator: Client, name: str) -> None:
    make, wanted = CASES[name]
    row = make(place)
    answer = act(operator, name, row)
    assert answer.status_code == 200
    assert f"{ACTIONS[name].short_description}: recorded for 1" in answer.content.decode()
    if isinstance(wanted, str):
        fact = Fact.objects.get(kind=wanted, subject=row.pk, processed_at=None)
        assert (fact.actor, fact.town_id) == ("admin:olga", place.town.pk)
        assert fact.payload["reason"] == WHY
        place.tick()
        fact.refresh_from_db()
        assert (fact.processed_at is not None, fact.error) == (True, "")
    else:
        assert type(row).objects.filter(pk=row.pk, **wanted).exists()
        assert any(WHY in str(f.payload) for f in Fact.objects.filter(actor="admin:olga"))
    log = LogEntry.objects.get()
    assert (log.user.get_username(), log.object_id) == ("olga", str(row.pk))
    assert WHY in log.get_change_message()


@pytest.mark.django_db
@pytest.mark.parametrize("reason", [None, "", "   "])
@pytest.mark.parametrize("name", sorted(CASES))
def test_without_a_reason_nothing_is_done(place: Place, operator: Client, name: str, reason: str | None) -> None:
    row = CASES[name][0](place)
    before = Fact.objects.count(), type(row).objects.filter(pk=row.pk).values().get()
    form = {"action": name, "_selected_action": [str(row.pk)]} | ({} if reason is None else {"reason": reason})
    answer = operator.post(page(row), form)
    assert answer.status_code == (200 if reason is None else 400)
    text = answer.content.decode()
    assert "Why?" in text
    assert ("Say why" in text) == (reason is not None)
    assert (Fact.objects.count(), type(row).objects.filter(pk=row.pk).values().get()) == before
    assert not LogEntry.objects.exists()


REFUSED: dict[str, tuple[Callable[[Place], Any], str]] = {
    "cancel_bead": (failed_bead, "is failed already"),
    "release_bead": (lambda p: p.bead(), "waits for no release"),
    "retry_bead": (lambda p: p.bead(), "only a failed issue"),
    "retry_entry": (lambda p: p.entry(), "is not held"),
    "reject_entry": (superseded_entry, "has left the queue"),
    "start_convoy": (started, "was started before"),
    "retry_convoy": (staged, "nothing that failed"),
    "requeue_entry": (lambda p: p.entry(), "is in no train"),
    "promote_entry": (held_entry, "has left the queue"),
    "replay_fact": (quarantined, "was not drained yet"),
    "release_fact": (drained_fact, "is not in quarantine"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_door_refuses_is_said_and_not_recorded(place: Place, operator: Client, name: str) -> None:
    make, said = REFUSED[name]
    row = make(place)
    before = Fact.objects.count()
    answer = act(operator, name, row)
    assert said in answer.content.decode()
    assert "recorded for" not in answer.content.decode()
    assert Fact.objects.count() == before


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CASES))
def test_who_is_not_staff_opens_no_door(place: Place, reviewer: Client, name: str) -> None:
    row = CASES[name][0](place)
    before = Fact.objects.count()
    answer = reviewer.post(page(row), {"action": name, "_selected_action": [str(row.pk)]})
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")
    assert Fact.objects.count() == before


@pytest.mark.parametrize(("model", "console"), CONSOLES, ids=LABELS)
def test_no_console_adds_changes_or_deletes(model: type[Model], console: admin.ModelAdmin[Any]) -> None:
    assert isinstance(console, ReadOnlyAdmin)
    root = User(username="root", is_staff=True, is_superuser=True)
    request = type("Request", (), {"user": root})()
    assert not console.has_add_permission(request)
    assert not console.has_change_permission(request)
    assert not console.has_delete_permission(request)
    assert console.has_view_permission(request)
    for inline in console.inlines:
        assert issubclass(inline, ReadOnlyInline)
        made: Any = inline(model, admin.site)
        assert not made.has_add_permission(request, None)
        assert not made.has_change_permission(request, None)
        assert not made.can_delete


@pytest.mark.django_db
def test_posting_to_the_forms_changes_nothing(place: Place, operator: Client) -> None:
    rows: list[Model] = [place.town, place.rig, place.bead("Keep me"), place.entry(), staged(place), escalation(place)]
    for row in rows:
        before = type(row)._default_manager.filter(pk=row.pk).values().get()
        for tail in ("change/", "delete/"):
            path = f"{page(row)}{row.pk}/{tail}"
            assert operator.post(path, {"title": "Changed", "slug": "changed", "post": "yes"}).status_code == 403, path
        assert operator.post(f"{page(row)}add/", {"title": "New"}).status_code == 403
        bulk = operator.post(page(row), {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
        assert bulk.status_code in (302, 403)
        assert type(row)._default_manager.filter(pk=row.pk).values().get() == before


@pytest.mark.django_db
def test_every_registered_table_can_be_searched_filtered_and_opened(place: Place, operator: Client) -> None:
    live_run(place)
    quarantined(place)
    escalation(place)
    held_entry(place)
    started(place)
    opened = 0
    for model, console in CONSOLES:
        assert operator.get(page(model)).status_code == 200
        if console.search_fields:
            assert operator.get(page(model), {"q": "gt-"}).status_code == 200
        row = model._default_manager.first()
        if row is not None:
            assert operator.get(f"{page(model)}{row.pk}/change/").status_code == 200, model
            opened += 1
    assert opened >= 8


@pytest.mark.django_db
def test_secrets_are_not_shown(place: Place, operator: Client) -> None:
    run = live_run(place)
    Rig.objects.filter(pk=place.rig.pk).update(remote_url="https://bob:hunter2@example.org/x.git")
    text = operator.get(f"/admin/agents/run/{run.pk}/change/").content.decode()
    assert run.token_hash
    assert run.token_hash not in text
    assert run.claim_hash
    assert run.claim_hash not in text
    assert "hunter2" not in operator.get(f"/admin/beads/rig/{place.rig.pk}/change/").content.decode()


@pytest.mark.django_db
def test_why_is_told_on_beads_entries_runs_and_convoys(place: Place, operator: Client) -> None:
    first = place.bead("First")
    second = place.bead("Second", first)
    entry, convoy = place.entry(), staged(place)
    rows: list[tuple[Model, str]] = [(second, first.pk), (entry, ""), (convoy, "")]
    for row, said in rows:
        text = operator.get(f"{page(row)}{row.pk}/change/").content.decode()
        assert "Why is this stuck?" in text
        assert said in text
        assert "it has ended, or nothing is decided about it" not in text, row
    place.tick()
    run = Run.objects.get(bead=first)
    assert "Why is this stuck?" in operator.get(f"{page(run)}{run.pk}/change/").content.decode()


@pytest.mark.django_db
def test_an_operator_needs_no_permission_rows_and_a_plain_permission_opens_nothing(place: Place) -> None:
    """`is_staff` is what lets people in; a stray `delete_bead` permission does not make rows deletable."""
    bead = place.bead()
    staff = User.objects.create_user("sam", is_staff=True)
    staff.user_permissions.add(*Permission.objects.filter(codename__in=["delete_bead", "change_bead", "add_bead"]))
    client = Client()
    client.force_login(staff)
    assert client.get(page(bead)).status_code == 200
    assert client.post(f"{page(bead)}{bead.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"{page(bead)}add/", {"title": "x"}).status_code == 403
    assert Bead.objects.filter(pk=bead.pk).exists()


@pytest.mark.django_db
def test_the_task_queue_is_still_in_the_console(operator: Client) -> None:
    text = operator.get("/admin/").content.decode()
    assert "/admin/django_q/" in text
    assert {m._meta.app_label for m in admin.site._registry} >= {*OURS, "django_q"}


@pytest.mark.django_db
def test_only_what_makes_sense_is_offered_and_the_way_back_is_ours(place: Place, operator: Client) -> None:
    bead = place.bead()
    path = f"{page(bead)}{bead.pk}/change/"
    text = operator.get(path).content.decode()
    assert 'value="cancel_bead"' in text
    assert 'value="retry_bead"' not in text
    assert f'href="/beads/{bead.pk}/"' in text
    form = {"action": "cancel_bead", "_selected_action": [bead.pk], "reason": WHY}
    assert operator.post(page(bead), {**form, "next": path})["Location"] == path
    elsewhere = operator.post(page(bead), {**form, "next": "https://evil.example/"})
    assert elsewhere["Location"] == page(bead)


@pytest.mark.django_db
def test_a_list_asks_as_often_for_many_rows_as_for_few(place: Place, operator: Client) -> None:
    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as caught:
            assert operator.get(path).status_code == 200
        return len(caught)

    paths = [page(m) for m in (Bead, ReviewEntry, Run, Fact, Effect, Escalation, Convoy)] + ["/admin/"]
    blocked = place.bead("Last", place.bead("Before"))
    place.entry("b0")
    staged(place)
    ledger.escalate(place.town, ledger.Problem("k0", "Look"), actor="test")
    place.tick()
    paths.append(f"{page(blocked)}{blocked.pk}/change/")
    operator.get("/admin/")  # content types and the like are remembered from here on
    few = {path: queries(path) for path in paths}
    for number in range(1, 12):
        ledger.block(blocked, [place.bead(f"Work {number}")])
        place.entry(f"b{number}")
        staged(place)
        ledger.escalate(place.town, ledger.Problem(f"k{number}", "Look"), actor="test")
    place.tick()
    many = {path: queries(path) for path in paths}
    assert {p: n - few[p] for p, n in many.items() if n > few[p]} == {}
    assert max(many.values()) <= 60
