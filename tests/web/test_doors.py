"""R8: every route but /healthz refuses a stranger, found by walking the URLconf; R19: every admin action is listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from refinery.console.actions import ACTIONS
from tests.db.conftest import Place

OPEN = {"/healthz", "/accounts/login/", "/admin/login/", "/admin/logout/"}  # forms that ask who you are


def routes(patterns: Any, prefix: str = "/") -> Iterator[str]:
    for entry in patterns:
        text = str(entry.pattern)
        for bit, filler in (
            ("<slug:slug>", "main"),
            ("<slug:provider>", "github"),
            ("<slug:rig>", "proj"),
            ("<str:key>", "gt-1"),
            ("<str:run_id>", "run-1"),
        ):
            text = text.replace(bit, filler)
        text = text.replace("<str:verb>", "approve").replace("<str:name>", "gt_prime").replace("<path:object_id>", "1")
        text = text.replace("<int:content_type_id>/<path:object_id>", "1/1").replace("<app_label>", "beads")
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, prefix + text)
        elif isinstance(entry, URLPattern):
            path = prefix + text
            if not any(c in path for c in "^$(?<"):
                yield path


ALL = sorted(set(routes(get_resolver().url_patterns)) | {"/api/nothing", "/api/debug/towns/main/status"})


@pytest.mark.django_db
@pytest.mark.parametrize("path", ALL)
def test_r8_every_door_is_closed_to_strangers(client: Client, path: str) -> None:
    for answer in (client.get(path), client.post(path, {}, content_type="application/json")):
        if path in OPEN:
            assert answer.status_code in (200, 302, 405)
        elif answer.status_code == 302:
            assert "login" in answer["Location"]
        else:
            assert answer.status_code in (401, 403, 405), (path, answer.status_code)
            if answer.status_code == 405:
                assert answer.content == b"" or b"not allowed" in answer.content.lower()


def test_the_walk_sees_the_doors() -> None:
    assert {"/", "/queue/", "/api/tools", "/api/runs/run-1/claim", "/metrics", "/admin/beads/bead/"} <= set(ALL)


@pytest.mark.django_db
def test_r19_the_console_can_only_act_through_listed_actions(place: Place, operator: Client) -> None:
    listed = set(ACTIONS.values())
    for model, console in admin.site._registry.items():
        if model._meta.app_label not in ("beads", "agents", "refinery"):
            continue
        page = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert operator.get(page).status_code == 200
        assert operator.get(page + "add/").status_code == 403
        assert set(console.actions or ()) <= listed


@pytest.mark.django_db
def test_r19_an_action_is_audited_with_its_actor(place: Place, operator: Client) -> None:
    bead = place.bead("Paint")
    form = {"action": "cancel_bead", "_selected_action": [bead.pk], "reason": "sold"}
    answer = operator.post("/admin/beads/bead/", form)
    assert answer.status_code == 302
    place.tick()
    bead.refresh_from_db()
    assert bead.resolution == "cancelled"
    event = bead.events.get(kind="cancel_requested")
    assert (event.actor, event.reason) == ("admin:olga", "sold")


@pytest.mark.django_db
def test_a_viewer_looks_but_does_not_act(place: Place, viewer: Client) -> None:
    entry = place.entry()
    for path in (f"/reviews/{entry.pk}/approve/", "/convoys/gt-1/start/"):
        assert viewer.post(path, {"head": entry.head_sha}).status_code == 403
    assert viewer.get("/admin/").status_code == 302
