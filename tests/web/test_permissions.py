"""Who may do what in which town: every page, acting route and console of a town asks for the role that it needs.

The routes are found by walking the URLconf, so a new one is held to this without anybody thinking of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import AsyncClient, Client
from django.urls import URLPattern, URLResolver, get_resolver

from agents import mail
from agents.models import Run
from beads import inbox, ledger, people, plans
from beads.errors import Conflict
from beads.models import Fact, Membership, Town, TownRole
from refinery.console.actions import ACTIONS
from tests.db.conftest import Place
from tests.web.consoles import CONSOLES, page
from tests.web.test_console_actions import CASES

# Acting on nobody's town but one's own account: everybody who is logged in may.
OWN_ACCOUNT = {"login", "logout", "set_language", "account"}
SIGNED = ("/git/", "/hooks/")  # shims': tests/acceptance/test_git_door.py; hosts': tests/hosts/test_hooks.py
STREAMS = {"events", "events-all"}  # answer under ASGI only: see the test of their own
VERBS = {
    "review-act": (
        "approve",
        "merge",
        "request-changes",
        "comment",
        "resolve",
        "reopen",
        "reject",
        "retry",
        "land-now",
    ),
    "escalation-act": ("ack", "close"),
    "town-act": ("budget",),
    "bead-act": ("release", "cancel", "retry", "confirm", "answer", "edit", "hold", "hint"),
    "run-act": ("save", "hint"),
    "convoy-act": ("start", "close", "retry"),
    "mayor-ask": (),
}


@dataclass(frozen=True)
class World:
    """One of everything in a town, by the route parameter's meaning."""

    place: Place
    keys: dict[str, str]


@pytest.fixture
def world(place: Place) -> World:
    """A town with one of everything."""
    plan = plans.parse([{"key": "one", "title": "One"}], "plan", place.rig, lambda slug: place.rig)
    convoy = ledger.create_convoy(place.rig, "Square", "review-and-merge", plan, actor="test")
    bead, entry = place.bead("Fence"), place.entry()
    place.tick()
    run = Run.objects.get(bead=bead)
    problem = ledger.escalate(place.town, ledger.Problem("test", "Look"), actor="test")
    assert problem is not None
    mail.send(place.town, "alice", "overseer", mail.Letter("Subject of main", "body"))
    keys = {"convoys": convoy.pk, "beads": bead.pk, "reviews": entry.pk, "runs": run.pk, "towns": "main"}
    keys |= {"escalations": problem.pk, "events": "main"}
    return World(place, keys)


def walk(patterns: Any, prefix: str = "/") -> Iterator[tuple[str, URLPattern]]:
    """Every pattern of the people's pages: what is not the console's, the agents', or open to all."""
    for entry in patterns:
        text = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            if not text.startswith(("/admin/", "/api/")):
                yield from walk(entry.url_patterns, text)
        elif isinstance(entry, URLPattern) and not text.startswith(SIGNED):
            yield text, entry


PAGES = list(walk(get_resolver().url_patterns))


def paths(text: str, entry: URLPattern, keys: dict[str, str]) -> list[str]:
    """Real paths of a pattern: its rows from `keys`, by its first word; every verb it knows."""
    first = text.strip("/").split("/")[0]
    made = [re.sub(r"<(?:str|slug):(?:key|slug|pk|id)>", keys.get(first, "gt-none"), text)]
    if "<str:verb>" in text:
        made = [m.replace("<str:verb>", verb) for m in made for verb in VERBS[str(entry.name)]]
    return [re.sub(r"<int:\w+>", "1", re.sub(r"<(?:str|slug|path):\w+>", "x", m)) for m in made]


def test_the_walk_finds_the_routes() -> None:
    names = {entry.name for _, entry in PAGES}
    assert names >= {"towns", "town", "convoy", "convoy-act", "review", "review-act", "queue", "run", "mail"}


