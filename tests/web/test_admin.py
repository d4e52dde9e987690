"""The ops console: nothing can be added, changed or deleted; *why* is told."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agents.models import Run
from beads import ledger
from beads.consoles import ReadOnlyAdmin, ReadOnlyInline
from beads.models import Bead, Convoy, Effect, Escalation, Fact, Rig
from refinery.models import ReviewEntry
from tests.db.conftest import Place
from tests.web.consoles import (
    CONSOLES,
    LABELS,
    OURS,
    WHY,
    escalation,
    held_entry,
    live_run,
    page,
    quarantined,
    staged,
    started,
)


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
