"""The cast at the doors: a running polecat with its token, a stranger, a viewer, a reviewer, operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.test import Client

import gastown_site.urls  # noqa: F401 - discovers the consoles, which tests are made for
from agents.models import Run
from beads import people
from beads.models import Town, TownRole
from tests.db.conftest import Place
from tests.web.ground import Ground


@pytest.fixture
def place(db: None) -> Place:
    """The usual town."""
    return Place()


class Agent:
    """A running agent that calls tools."""

    def __init__(self, client: Client, run: Run, token: str, secret: str = "") -> None:
        self.client, self.run, self.token, self.secret = client, run, token, secret

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.post(
            path, body if body is not None else {}, content_type="application/json",
            headers={"Authorization": f"Bearer {self.secret if '/runs/' in path else self.token}", **headers},
        )  # fmt: skip

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.post(f"/api/tools/{tool}", arguments)


@pytest.fixture
def polecat(place: Place, client: Client) -> Agent:
    """A polecat at work on a bead."""
    place.bead("Paint the fence")
    place.tick()
    run, token = place.running(kind="polecat")
    return Agent(client, run, token, place.secrets[token])


@pytest.fixture
def cast(db: None) -> Iterator[Callable[[str, TownRole], Client]]:
    """Logs a person in who has a role in every town there is, and in those that the test makes later."""
    people_of: list[tuple[User, TownRole]] = []

    def welcome(sender: type[Town], instance: Town, created: bool, **more: Any) -> None:
        for user, role in people_of if created else []:
            people.grant(user, instance, role, "test")

    def login(name: str, role: TownRole) -> Client:
        user = User.objects.create_user(name)
        people_of.append((user, role))
        for town in Town.objects.all():
            people.grant(user, town, role, "test")
        client = Client()
        client.force_login(user)
        return client

    post_save.connect(welcome, sender=Town, weak=False, dispatch_uid="test-cast")
    yield login
    post_save.disconnect(dispatch_uid="test-cast", sender=Town)


@pytest.fixture
def viewer(cast: Callable[[str, TownRole], Client]) -> Client:
    """May look."""
    return cast("victor", TownRole.VIEWER)


@pytest.fixture
def reviewer(cast: Callable[[str, TownRole], Client]) -> Client:
    """May review."""
    return cast("rita", TownRole.REVIEWER)


@pytest.fixture
def dispatcher(cast: Callable[[str, TownRole], Client]) -> Client:
    """May steer her towns, and only those: an operator who is no superuser."""
    return cast("dora", TownRole.OPERATOR)


@pytest.fixture
def stranger(db: None) -> Client:
    """Has an account and no role anywhere."""
    client = Client()
    client.force_login(User.objects.create_user("sid"))
    return client


@pytest.fixture
def operator(db: None) -> Client:
    """May steer everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def ground(db: None, tmp_path: Path, settings: Any) -> Ground:
    """Fresh ground."""
    settings.GASTOWN_HOME = str(tmp_path)
    return Ground(tmp_path)