@pytest.mark.django_db
@pytest.mark.parametrize(("text", "entry"), PAGES, ids=[t for t, _ in PAGES])
def test_a_viewer_acts_nowhere(world: World, viewer: Client, text: str, entry: URLPattern) -> None:
    """POST anywhere: refused as a method that the page does not have, or 403. Nothing is recorded."""
    if entry.name in OWN_ACCOUNT | {"healthz", "readyz", "metrics"}:
        return
    before = Fact.objects.count()
    for path in paths(text, entry, world.keys):
        for method in (viewer.post, viewer.put, viewer.patch, viewer.delete):
            assert method(path).status_code in (403, 405), (path, method.__name__)
        if entry.name in VERBS:
            assert viewer.post(path, {"head": "a" * 40}).status_code == 403, path
            assert viewer.get(path).status_code in (403, 405)
    assert Fact.objects.count() == before


@pytest.mark.django_db
def test_a_viewer_enters_no_console(world: World, viewer: Client, reviewer: Client) -> None:
    for client in (viewer, reviewer):
        assert client.get("/admin/").status_code == 302
        for model, console in CONSOLES:
            for action in console.actions or ():
                name = getattr(action, "__name__", "")
                answer = client.post(page(model), {"action": name, "_selected_action": ["1"], "reason": "me"})
                assert answer.status_code == 302
                assert answer["Location"].startswith("/admin/login/")
        for row in (world.place.town, world.place.rig):
            assert client.post(f"{page(row)}{row.pk}/config/", {"step": "save"}).status_code == 302


@pytest.mark.django_db
def test_a_reviewer_reviews_but_does_not_steer(world: World, reviewer: Client) -> None:
    keys = world.keys
    for verb in VERBS["convoy-act"]:
        assert reviewer.post(f"/convoys/{keys['convoys']}/{verb}/").status_code == 403
    assert reviewer.post(f"/reviews/{keys['reviews']}/approve/", {"head": "a" * 40}).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(("text", "entry"), PAGES, ids=[t for t, _ in PAGES])
def test_a_stranger_sees_no_town(world: World, stranger: Client, text: str, entry: URLPattern) -> None:
    if entry.name in OWN_ACCOUNT | STREAMS | {"healthz"}:
        return
    for path in paths(text, entry, world.keys):
        answer = stranger.get(path)
        if "<" in text:
            assert answer.status_code in (403, 404, 405), path
            assert stranger.post(path).status_code in (403, 404, 405), path
        else:
            shown = answer.content.decode()
            for word in ("Square", "Fence", "Subject of main", 'href="/towns/main/"', *world.keys.values()):
                assert word == "main" or word not in shown, (path, word)


@pytest.mark.django_db
def test_what_is_not_yours_is_as_absent_as_what_does_not_exist(world: World, stranger: Client) -> None:
    there = stranger.get(f"/beads/{world.keys['beads']}/")
    nowhere = stranger.get("/beads/gt-00000000/")
    assert (there.status_code, nowhere.status_code) == (404, 404)
    assert world.keys["beads"] not in there.content.decode()


@pytest.mark.django_db
def test_a_stranger_hears_nothing_of_a_town(world: World, stranger: Client) -> None:
    """The streams of events, as an ASGI server serves them."""
    client = AsyncClient()
    client.cookies = stranger.cookies
    assert async_to_sync(client.get)("/events/main/").status_code == 404
    run = world.keys["runs"]
    assert async_to_sync(client.get)(f"/events/main/?run={run}&log").status_code == 404


# -- the console of one's own towns ---------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(world: World) -> Client:
    """An operator of another town."""
    other = ledger.create_town("other")
    user = User.objects.create_user("oscar")
    people.grant(user, other, TownRole.OPERATOR, "test")
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.django_db
def test_an_operator_of_a_town_needs_not_be_staff(world: World, dispatcher: Client) -> None:
    assert dispatcher.get("/admin/").status_code == 200
    for model, _ in CONSOLES:
        assert dispatcher.get(page(model)).status_code == 200, model
    bead = world.keys["beads"]
    assert bead in dispatcher.get("/admin/beads/bead/").content.decode()
    form = {"action": "cancel_bead", "_selected_action": [bead], "reason": "not wanted"}
    assert dispatcher.post("/admin/beads/bead/", form).status_code == 302
    assert Fact.objects.get(kind="bead.cancel").actor == "admin:dora"


@pytest.mark.django_db
def test_an_operator_finds_nothing_of_another_town(world: World, elsewhere: Client) -> None:
    assert elsewhere.get("/admin/").status_code == 200
    assert "proj" not in elsewhere.get("/admin/").content.decode()
    for model, console in CONSOLES:
        town_path = getattr(console, "town_path", "")
        if not town_path:
            continue
        for row in model._default_manager.all():
            if town_path == "pk" or isinstance(row, Membership):
                continue
            assert elsewhere.get(f"{page(model)}{row.pk}/change/").status_code == 302, row
            assert elsewhere.get(f"{page(model)}{row.pk}/history/").status_code in (302, 403, 404), row
        elsewhere.get(page(model))  # shows the messages, which name what was asked for
        text = elsewhere.get(page(model)).content.decode()
        for word in (*world.keys.values(), "proj"):
            assert word == "main" or word not in text, (model, word)
    assert elsewhere.get(f"{page(Town)}{world.place.town.pk}/change/").status_code == 302
    for row in (world.place.town, world.place.rig):
        assert elsewhere.get(f"{page(row)}{row.pk}/config/").status_code == 404
    for kind, key in world.keys.items():
        if kind not in ("towns", "events"):
            assert elsewhere.get("/admin/find/", {"q": key})["Location"] == "/admin/"


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CASES))
def test_no_action_reaches_into_another_town(place: Place, cast: Callable[[str, TownRole], Client], name: str) -> None:
    row: Model = CASES[name][0](place)
    user = User.objects.create_user("oscar")
    people.grant(user, ledger.create_town("other"), TownRole.OPERATOR, "test")
    client = Client()
    client.force_login(user)
    before = Fact.objects.count(), type(row)._default_manager.filter(pk=row.pk).values().get()
    form = {"action": name, "_selected_action": [str(row.pk)], "reason": "mischief"}
    answer = client.post(page(row), form, follow=True)
    assert "recorded for" not in answer.content.decode()
    assert (Fact.objects.count(), type(row)._default_manager.filter(pk=row.pk).values().get()) == before
    assert name in ACTIONS


# -- roles ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_roles_are_ordered_and_of_one_town() -> None:
    main, other = ledger.create_town("main"), ledger.create_town("other")
    user: Any = User.objects.create_user("ann")
    root: Any = User.objects.create_superuser("root")
    assert not people.may(user, main)
    assert not people.towns(user).exists()
    people.grant(user, main, TownRole.REVIEWER, "test")
    assert people.may(user, main)
    assert people.may(user, main, TownRole.REVIEWER)
    assert not people.may(user, main, TownRole.OPERATOR)
    assert not people.may(user, other)
    assert [t.slug for t in people.towns(user)] == ["main"]
    assert not people.enters_console(user)
    people.grant(user, main, TownRole.OPERATOR, "test")
    assert Membership.objects.count() == 1
    assert people.enters_console(user)
    user.is_active = False
    assert not people.may(user, main)
    assert not people.enters_console(user)
    user.is_active = True
    people.revoke(user, main)
    assert not people.may(user, main)
    with pytest.raises(Conflict):
        people.revoke(user, main)
    assert people.may(root, other, TownRole.OPERATOR)


@pytest.mark.django_db
def test_a_revoked_role_counts_at_the_next_request(world: World, dispatcher: Client) -> None:
    assert dispatcher.get("/towns/main/").status_code == 200
    people.revoke(User.objects.get(username="dora"), world.place.town)
    assert dispatcher.get("/towns/main/").status_code == 404
    assert dispatcher.get("/admin/").status_code == 302


@pytest.mark.django_db
def test_the_metrics_are_for_members(world: World, stranger: Client, viewer: Client) -> None:
    inbox.wake(world.place.town)
    assert stranger.get("/metrics").status_code == 401
    assert viewer.get("/metrics").status_code == 200


@pytest.mark.django_db
def test_accounts_are_the_superusers_matter() -> None:
    console = admin.site._registry[User]
    plain = type("Request", (), {"user": User.objects.create_user("x", is_staff=True)})()
    assert not console.has_view_permission(plain)
    assert not console.has_change_permission(plain)
    assert not admin.site._registry[LogEntry].has_view_permission(plain)
